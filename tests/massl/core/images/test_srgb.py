"""What is read is what the file says: a grid of formats, held against how the files were made and against libvips."""

from __future__ import annotations

import io
import itertools
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from massl.core.images import decoding
from massl.core.images.decoding import decode
from massl.core.images.image_errors import ImageError
from massl.data.sources import Files
from tests.massl.core.images import tiff_files
from tests.massl.core.images.tiff_files import CMYK, GREY, GREY_WHITE_IS_ZERO, ICC_LAB, LAB, RGB, YCBCR, tiff

W, H = 64, 48
ACROSS, DOWN = np.linspace(0, 1, W)[None].repeat(H, 0), np.linspace(0, 1, H)[:, None].repeat(W, 1)
COLOURS = np.stack([ACROSS, DOWN, 1 - ACROSS], -1)
COLOURS[:12, :20] = 0.9, 0.1, 0.1  # so that it can be told how it is turned
GREYS = COLOURS[..., :1] * 0.8 + 0.1
OPACITY = np.linspace(0, 1, H)[:, None, None].repeat(W, 1)


def integers(values: np.ndarray, kind: str = "u2", top: int = 0) -> np.ndarray:
    return np.rint(values * (top or np.iinfo(kind).max)).astype(kind)


def shown(values: np.ndarray) -> np.ndarray:
    """0 to 1, as the picture that is expected: int `[H, W, 3]`."""
    return np.rint(values * 255).astype(int).repeat(3 if values.shape[-1] == 1 else 1, -1)


def on_white(values: np.ndarray) -> np.ndarray:
    return shown(values * OPACITY + 1 - OPACITY)


PICTURE = Image.fromarray(shown(COLOURS).astype(np.uint8))
GREY_PICTURE = Image.fromarray(shown(GREYS)[..., 0].astype(np.uint8))
SEE_THROUGH = PICTURE.copy()
SEE_THROUGH.putalpha(Image.fromarray(integers(OPACITY[..., 0], "u1")))


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    with io.BytesIO() as buffer:
        image.save(buffer, kind, **options)
        return buffer.getvalue()


def read(data: bytes) -> np.ndarray:
    return np.asarray(decode(data).picture).astype(int)


@dataclass
class File:
    """A file, the picture that it holds, how many of 255 a pixel may differ, and whether libvips reads it so, too."""

    name: str
    data: bytes
    expected: np.ndarray
    tolerance: int = 1
    libvips: bool = True


# The grid -------------------------------------------------------------------------------------------------------------

TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {  # from what the file says to what is expected
    1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1), 8: lambda a: np.rot90(a),
}  # fmt: skip
MEANINGS = {"white is zero": GREY_WHITE_IS_ZERO, "black is zero": GREY, "RGB": RGB}


def tiffs_of_integers(kind: str, meaning: str) -> Iterator[File]:
    photometric = MEANINGS[meaning]
    values = {GREY_WHITE_IS_ZERO: 1 - GREYS, GREY: GREYS, RGB: COLOURS}[photometric]
    wanted = shown(COLOURS if photometric == RGB else GREYS)
    ways = itertools.product(
        "<>",
        (False, True),
        (None, 16),
        (tiff_files.NONE, tiff_files.LZW, tiff_files.DEFLATE, tiff_files.PACKBITS),
        (1, 2),
    )
    for at, (order, planar, tile, compression, predictor) in enumerate(ways):
        if predictor == 2 and compression not in (tiff_files.LZW, tiff_files.DEFLATE):
            continue
        turn = at % 8 + 1
        data = tiff(
            integers(values, kind), photometric, order=order, planar=planar, tile=tile, rows=7, compression=compression,
            predictor=predictor, orientation=turn,
        )  # fmt: skip
        name = f"{order} planar={planar} tile={tile} compression={compression} {predictor=} {turn=}"
        yield File(name, data, TURNS[turn](wanted), libvips=not (planar and tile))  # "not supported" there


def tiffs_of_other_numbers() -> Iterator[File]:
    """Those that libvips shows as they are: white above 255, floating point above 1; or takes for linear light."""
    stretched = (GREYS - GREYS.min()) / (GREYS.max() - GREYS.min())
    for planar, tile, order in itertools.product((False, True), (None, 16), "<>"):
        way: dict[str, Any] = {"planar": planar, "tile": tile, "order": order}
        for photometric, meant in ((GREY, stretched), (GREY_WHITE_IS_ZERO, 1 - stretched)):
            name = f"{photometric} {way}"
            for kind in ("f2", "f4", "f8"):
                yield File(f"{kind} {name}", tiff(GREYS.astype(kind), photometric, **way), shown(meant), libvips=False)
            negative = integers(GREYS * 3000 - 1000, "i2", 1)
            yield File(f"i2 {name}", tiff(negative, photometric, **way), shown(meant), libvips=False)
            negative = integers(GREYS * 200 - 100, "i1", 1)
            yield File(f"i1 {name}", tiff(negative, photometric, **way), shown(meant), 2, libvips=False)
        for predictor, kind in itertools.product((1, 3), ("f2", "f4", "f8")):
            colours = tiff(COLOURS.astype(kind), RGB, predictor=predictor, compression=tiff_files.DEFLATE, **way)
            yield File(f"RGB {kind} {predictor=} {way}", colours, shown(COLOURS), libvips=False)
        yield File(f"RGB u4 {way}", tiff(integers(COLOURS, "u4"), RGB, **way), shown(COLOURS), libvips=False)
        beyond = tiff(COLOURS.astype("f4") * 300 - 20, RGB, **way)
        yield File(f"RGB beyond 0 to 1 {way}", beyond, shown(COLOURS), libvips=False)


