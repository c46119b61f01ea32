"""JPEGs that end too early: whether all pixels are there and only the mark of the end is missing."""

from __future__ import annotations

import io
from collections.abc import Iterator

from PIL import Image, ImageChops

_END = b"\xff\xd9"
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_SCAN = 0xDA
_ALONE = {0x01, *range(0xD0, 0xD8)}  # markers without a length
_PADDING = 3  # as many equal bytes are what a file was filled up with

# What the decoder is given in place of what may be missing. If any bit of it reaches a pixel, the pictures differ.
_GUESSES = (bytes(64), b"\xa5\x5a\xc3\x3c" * 16, b"\x6d\xb6\xdb\x49" * 16)


def mended(data: bytes) -> bytes | None:
    """A JPEG without the mark of its end, with that added, or None where pixels are missing, too.

    All pixels are there if every scan is: each coefficient of each colour to its last bit, as the headers of the scans
    say, and the last scan to its last block. Whether that is so, the decoder tells: whatever follows the data, it
    makes the same picture of it.
    """
    data = without_padding(data)
    if data.endswith(b"\xff"):  # half of the mark
        data = data[:-1]
    if not data.startswith(b"\xff\xd8") or not _has_all_scans(data):
        return None
    restart = _next_restart(data)
    first: Image.Image | None = None
    for guess in _GUESSES:
        with Image.open(io.BytesIO(data + guess + restart + guess + _END), formats=("JPEG",)) as image:
            image.load()
            if first is None:
                first = image.copy()
            elif ImageChops.difference(first, image).getbbox(alpha_only=False):
                return None
    return data + _END


def without_padding(data: bytes) -> bytes:
    """A JPEG without what it was filled up with: zeros, or what erased memory reads as. Other files as they are.

    A decoder takes zeros for pixels. So a file that was recovered in part would be read as if it were whole.
    """
    if not data.startswith(b"\xff\xd8"):
        return data
    for byte in (b"\0", b"\xff"):
        short = data.rstrip(byte)
        if len(data) - len(short) >= _PADDING:
            return short + byte if byte == b"\0" and short.endswith(b"\xff") else short
    return data


def unsupported(data: bytes) -> str | None:
    """Why a JPEG can't be read, if it is of a kind that Pillow doesn't know; None for anything else."""
    for marker, body in _segments(data):
        if marker in _FRAMES and len(body) > 5 and (body[0] != 8 or body[5] not in (1, 3, 4)):
            return f"a JPEG of {body[5]} channels of {body[0]} bits, which is not supported"
    return None


def coding(data: bytes) -> int | None:
    """The marker of a JPEG's frame, which says how its pixels are coded; None where there is none."""
    return next((marker for marker, _ in _segments(data) if marker in _FRAMES), None)


def _has_all_scans(data: bytes) -> bool:
    """Whether the scans that have begun give every coefficient of every colour to its last bit."""
    missing: dict[int, list[int]] = {}  # of a colour: for each coefficient how many bits are still to come
    for marker, body in _segments(data):
        if marker in _FRAMES and not missing:
            missing = {body[6 + 3 * each]: [99] * 64 for each in range(body[5])}
        elif marker == _SCAN:
            colours, (start, end, bits) = body[1 : 1 + 2 * body[0] : 2], body[-3:]
            for colour in colours:
                for coefficient in range(start, min(end, 63) + 1):
                    missing[colour][coefficient] = bits & 15
    return bool(missing) and not any(any(bits) for bits in missing.values())


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The marker and the content of each segment that is there as a whole, without what is coded between them."""
    at = 2 if data.startswith(b"\xff\xd8") else len(data)
    while 0 <= (at := data.find(b"\xff", at)) <= len(data) - 4:
        marker = data[at + 1]
        if marker in (0x00, 0xFF) or marker in _ALONE:
            at += 1 if marker == 0xFF else 2
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if end > len(data):
            return
        yield marker, data[at + 4 : end]
        at = end


def _next_restart(data: bytes) -> bytes:
    """The marker that the decoder may be waiting for; it leaves out what comes before. Empty where there are none."""
    scan = data[data.rfind(b"\xff\xda") :]
    if b"\xff\xdd" not in data:
        return b""
    restarts = sum(scan.count(bytes([0xFF, marker])) for marker in range(0xD0, 0xD8))
    return bytes([0xFF, 0xD0 + restarts % 8])
