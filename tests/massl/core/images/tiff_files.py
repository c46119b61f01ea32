"""Writes TIFFs of every kind that the standard knows and few programs write: a picture's numbers to a file's bytes."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

NONE, LZW, DEFLATE, PACKBITS = 1, 5, 8, 32773
GREY_WHITE_IS_ZERO, GREY, RGB, CMYK, YCBCR, LAB, ICC_LAB = 0, 1, 2, 5, 6, 8, 9


def tiff(
    pixels: np.ndarray,
    photometric: int,
    *,
    order: str = "<",
    planar: bool = False,
    tile: int | None = None,
    rows: int | None = None,
    compression: int = NONE,
    predictor: int = 1,
    bits: int | None = None,
    extra: Sequence[int] = (),
    orientation: int = 1,
    profile: bytes | None = None,
    reverse: bool = False,
    big: bool = False,
    more: Mapping[int, tuple[int, Sequence[int] | bytes]] = {},
) -> bytes:
    """A TIFF of one page.

    Args:
        pixels: `[H, W, C]`, of the type to store.
        photometric: how the first channels are meant.
        order: `<` for Intel's order of bytes, `>` for Motorola's.
        planar: each channel by itself.
        tile: side of square tiles, in pixels; strips if left out.
        rows: rows a strip; one strip if left out.
        compression: one of the constants here.
        predictor: 1 none, 2 differences, 3 of floating point.
        bits: of a number, where numbers are packed.
        extra: what the channels after the colours are.
        orientation: as EXIF has it.
        profile: a colour profile.
        reverse: the bits of each byte in the other order.
        big: a BigTIFF.
        more: further tags, or others' values: type, and numbers or bytes.
    """
    height, width, channels = pixels.shape
    depth = bits or 8 * pixels.dtype.itemsize
    across, down = (tile, tile) if tile else (width, rows or height)
    planes = [pixels[..., at : at + 1] for at in range(channels)] if planar else [pixels]
    pieces = []
    for plane in planes:
        for top in range(0, height, down):
            for left in range(0, width, across):
                piece = plane[top : top + down, left : left + across]
                if tile:
                    missing = ((0, down - piece.shape[0]), (0, across - piece.shape[1]), (0, 0))
                    piece = np.pad(piece, missing)
                data = _compressed(_packed(piece, order, predictor, bits), compression)
                pieces.append(bytes(int(f"{byte:08b}"[::-1], 2) for byte in data) if reverse else data)
    kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    tags: dict[int, tuple[int, Sequence[int] | bytes]] = {
        256: (4, [width]), 257: (4, [height]), 258: (3, [depth] * channels), 259: (3, [compression]),
        262: (3, [photometric]), 266: (3, [2 if reverse else 1]), 274: (3, [orientation]), 277: (3, [channels]),
        284: (3, [2 if planar else 1]), 317: (3, [predictor]), 339: (3, [kind] * channels),
    }  # fmt: skip
    if extra:
        tags[338] = (3, list(extra))
    if profile:
        tags[34675] = (7, profile)
    if tile:
        tags |= {322: (4, [tile]), 323: (4, [tile])}
    else:
        tags[278] = (4, [down])
    places, sizes = (324, 325) if tile else (273, 279)
    tags[sizes] = (4, [len(piece) for piece in pieces])
    tags |= more
    tags[places] = (4, [0] * len(pieces))
    _, start = _directory(tags, order, big)
    at, offsets = start, []
    for piece in pieces:
        offsets.append(at)
        at += len(piece)
    tags[places] = (4, offsets)
    head, _ = _directory(tags, order, big)
    return head + b"".join(pieces)


def _directory(tags: Mapping[int, tuple[int, Sequence[int] | bytes]], order: str, big: bool) -> tuple[bytes, int]:
    """Header, directory and what is too long for it; and where that ends."""
    letter, room = ("Q", 8) if big else ("I", 4)
    mark = {"<": b"II", ">": b"MM"}[order]
    head = struct.pack(f"{order}2sHHHQ", mark, 43, 8, 0, 16) if big else struct.pack(f"{order}2sHI", mark, 42, 8)
    head += struct.pack(f"{order}{'Q' if big else 'H'}", len(tags))
    after = len(head) + (20 if big else 12) * len(tags) + room
    body, rest = b"", b""
    for tag, (kind, values) in sorted(tags.items()):
        letters = {3: "H", 4: "I", 12: "d"}.get(kind)
        data = values if isinstance(values, bytes) else struct.pack(f"{order}{len(values)}{letters}", *values)
        count = len(values)
        if len(data) > room:
            data += bytes(len(data) % 2)
            place = struct.pack(f"{order}{letter}", after + len(rest))
            rest += data
        else:
            place = data.ljust(room, b"\0")
        body += struct.pack(f"{order}HH{letter}", tag, kind, count) + place
    whole = head + body + bytes(room) + rest
    return whole, len(whole)


def _packed(piece: np.ndarray, order: str, predictor: int, bits: int | None) -> bytes:
    height, width, channels = piece.shape
    if bits:
        each = (piece[..., None].astype(np.uint64) >> np.arange(bits - 1, -1, -1, dtype=np.uint64)) & np.uint64(1)
        return np.packbits(each.reshape(height, -1).astype(np.uint8), axis=1).tobytes()
    size = piece.dtype.itemsize
    if predictor == 2:
        whole = np.ascontiguousarray(piece).view(f"u{size}")
        differences = whole.copy()
        differences[:, 1:] -= whole[:, :-1]
        return differences.astype(f"{order}u{size}").tobytes()
    if predictor == 3:
        lines = piece.astype(f">f{size}").reshape(height, width * channels, 1).view(np.uint8)
        lines = np.ascontiguousarray(lines.reshape(height, -1, size).transpose(0, 2, 1)).reshape(height, -1, channels)
        differences = lines.copy()
        differences[:, 1:] -= lines[:, :-1]
        return differences.tobytes()
    return piece.astype(f"{order}{piece.dtype.kind}{size}").tobytes()


def _compressed(data: bytes, compression: int) -> bytes:
    if compression == DEFLATE:
        return zlib.compress(data)
    if compression == PACKBITS:  # literally, up to 128 bytes at a time
        parts = (data[at : at + 128] for at in range(0, len(data), 128))
        return b"".join(bytes([len(part) - 1]) + part for part in parts)
    if compression == LZW:  # without ever using the table, which is cleared before its codes need ten bits
        codes = [256]
        for at, byte in enumerate(data):
            codes += [256, byte] if at and at % 250 == 0 else [byte]
        each = (np.array([*codes, 257])[:, None] >> np.arange(8, -1, -1)) & 1
        return np.packbits(each.astype(np.uint8)).tobytes()
    return data