def tiffs_of_packed_bits() -> Iterator[File]:
    for bits, planar in itertools.product((1, 2, 3, 4, 10, 12, 14, 24), (False, True)):
        top = 2**bits - 1
        for photometric, values in ((GREY_WHITE_IS_ZERO, 1 - GREYS), (GREY, GREYS), (RGB, COLOURS)):
            stored = integers(values, "u4", top)
            meant = 1 - stored / top if photometric == GREY_WHITE_IS_ZERO else stored / top
            ours = planar or photometric == RGB or bits not in (1, 2, 4)
            data = tiff(stored, photometric, bits=bits, planar=planar)
            yield File(f"{bits} bits {photometric} {planar=}", data, shown(meant), libvips=not ours)


def tiffs_in_part_of_their_depth() -> Iterator[File]:
    """A 12-bit camera's, in 16 bits. libvips shows them nearly black."""
    opaque = integers(np.ones_like(OPACITY))
    for bits in (10, 12, 14):
        top = 2**bits - 1
        for planar in (False, True):
            for kind in ("u2", "i2", "u4"):
                grey = tiff(integers(GREYS, kind, top), GREY, planar=planar)
                yield File(f"{bits} grey {kind} {planar=}", grey, shown(GREYS), libvips=False)
                colours = tiff(integers(COLOURS, kind, top), RGB, planar=planar)
                yield File(f"{bits} RGB {kind} {planar=}", colours, shown(COLOURS), libvips=False)
            colours = integers(COLOURS, top=top)
            with_alpha = tiff(np.dstack([colours, integers(OPACITY, top=top)]), RGB, planar=planar, extra=[2])
            yield File(f"{bits} RGB and alpha {planar=}", with_alpha, on_white(COLOURS), libvips=False)
            with_alpha = tiff(np.dstack([colours, opaque]), RGB, planar=planar, extra=[2])
            yield File(f"{bits} RGB and alpha of 16 {planar=}", with_alpha, shown(COLOURS), libvips=False)
        # One scale for all three: what is blue alone stays blue.
        blue = COLOURS * [0.01, 0.1, 1]
        yield File(f"{bits} blue", tiff(integers(blue, top=top), RGB), shown(blue), libvips=False)


def tiffs_with_more_channels() -> Iterator[File]:
    other = 1 - OPACITY
    for kind, planar in itertools.product(("u1", "u2"), (False, True)):
        way: dict[str, Any] = {"planar": planar}

        def made(values: list[np.ndarray], photometric: int, extra: list[int], kind=kind, way=way) -> bytes:
            return tiff(integers(np.dstack(values), kind), photometric, extra=extra, **way)

        name = f"{kind} {planar=}"
        whole, clear = shown(COLOURS), on_white(COLOURS)
        yield File(f"alpha {name}", made([COLOURS, OPACITY], RGB, [2]), clear, 2)
        yield File(f"premultiplied {name}", made([COLOURS * OPACITY, OPACITY], RGB, [1]), clear, 3)
        yield File(f"alpha that isn't called so {name}", made([COLOURS, OPACITY], RGB, []), clear, 2)
        # libvips takes any fourth channel for alpha, a fifth for a colour, and mixes up two planes.
        yield File(f"a fourth that is no alpha {name}", made([COLOURS, OPACITY], RGB, [0]), whole, libvips=False)
        yield File(f"alpha that is never used {name}", made([COLOURS, OPACITY * 0], RGB, []), whole, libvips=False)
        yield File(f"alpha that hides all {name}", made([COLOURS, OPACITY * 0], RGB, [2]), whole * 0 + 255)
        sixth = made([COLOURS, other, other, OPACITY], RGB, [0, 0, 2])
        yield File(f"alpha as the sixth {name}", sixth, clear, libvips=False)
        grey = on_white(GREYS)
        yield File(f"grey and alpha {name}", made([GREYS, OPACITY], GREY, [2]), grey, 2, not planar)
        yield File(f"grey, premultiplied {name}", made([GREYS * OPACITY, OPACITY], GREY, [1]), grey, 3, not planar)
        yield File(
            f"white is zero, alpha {name}", made([1 - GREYS, OPACITY], GREY_WHITE_IS_ZERO, [2]), grey, 2, not planar
        )


def tiffs_of_ink() -> Iterator[File]:
    """Without a profile: by the plain formula. libvips takes a profile of its own."""
    ink = 1 - COLOURS
    black = ink.min(-1, keepdims=True)
    inks = np.dstack([(ink - black) / (1 - black + 1e-9), black])
    for kind, planar in itertools.product(("u1", "u2"), (False, True)):
        name = f"{kind} {planar=}"
        yield File(name, tiff(integers(inks, kind), CMYK, planar=planar), shown(COLOURS), 2, False)
        # Little ink is no small depth.
        pale = tiff(integers(inks * 0.01, kind), CMYK, planar=planar)
        yield File(f"pale {name}", pale, shown(1 - ink * 0.01), 2, False)
        spot = tiff(integers(np.dstack([inks, OPACITY]), kind), CMYK, planar=planar, extra=[0])
        yield File(f"with a spot colour {name}", spot, shown(COLOURS), 2, False)
        alpha = tiff(integers(np.dstack([inks, OPACITY]), kind), CMYK, planar=planar, extra=[2])
        yield File(f"with alpha {name}", alpha, on_white(COLOURS), 2, False)


def tiffs_of_lab() -> Iterator[File]:
    """As libvips takes it for one of daylight, and reads none of 8 bits, it is no judge."""
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    seen = ImageCms.profileToProfile(PICTURE, srgb, lab, outputMode="LAB")
    expected = np.asarray(ImageCms.profileToProfile(seen, lab, srgb, outputMode="RGB")).astype(int)
    stored = np.array(seen)  # a and b with signs
    light, colours = stored[..., :1], stored[..., 1:].view(np.int8).astype(np.int32)
    whole = {
        (LAB, 8): stored,
        (ICC_LAB, 8): np.dstack([light, (colours + 128).astype(np.uint8)]),
        (LAB, 16): np.dstack([light * np.uint16(257), (colours * 256).astype(np.int16).view(np.uint16)]),
        (ICC_LAB, 16): np.dstack([light * np.uint16(256), ((colours + 128) * 256).astype(np.uint16)]),
    }
    for (photometric, bits), values in whole.items():
        for planar in (False, True):
            yield File(f"{photometric} {bits} {planar=}", tiff(values, photometric, planar=planar), expected, 0, False)


def tiffs_with_palettes() -> Iterator[File]:
    numbers = np.rint(ACROSS * 15)[..., None]
    palette = np.random.default_rng(0).integers(0, 256, (16, 3))
    expected = palette[numbers[..., 0].astype(int)]
    for bits, planar, depth in itertools.product((4, 8, 16), (False, True), (257, 1)):
        map_of_all = np.zeros((2**bits, 3), int)
        map_of_all[:16] = palette * depth
        stored = numbers.astype("u2" if bits == 16 else "u1")
        data = tiff(
            stored, 3, bits=bits if bits < 8 else None, planar=planar, more={320: (3, map_of_all.T.ravel().tolist())}
        )
        yield File(f"{bits} {planar=} {depth=}", data, expected, libvips=bits == 8 or (bits == 4 and not planar))


def tiffs_written_oddly() -> Iterator[File]:
    for kind in ("u1", "u2"):
        colours, wanted = integers(COLOURS, kind), shown(COLOURS)
        yield File(f"BigTIFF {kind}", tiff(colours, RGB, big=True, tile=16), wanted)
        yield File(f"bits in the other order {kind}", tiff(colours, RGB, reverse=True), wanted, libvips=kind == "u1")
        yield File(f"the same, LZW {kind}", tiff(colours, RGB, reverse=True, compression=tiff_files.LZW), wanted)
        yield File(f"one strip {kind}", tiff(colours, RGB), wanted)
    luminance = np.asarray(PICTURE.convert("YCbCr"))
    compressed = tiff(luminance, YCBCR, compression=tiff_files.LZW, more={530: (3, [1, 1])})
    yield File("YCbCr", compressed, shown(COLOURS), 3, False)  # libvips shows its numbers as RGB
    missing = np.where(OPACITY < 0.2, -9999, GREYS * 10_000)
    seen = np.where(OPACITY < 0.2, 0, (GREYS * 10_000 - missing[missing > 0].min()) / np.ptp(missing[missing > 0]))
    heights = tiff(missing.astype("f4"), GREY, more={42113: (2, b"-9999\0")})
    yield File("a number for no data", heights, shown(seen), libvips=False)
    for kind in ("u1", "u2"):  # in one channel it is a colour
        used = tiff(
            integers(COLOURS, kind), RGB, planar=True, more={42113: (2, b"%d\0" % integers(COLOURS, kind).max())}
        )
        yield File(f"a number for no data that colours have {kind}", used, shown(COLOURS), 1, kind == "u1")
    holes = GREYS.copy()
    holes[:, :5], holes[:, 5:7], holes[:, 7:9] = np.nan, np.inf, -np.inf
    finite = holes[np.isfinite(holes)]
    seen = np.where(np.isfinite(holes), (holes - finite.min()) / np.ptp(finite), 0)
    yield File("no numbers among numbers", tiff(holes, GREY), shown(seen), libvips=False)


def png(
    values: np.ndarray, depth: int, kind: int, transparent: bytes = b"", palette: bytes = b"", profile: bytes = b""
) -> bytes:
    """A PNG as its standard says: `values` `[H, W, C]`, `kind` 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    lines = values.reshape(len(values), -1).astype(">u2")
    if depth == 16:
        rows = lines.view(np.uint8).reshape(len(values), -1)
    else:
        bits = (lines[..., None] >> np.arange(depth - 1, -1, -1)) & 1
        rows = np.packbits(bits.reshape(len(values), -1).astype(np.uint8), axis=1)
    data = np.concatenate([np.zeros((len(rows), 1), np.uint8), rows], axis=1).tobytes()
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", values.shape[1], len(values), depth, kind, 0, 0, 0))]
    chunks += [(b"iCCP", b"x\0\0" + zlib.compress(profile))] * bool(profile)
    chunks += [(b"PLTE", palette)] * bool(palette) + [(b"tRNS", transparent)] * bool(transparent)
    chunks += [(b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(itertools.starmap(chunk, chunks))


def pngs() -> Iterator[File]:
    for depth in (1, 2, 4, 8, 16):
        top = 2**depth - 1
        stored = integers(GREYS, "u2", top)
        yield File(f"grey {depth}", png(stored, depth, 0), shown(stored / top))
        clear = stored[0, 40, 0]
        expected = shown(np.where(stored == clear, 1, stored / top))
        yield File(f"grey {depth}, one of them clear", png(stored, depth, 0, struct.pack(">H", clear)), expected)
        if depth < 8:
            continue
        stored = integers(COLOURS, "u2", top)
        yield File(f"RGB {depth}", png(stored, depth, 2), shown(COLOURS))
        clear = stored[30, 40]
        expected = shown(np.where((stored == clear).all(-1, keepdims=True), 1, COLOURS))
        yield File(f"RGB {depth}, one of them clear", png(stored, depth, 2, struct.pack(">HHH", *clear)), expected)
        alpha = integers(OPACITY, "u2", top)
        yield File(f"RGBA {depth}", png(np.dstack([stored, alpha]), depth, 6), on_white(COLOURS), 2)
        stored = integers(GREYS, "u2", top)
        yield File(f"grey and alpha {depth}", png(np.dstack([stored, alpha]), depth, 4), on_white(GREYS), 2)
    for bits in (10, 12, 14):  # in 16, which libvips shows nearly black
        colours, greys, alpha = (integers(each, top=2**bits - 1) for each in (COLOURS, GREYS, OPACITY))
        opaque = integers(OPACITY)
        yield File(f"RGB {bits} in 16", png(colours, 16, 2), shown(COLOURS), libvips=False)
        yield File(f"grey {bits} in 16", png(greys, 16, 0), shown(GREYS), libvips=False)
        clear = struct.pack(">HHH", *colours[30, 40])
        expected = shown(np.where((colours == colours[30, 40]).all(-1, keepdims=True), 1, COLOURS))
        yield File(f"RGB {bits} in 16, one clear", png(colours, 16, 2, clear), expected, libvips=False)
        for name, values in (("alike", alpha), ("of 16", opaque)):
            data = png(np.dstack([colours, values]), 16, 6)
            yield File(f"RGBA {bits} in 16, alpha {name}", data, on_white(COLOURS), 2, False)
            data = png(np.dstack([greys, values]), 16, 4)
            yield File(f"grey and alpha {bits} in 16, alpha {name}", data, on_white(GREYS), 2, False)
    for depth in (1, 2, 4, 8):
        stored = np.rint(ACROSS * (2**depth - 1))[..., None].astype(int)
        palette = np.random.default_rng(0).integers(0, 256, (2**depth, 3), np.uint8)
        clear = np.linspace(0, 255, 2**depth).astype(np.uint8)
        flat = palette[stored[..., 0]]
        yield File(f"palette {depth}", png(stored, depth, 3, palette=palette.tobytes()), flat.astype(int))
        share = clear[stored] / 255
        data = png(stored, depth, 3, clear.tobytes(), palette.tobytes())
        yield File(f"palette {depth} with alpha", data, np.rint(flat * share + 255 * (1 - share)).astype(int), 2)
    whole = png(integers(COLOURS, "u1"), 8, 2)
    yield File("without its end", whole[:-12], shown(COLOURS))
    yield File("cut within its end", whole[:-5], shown(COLOURS))


def jpegs() -> Iterator[File]:
    smooth = PICTURE.copy()
    smooth.paste(Image.fromarray(shown(np.stack([ACROSS, DOWN, 1 - ACROSS], -1)).astype(np.uint8)))
    modes = {"RGB": smooth, "L": GREY_PICTURE, "CMYK": smooth.convert("CMYK")}
    for (mode, image), progressive, sampling in itertools.product(modes.items(), (False, True), ("4:4:4", "4:2:0")):
        data = encode(image, "JPEG", quality=98, progressive=progressive, subsampling=sampling)
        expected = np.asarray(image.convert("RGB")).astype(int)
        yield File(f"{mode} {progressive=} {sampling}", data, expected, 10, mode != "CMYK")  # libvips: a profile
        yield File(f"{mode} {progressive=} {sampling}, no end", data[:-2], expected, 10, mode != "CMYK")
    yield File("RGB as it is", encode(smooth, "JPEG", quality=98, keep_rgb=True), np.asarray(smooth).astype(int), 10)


def turned_by_exif() -> Iterator[File]:
    kinds: dict[str, dict[str, Any]] = {
        "JPEG": {"quality": 98, "subsampling": "4:4:4"}, "PNG": {}, "WEBP": {"lossless": True}, "TIFF": {},
        "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    }  # fmt: skip
    for (kind, options), turn in itertools.product(kinds.items(), TURNS):
        exif = Image.Exif()
        exif[0x0112] = turn
        expected = TURNS[turn](shown(COLOURS))
        yield File(f"{kind} {turn}", encode(PICTURE, kind, exif=exif, **options), expected, 70 if kind == "JPEG" else 5)


def other_formats() -> Iterator[File]:
    few = PICTURE.quantize(16, dither=Image.Dither.NONE)
    shown_few = np.asarray(few.convert("RGB")).astype(int)
    gif = encode(few, "GIF")
    yield File("GIF", gif, shown_few)
    yield File("GIF without its end", gif[:-1], shown_few)
    yield File("WebP", encode(PICTURE, "WEBP", lossless=True), shown(COLOURS))
    yield File("WebP with alpha", encode(SEE_THROUGH, "WEBP", lossless=True, exact=True), on_white(COLOURS), 2)
    yield File("AVIF", encode(PICTURE, "AVIF", quality=100, subsampling="4:4:4"), shown(COLOURS), 5)
    yield File("AVIF with alpha", encode(SEE_THROUGH, "AVIF", quality=100, subsampling="4:4:4"), on_white(COLOURS), 6)
    yield File("AVIF, grey", encode(GREY_PICTURE, "AVIF", quality=100), shown(GREYS), 4)
    for mode in ("1", "L", "P", "RGB"):  # libvips doesn't read BMP
        image = PICTURE.convert(mode)
        yield File(f"BMP {mode}", encode(image, "BMP"), np.asarray(image.convert("RGB")).astype(int), libvips=False)
    for version, alpha, expected in (
        (5, OPACITY * 0, shown(COLOURS)), (3, OPACITY * 0, shown(COLOURS)), (5, OPACITY, on_white(COLOURS)),
        (3, OPACITY, shown(COLOURS)), (5, OPACITY * 0 + 1, shown(COLOURS)),
    ):  # fmt: skip
        yield File(f"BMP of 32 bits, version {version}", bmp(alpha, version), expected, 2, False)


def bmp(alpha: np.ndarray, version: int) -> bytes:
    """A BMP of 32 bits a pixel; only the header of version 5 says that the fourth byte is alpha."""
    size = {3: 40, 5: 124}[version]
    body = integers(np.dstack([COLOURS[..., ::-1], alpha]), "u1")[::-1].tobytes()
    head = struct.pack("<IiiHHIIiiII", size, W, H, 1, 32, 3 if version == 5 else 0, len(body), 2835, 2835, 0, 0)
    if version == 5:
        head += struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"BGRs" + bytes(64)
    return b"BM" + struct.pack("<IHHI", 14 + size + len(body), 0, 0, 14 + size) + head + body


GRID: dict[str, Callable[[], Iterator[File]]] = {
    f"TIFF, {kind}, {meaning}": lambda kind=kind, meaning=meaning: tiffs_of_integers(kind, meaning)
    for kind, meaning in itertools.product(("u1", "u2"), MEANINGS)
} | {
    "TIFF, other numbers": tiffs_of_other_numbers,
    "TIFF, packed bits": tiffs_of_packed_bits,
    "TIFF, part of the depth": tiffs_in_part_of_their_depth,
    "TIFF, more channels": tiffs_with_more_channels,
    "TIFF, CMYK": tiffs_of_ink,
    "TIFF, L*a*b*": tiffs_of_lab,
    "TIFF, palettes": tiffs_with_palettes,
    "TIFF, written oddly": tiffs_written_oddly,
    "PNG": pngs,
    "JPEG": jpegs,
    "EXIF orientation": turned_by_exif,
    "other formats": other_formats,
}


def assert_alike(file: File, seen: np.ndarray, expected: np.ndarray, tolerance: int) -> None:
    assert seen.shape == expected.shape, file.name
    assert np.abs(seen - expected).max() <= tolerance, file.name


@pytest.mark.parametrize("kind", GRID)
def test_the_picture_is_what_was_put_into_the_file(kind: str) -> None:
    for file in GRID[kind]():
        assert_alike(file, read(file.data), file.expected, file.tolerance)


@pytest.fixture(scope="session")
def pyvips() -> Any:
    try:
        import pyvips
    except (ImportError, OSError) as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"libvips is not here ({error}): pip install 'pyvips[binary]'")
    return pyvips


def read_by_libvips(pyvips: Any, data: bytes) -> np.ndarray:
    image = pyvips.Image.new_from_buffer(data, "").autorot()
    if image.get_typeof("icc-profile-data"):
        image = image.icc_transform("srgb", embedded=True, intent="perceptual")
    image = image.colourspace("srgb")
    if image.hasalpha():
        image = image.flatten(background=255)
    return image.cast("uchar").numpy().astype(int)


@pytest.mark.parametrize("kind", GRID)
def test_libvips_reads_the_same(kind: str, pyvips: Any) -> None:
    for file in GRID[kind]():
        if file.libvips:
            assert_alike(file, read(file.data), read_by_libvips(pyvips, file.data), max(file.tolerance, 3))


# Colour profiles ------------------------------------------------------------------------------------------------------

PRIMARIES = {"R": (0.4360, 0.2225, 0.0139), "G": (0.3851, 0.7169, 0.0971), "B": (0.1431, 0.0606, 0.7139)}  # sRGB's
WIDE = {"R": (0.7977, 0.2880, 0.0), "G": (0.1352, 0.7119, 0.0), "B": (0.0313, 0.0001, 0.8249)}  # ProPhoto's
SRGB_CURVE = b"para" + bytes(4) + struct.pack(">HH5i", 3, 0, *(round(v * 65536) for v in (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)))  # fmt: skip # noqa: E501


def profile(name: str, curve: bytes | float, primaries: dict[str, tuple[float, float, float]] | None = None) -> bytes:
    """A profile of a curve, or the power that it is, and of the primaries of a screen; of greys without them."""

    def xyz(values: tuple[float, ...]) -> bytes:
        return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(value * 65536) for value in values))

    if not isinstance(curve, bytes):
        curve = b"curv" + bytes(4) + struct.pack(">IHH", 1, round(curve * 256), 0)
    text = name.encode() + b"\0"
    desc = b"desc" + bytes(4) + struct.pack(">I", len(text)) + text + bytes(78)
    tags = [(b"desc", desc + bytes(-len(desc) % 4)), (b"wtpt", xyz((0.9642, 1, 0.8249)))]
    for letter, values in (primaries or {}).items():
        tags += [(f"{letter.lower()}XYZ".encode(), xyz(values)), (f"{letter.lower()}TRC".encode(), curve)]
    if not primaries:
        tags.append((b"kTRC", curve))
    table, body = struct.pack(">I", len(tags)), b""
    for tag, content in tags:
        table += tag + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(content))
        body += content
    space = b"RGB " if primaries else b"GRAY"
    head = b"lcms\x02\x40\0\0mntr" + space + b"XYZ " + struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    head += struct.pack(">3i", *(round(value * 65536) for value in (0.9642, 1, 0.8249))) + bytes(48)
    return struct.pack(">I", 128 + len(table) + len(body)) + head + table + body


def linear(values: np.ndarray) -> np.ndarray:
    """What sRGB means in linear light."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


LINEAR, LINEAR_GREY = profile("GIMP built-in Linear sRGB", 1.0, PRIMARIES), profile("Linear sRGB", 1.0)
BRIGHT, BRIGHT_GREY = np.clip(COLOURS, 0.2, 1), np.clip(GREYS, 0.2, 1)  # 8 bits of linear light hold no more


@pytest.mark.parametrize("kind", ["u1", "u2", "f4"])
def test_linear_light_is_no_srgb_whatever_its_name(kind: str) -> None:
    for values, photometric, used in ((BRIGHT, RGB, LINEAR), (BRIGHT_GREY, GREY, LINEAR_GREY)):
        stored = linear(values)
        if kind == "f4":
            stored = np.where(OPACITY == 0, np.arange(W)[None, :, None] % 2, stored).astype(kind)  # all of 0 to 1
            expected = shown(values)[1:]
        else:
            stored, expected = integers(stored, kind), shown(values)[1:]
        for planar in (False, True):
            seen = read(tiff(stored, photometric, profile=used, planar=planar))[1:]
            assert np.abs(seen - expected).max() <= 4
    stored = integers(linear(1 - BRIGHT_GREY) * 0 + 1 - linear(BRIGHT_GREY), "u2")
    seen = read(tiff(stored, GREY_WHITE_IS_ZERO, profile=LINEAR_GREY))
    assert np.abs(seen - shown(BRIGHT_GREY)).max() <= 4


def test_every_mode_of_png_goes_through_its_profile() -> None:
    stored, greys = integers(linear(BRIGHT), "u1"), integers(linear(BRIGHT_GREY), "u1")
    opaque = integers(np.ones_like(OPACITY), "u1")
    numbers = np.rint(ACROSS * 15)[..., None].astype(int)
    palette = np.linspace(0.2, 1, 48).reshape(16, 3)
    flat, colours = integers(linear(palette), "u1").tobytes(), shown(palette[numbers[..., 0]])
    for name, data, expected in (
        ("RGB", png(stored, 8, 2, profile=LINEAR), shown(BRIGHT)),
        ("RGB of 16 bits", png(integers(linear(BRIGHT)), 16, 2, profile=LINEAR), shown(BRIGHT)),
        ("RGBA", png(np.dstack([stored, opaque]), 8, 6, profile=LINEAR), shown(BRIGHT)),
        ("palette", png(numbers, 8, 3, b"", flat, LINEAR), colours),
        ("grey", png(greys, 8, 0, profile=LINEAR_GREY), shown(BRIGHT_GREY)),
        ("grey of 16 bits", png(integers(linear(BRIGHT_GREY)), 16, 0, profile=LINEAR_GREY), shown(BRIGHT_GREY)),
        ("grey and alpha", png(np.dstack([greys, opaque]), 8, 4, profile=LINEAR_GREY), shown(BRIGHT_GREY)),
        ("grey, another's profile", png(integers(GREYS, "u1"), 8, 0, profile=LINEAR), shown(GREYS)),
        ("RGB, another's profile", png(integers(COLOURS, "u1"), 8, 2, profile=LINEAR_GREY), shown(COLOURS)),
        ("RGB, a damaged profile", png(integers(COLOURS, "u1"), 8, 2, profile=LINEAR[:200]), shown(COLOURS)),
    ):  # fmt: skip
        assert np.abs(read(data) - expected).max() <= 5, name


def test_a_profile_that_is_srgb_changes_nothing_whatever_its_name() -> None:
    for name, primaries in (("IEC 61966-2-1", PRIMARIES), ("my screen", PRIMARIES)):
        data = encode(PICTURE, "PNG", icc_profile=profile(name, SRGB_CURVE, primaries))
        assert (read(data) == shown(COLOURS)).all()
    assert (read(encode(GREY_PICTURE, "PNG", icc_profile=profile("grey", SRGB_CURVE))) == shown(GREYS)).all()


def test_libvips_makes_the_same_of_profiles(pyvips: Any) -> None:
    ink = pyvips.Operation.call("profile_load", "cmyk")
    p3 = pyvips.Operation.call("profile_load", "p3")
    ways: dict[str, dict[str, Any]] = {
        "PNG": {}, "WEBP": {"lossless": True}, "JPEG": {"quality": 98, "subsampling": "4:4:4"}, "TIFF": {}
    }  # fmt: skip
    screens = [
        p3,
        LINEAR,
        profile("2.2", 2.2, PRIMARIES),
        profile("wide", 1.8, WIDE),
        profile("s", SRGB_CURVE, PRIMARIES),
    ]
    files = [encode(PICTURE, kind, icc_profile=each, **ways[kind]) for kind in ways for each in screens]
    files += [encode(SEE_THROUGH, kind, icc_profile=each, **ways[kind]) for kind in ("PNG", "WEBP") for each in screens]
    files += [encode(PICTURE.quantize(200), "PNG", icc_profile=each) for each in screens]
    for grey in (LINEAR_GREY, profile("1.8", 1.8), p3):
        files += [encode(GREY_PICTURE, kind, icc_profile=grey, **ways[kind]) for kind in ("PNG", "JPEG", "TIFF")]
        files += [encode(GREY_PICTURE.convert("LA"), "PNG", icc_profile=grey)]
    inks = PICTURE.convert("CMYK")
    files += [encode(inks, "TIFF", icc_profile=ink), encode(inks, "JPEG", quality=98, icc_profile=ink)]
    stored = np.asarray(inks)
    files += [tiff(stored.astype(np.uint16) * 257, CMYK, profile=ink, planar=planar) for planar in (False, True)]
    adobe = pyvips.Image.new_from_array(stored).copy(interpretation="cmyk")
    files.append(adobe.jpegsave_buffer(Q=98, profile="cmyk"))
    for at, data in enumerate(files):
        difference = np.abs(read(data) - read_by_libvips(pyvips, data))
        assert difference.max() <= 8, at
        assert difference.mean() < 0.7, at


def test_libvips_reads_interlaced_and_lossy_files_alike(pyvips: Any) -> None:
    colours = pyvips.Image.new_from_array(integers(COLOURS)).copy(interpretation="rgb16")
    assert np.abs(read(colours.pngsave_buffer(interlace=True)) - shown(COLOURS)).max() <= 1
    narrow = pyvips.Image.new_from_array(integers(COLOURS, top=4095)).copy(interpretation="rgb16")
    assert np.abs(read(narrow.pngsave_buffer(interlace=True)) - shown(COLOURS)).max() <= 1
    for compression in ("none", "jpeg", "deflate", "packbits", "lzw"):
        for depth, tile in itertools.product(("u1", "u2"), (False, True)):
            if depth == "u2" and compression == "jpeg":
                continue
            space = {"u1": "srgb", "u2": "rgb16"}[depth]
            image = pyvips.Image.new_from_array(integers(COLOURS, depth)).copy(interpretation=space)
            data = image.tiffsave_buffer(compression=compression, tile=tile, tile_width=32, tile_height=32, Q=98)
            difference = np.abs(read(data) - read_by_libvips(pyvips, data))
            assert difference.max() <= 2, (compression, depth, tile)


# What is refused ------------------------------------------------------------------------------------------------------


SIX = np.dstack([COLOURS] * 2)
UNTOLD = "bits that doesn't say which of them are red, green and blue; save"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (tiff(integers(SIX[..., :5]), GREY, extra=[0] * 4), f"a TIFF of 5 channels of 16 {UNTOLD}"),
        (tiff(SIX.astype("f4"), GREY, extra=[0] * 5), "6 channels of 32 bits in floating point that doesn't say"),
        (tiff(integers(SIX[..., :2]), GREY, extra=[0]), f"a TIFF of 2 channels of 16 {UNTOLD}"),
        (tiff(integers(COLOURS), GREY, extra=[0, 0]), f"a TIFF of 3 channels of 16 {UNTOLD}"),
        (tiff(integers(COLOURS), RGB, more={339: (3, [6] * 3)}), "3 channels of 16 bits in complex numbers"),
        (tiff(integers(COLOURS), RGB, more={259: (3, [34712])}), "3 channels of 16 bits compressed by JPEG 2000"),
        (tiff(integers(COLOURS, "u1"), RGB, more={259: (3, [50001])}), "3 channels of 8 bits compressed by WebP"),
        (tiff(integers(COLOURS, "u1"), YCBCR), "3 channels of 8 bits in YCbCr that is not compressed"),
        (tiff(integers(GREYS), 32844), "a TIFF of 1 channel of 16 bits in LogL, which is not supported"),
        (tiff(integers(COLOURS), RGB, more={258: (3, [16, 8, 16])}), "8 and 16 bits, which are not of one type"),
        (tiff(integers(COLOURS), RGB)[:-100], "truncated"),
        (tiff(integers(COLOURS), RGB, compression=tiff_files.DEFLATE)[:-100], "truncated"),
        (tiff(integers(COLOURS), RGB, compression=tiff_files.LZW)[:-100], "truncated"),
        (tiff(integers(COLOURS, "u1"), RGB, big=True, order=">"), "BigTIFF in big-endian order"),
        (encode(PICTURE, "JPEG").replace(b"\xff\xc0\0\x11\x08", b"\xff\xc1\0\x11\x0c"), "3 channels of 12 bits"),
    ],
)
def test_what_is_not_read_is_named(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason) as raised:
        decode(data)
    assert raised.value.lasting


# JPEGs that end too early ---------------------------------------------------------------------------------------------

NOISE = Image.fromarray(np.random.default_rng(3).integers(0, 256, (43, 61, 3), np.uint8))
PHOTOS = [
    encode(image.convert(mode), "JPEG", quality=90, **options)
    for image, mode, options in itertools.product(
        (PICTURE, NOISE, Image.new("RGB", (W, H), (90, 100, 110))), ("RGB", "L", "CMYK"),
        ({}, {"progressive": True}, {"restart_marker_blocks": 3}, {"subsampling": "4:4:4", "optimize": True}),
    )
]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    photo=st.sampled_from(PHOTOS),
    missing=st.integers(0, 40) | st.integers(0, 1500),
    padding=st.sampled_from([b"", bytes(512), b"\xff" * 512]),
)
@example(photo=PHOTOS[26], missing=20, padding=b"")  # at the end of what one restart marker begins
@example(photo=PHOTOS[0], missing=30, padding=bytes(512))  # zeros, which a decoder takes for pixels
def test_a_jpeg_is_read_if_and_only_if_all_its_pixels_are_there(photo: bytes, missing: int, padding: bytes) -> None:
    cut = photo[: max(2, len(photo) - missing)] + padding
    try:
        seen = read(cut)
    except ImageError as error:
        # Where nothing is missing, only zeros that may be padding as well as pixels can be a reason.
        assert missing > 2 or photo[:-2].endswith(b"\0\0\0")
        assert any(word in str(error) for word in ("truncated", "not an image", "damaged", "JPEG"))
    else:
        assert (seen == read(photo)).all()


def test_a_jpeg_without_its_end_is_read_at_any_size_and_counts_as_whole() -> None:
    large = encode(PICTURE.resize((640, 480)), "JPEG", quality=95)
    for shortest in (None, 32, 224):
        whole, cut = decode(large, shortest), decode(large[:-2], shortest)
        assert (cut.width, cut.height) == (640, 480)
        assert (np.asarray(cut.picture) == np.asarray(whole.picture)).all()
        with pytest.raises(ImageError, match="truncated"):
            decode(large[:-12], shortest)


# Scaling --------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["u1", "u2", "u4", "i1", "i2", "i4", "f2", "f4", "f8"]),
    channels=st.sampled_from([1, 3]),
    seed=st.integers(0, 2**32 - 1),
    planar=st.booleans(),
    shortest=st.sampled_from([None, 4]),
)
def test_any_numbers_make_a_picture(kind: str, channels: int, seed: int, planar: bool, shortest: int | None) -> None:
    noise = np.random.default_rng(seed).bytes(np.dtype(kind).itemsize * channels * 20 * 24)
    values = np.frombuffer(noise, kind).reshape(24, 20, channels)
    picture = decode(tiff(values, {1: GREY, 3: RGB}[channels], planar=planar), shortest).picture
    assert picture.mode == "RGB"
    assert picture.size == ((20, 24) if shortest is None else (10, 12))


ODD_TIFFS = [
    tiff(values, photometric, planar=planar, tile=tile, compression=compression)
    for (values, photometric), planar, tile, compression in itertools.product(
        ((integers(COLOURS), RGB), (GREYS.astype("f4"), GREY_WHITE_IS_ZERO), (integers(COLOURS, "u1"), RGB)),
        (False, True), (None, 16), (tiff_files.NONE, tiff_files.LZW, tiff_files.DEFLATE),
    )
]  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_tiff_is_a_picture_or_a_reason(data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(ODD_TIFFS)))
    for _ in range(data.draw(st.integers(1, 4))):  # mostly in the directory
        at = data.draw(st.integers(0, 250) | st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    try:
        assert decode(bytes(content)).picture.mode == "RGB"
    except ImageError as error:
        assert "\n" not in str(error)


def test_what_trains_and_what_is_indexed_are_the_same_pixels(tmp_path: Path) -> None:

    (tmp_path / "a.tif").write_bytes(tiff(integers(COLOURS, top=4095), RGB, planar=True, orientation=6))
    source = Files(tmp_path, tmp_path, ["a.tif"])
    trained = np.asarray(decode(source.read(0)).picture)
    assert (trained == np.asarray(decoding.open_image(tmp_path / "a.tif"))).all()
    assert np.abs(trained.astype(int) - TURNS[6](shown(COLOURS))).max() <= 1
