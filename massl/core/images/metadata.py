"""What a picture brings with it beside its pixels: when it was taken, by which camera, and the words people gave it.

From EXIF (CIPA DC-008), XMP (ISO 16684-1, also in a file beside the picture) and IPTC (IIM 4.2). Where a picture was
taken is not read. What is damaged or hostile counts as missing: nothing here costs a picture.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image, ImageFile, IptcImagePlugin

from massl.core.images import decode_cost, dicom, plane_files, planes, raw, xmp
from massl.core.images.content import Content, stream
from massl.core.images.decoding import opened
from massl.core.images.file_reading import read_bytes
from massl.core.images.image_errors import ImageError
from massl.core.images.xmp import LONGEST, MOST_KEYWORDS, Xmp, XmpError, clean
from massl.core.memory_budget import BUDGET

METADATA_READER = 1  # counts up whenever more is read than before, so that collections look again

_RATING, _XP_KEYWORDS = 0x4746, 0x9C9E
_XMP_TAG, _IPTC_TAG = 700, 33723
_IPTC_KEYWORDS, _IPTC_DATE, _IPTC_TIME = (2, 25), (2, 55), (2, 60)
_OF_CAMERA = (ExifTags.Base.Make, ExifTags.Base.Model, ExifTags.Base.Orientation, _RATING, _XP_KEYWORDS)
_OF_PHOTOGRAPH = (ExifTags.Base.DateTimeOriginal, ExifTags.Base.OffsetTimeOriginal)
_YEARS = (1826, 2199)  # of the first photograph, and before which a clock is believed
_RAW_TIFFS = {b"IIRO": b"II*\0", b"IIRS": b"II*\0", b"MMOR": b"MM\0*", b"IIU\0": b"II*\0"}  # by other first bytes
_TIFFS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_DATE = re.compile(r"(\d{4})[:-](\d{2})[:-](\d{2})(?:[ T](\d{2}):(\d{2})(?::(\d{2}))?)?")
_OFFSET = re.compile(r"([+-])(\d{2}):?(\d{2})|Z")


@dataclass(frozen=True)
class Metadata:
    """What is known of a picture.

    Attributes:
        taken: the camera's clock when it was taken, ISO 8601 without a time zone, or a day alone; None if not known.
        offset: minutes that this clock was ahead of UTC; None if not known.
        make, model: of the camera; empty if not known.
        orientation: EXIF's, 1 to 8; 1 is upright.
        rating: stars, 0 to 5, or -1 for rejected; None where nobody gave any.
        keywords: at most `MOST_KEYWORDS`, without doubles.
        planes: pictures in the file: pages, frames or planes. The first is the one that is looked at. 0 if it is
            itself a plane of a stack; see `massl.core.images.plane_files`.
        trouble: why the file beside the picture was not read; empty where it was, or there is none.
    """

    taken: str | None = None
    offset: int | None = None
    make: str = ""
    model: str = ""
    orientation: int = 1
    rating: int | None = None
    keywords: tuple[str, ...] = ()
    planes: int = 1
    trouble: str = ""

    @property
    def camera(self) -> str:
        """Make and model as one name, the make not twice."""
        if self.model.lower().startswith(self.make.lower()):
            return self.model
        return f"{self.make} {self.model}".strip()

    def when(self) -> str:
        """When it was taken, for a person; empty if that is not known."""
        if self.taken is None:
            return ""
        zone = ""
        if self.offset is not None:
            sign, minutes = "-" if self.offset < 0 else "+", abs(self.offset)
            zone = f" {sign}{minutes // 60:02d}:{minutes % 60:02d}"
        return self.taken.replace("T", " ") + zone


@dataclass
class _Found:
    """The parts of a file that tell something, as far as it has them: `tags` are EXIF's, of which some are read."""

    tags: dict[int, Any] = field(default_factory=dict)
    xmp: bytes = b""
    iptc: dict[tuple[int, int], Any] = field(default_factory=dict)
    orientation: int | None = None
    planes: int = 1


def read(data: Content, sidecar: bytes | None = None, name: str = "") -> Metadata:
    """Reads what a picture brings with it. Nothing of its pixels is decoded.

    Args:
        data: the file's content.
        sidecar: that of the XMP file beside it, which counts for more than the XMP in the picture.
        name: the picture's, of whose ending the sidecar must be, if it says one.
    """
    found = _Found()
    with suppress(Exception):  # damaged or hostile metadata: what was found until then counts
        _look_into(data, found)
    beside, trouble = Xmp(), ""
    if sidecar is not None:
        try:
            beside = xmp.read(sidecar)
            ending = beside.values.get("extension", "").lower()
            if ending and not name.lower().endswith(f".{ending}"):
                beside, trouble = Xmp(), f"it says that it belongs to a .{ending} file"
        except XmpError as error:
            trouble = str(error)
    own = Xmp()
    with suppress(XmpError):
        own = xmp.read(found.xmp) if found.xmp else Xmp()
    return _joined(found, beside, own, trouble)


def read_beside(data: Content, sidecar: Path | None, name: str) -> Metadata:
    """As `read`, with the path of the file beside the picture; one that can't be read says nothing."""
    said = None
    if sidecar is not None:
        try:
            if sidecar.stat().st_size > xmp.MOST_BYTES:
                return replace(read(data), trouble=f"more than {xmp.MOST_BYTES >> 20} MiB")
            said = read_bytes(sidecar)
        except (ImageError, OSError) as error:
            return replace(read(data), trouble=str(error) or type(error).__name__)
    return read(data, said, name)


def _look_into(data: Content, found: _Found) -> None:
    start = data[:4]
    if start[:3] == b"\xff\xd8\xff":
        if decode_cost.jpeg_says_something(data[:]):  # most of those on web pages don't, and opening them takes a while
            _look_into_picture(data, found)
    elif start in _RAW_TIFFS or start in _TIFFS:
        as_tiff = _RAW_TIFFS[start] + data[4:] if start in _RAW_TIFFS else data
        with BUDGET.take(decode_cost.opening(as_tiff)):
            if start in _TIFFS and not raw.is_raw(data):
                found.planes = 0 if plane_files.is_plane(data) else planes.of_tiff(data)
            _look_into_tiff(as_tiff, found)
    elif data.startswith(b"FUJIFILMCCD-RAW"):
        at, length = (int.from_bytes(data[place : place + 4], "big") for place in (84, 88))
        _look_into_picture(data[at : at + length], found)  # the preview, a JPEG with the camera's EXIF
    elif data[4:12] == b"ftypcrx ":
        _look_into_cr3(data[:], found)
    elif not raw.is_raw(data) and not dicom.is_dicom(data):
        _look_into_picture(data, found)


def _look_into_picture(data: Content, found: _Found) -> None:
    with opened(data) as image:
        found.planes = planes.of_picture(image)
        packet = image.info.get("xmp", b"")
        found.xmp = packet.encode() if isinstance(packet, str) else bytes(packet or b"")
        found.orientation = image.info.get("original_orientation")  # of HEIF, whose reader turns the picture itself
        found.tags = _tags(image.getexif())
        if isinstance(image, ImageFile.ImageFile) and image.format in ("JPEG", "MPO"):
            found.iptc = IptcImagePlugin.getiptcinfo(image) or {}


def _look_into_tiff(data: Content, found: _Found) -> None:
    exif = Image.Exif()
    exif.load_from_fp(stream(data))  # not by opening it: Pillow has no mode for many a TIFF
    found.tags = _tags(exif)
    for tag in (_XMP_TAG, _IPTC_TAG):
        packet = exif.get(tag, b"")
        content = packet if isinstance(packet, bytes) else bytes(packet)
        if tag == _XMP_TAG:
            found.xmp = content
        else:
            found.iptc = _iptc(content)


def _look_into_cr3(data: bytes, found: _Found) -> None:
    """Canon's: two small TIFFs, of the camera and of the photograph, in boxes of their own."""
    for name in (b"CMT1", b"CMT2"):
        at = data.find(name, 0, 1 << 20)
        if at >= 4:
            size = int.from_bytes(data[at - 4 : at], "big")
            tiff = data[at + 4 : at - 4 + size]
            part = Image.Exif()
            with BUDGET.take(decode_cost.of_exif(tiff)):
                part.load(tiff)
                found.tags |= _tags(part)


def _tags(exif: Image.Exif) -> dict[int, Any]:
    """Those that are read. One that is damaged costs itself alone."""
    found: dict[int, Any] = {}
    for tag in _OF_CAMERA:
        with suppress(Exception):
            found[tag] = exif[tag]
    with suppress(Exception):
        inner = exif.get_ifd(ExifTags.IFD.Exif) or exif
        found |= {tag: inner[tag] for tag in _OF_PHOTOGRAPH if tag in inner}
    return {tag: value for tag, value in found.items() if value is not None}


def _iptc(data: bytes) -> dict[tuple[int, int], Any]:
    """The records of IIM that stand in a TIFF's tag."""
    found: dict[tuple[int, int], Any] = {}
    at = 0
    while data[at : at + 1] == b"\x1c" and at + 5 <= len(data) and len(found) < 4 * MOST_KEYWORDS:
        length = int.from_bytes(data[at + 3 : at + 5], "big")
        found.setdefault((data[at + 1], data[at + 2]), []).append(data[at + 5 : at + 5 + length])
        at += 5 + length
    return found


def _joined(found: _Found, beside: Xmp, own: Xmp, trouble: str) -> Metadata:
    tags = found.tags
    taken, offset = _date(tags.get(ExifTags.Base.DateTimeOriginal))
    if taken:
        offset = _offset(_text(tags.get(ExifTags.Base.OffsetTimeOriginal)))
    for values in (beside.values, own.values):
        for name in ("taken", "created"):
            if taken is None:
                taken, offset = _date(values.get(name))
    if taken is None and found.iptc:
        taken, offset = _date(_iptc_date(found.iptc))
    both = {**own.values, **beside.values}
    rating = _whole(both.get("rating"), -1, 5)
    words = beside.keywords or _unique((*own.keywords, *_exif_keywords(tags), *_iptc_keywords(found.iptc)))
    oriented = (found.orientation, tags.get(ExifTags.Base.Orientation), both.get("orientation"))
    orientation = next((known for each in oriented if (known := _whole(each, 1, 8)) is not None), 1)
    return Metadata(
        taken,
        offset,
        _text(tags.get(ExifTags.Base.Make)) or both.get("make", ""),
        _text(tags.get(ExifTags.Base.Model)) or both.get("model", ""),
        orientation,
        rating if rating is not None else _whole(tags.get(_RATING), 0, 5),
        words,
        found.planes,
        trouble,
    )


def _date(value: object) -> tuple[str | None, int | None]:
    """A date of EXIF or XMP, as `Metadata.taken` has it, and its offset; None for one that there is not.

    A camera without a clock writes noughts.
    """
    said = _DATE.match(_text(value))
    if said is None:
        return None, None
    parts = [int(part) for part in said.groups() if part is not None]
    try:
        year, month, day, hour, minute, second = [*parts, 0, 0, 0][:6]
        moment = datetime(year, month, day, hour, minute, second)
    except ValueError:
        return None, None
    if not _YEARS[0] <= moment.year <= _YEARS[1]:
        return None, None
    if len(parts) == 3:
        return moment.date().isoformat(), None
    rest = _text(value)[said.end() :]
    return moment.isoformat(timespec="seconds"), _offset(re.sub(r"^\.\d+", "", rest))


def _offset(text: str) -> int | None:
    said = _OFFSET.fullmatch(text.strip())
    if said is None:
        return None
    if said[1] is None:
        return 0
    minutes = 60 * int(said[2]) + int(said[3])
    return None if int(said[3]) > 59 or minutes > 14 * 60 else minutes if said[1] == "+" else -minutes


def _whole(value: object, least: int, most: int) -> int | None:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError, ZeroDivisionError):  # the last of EXIF's fractions
        return None
    return int(number) if number.is_integer() and least <= number <= most else None


def _text(value: object) -> str:
    """A text of EXIF's; empty for anything else."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return clean(value.partition("\0")[0]) if isinstance(value, str) else ""


def _exif_keywords(tags: dict[int, Any]) -> Iterable[str]:
    """Those that Windows writes, with semicolons between them."""
    value = tags.get(_XP_KEYWORDS)
    if isinstance(value, tuple) and all(isinstance(byte, int) and 0 <= byte < 256 for byte in value):
        value = bytes(value)
    if not isinstance(value, bytes):
        return []
    return value[: 4 * LONGEST * MOST_KEYWORDS].decode("utf-16-le", "replace").rstrip("\0").split(";")


def _iptc_keywords(records: dict[tuple[int, int], Any]) -> Iterable[str]:
    value = records.get(_IPTC_KEYWORDS, [])
    for each in (value if isinstance(value, list) else [value])[: 2 * MOST_KEYWORDS]:
        if isinstance(each, bytes):
            try:
                yield each.decode()
            except UnicodeDecodeError:  # before a file said what it is written in
                yield each.decode("latin-1")


def _iptc_date(records: dict[tuple[int, int], Any]) -> str:
    day, clock = (_first_text(records.get(name)) for name in (_IPTC_DATE, _IPTC_TIME))
    if not re.fullmatch(r"\d{8}", day):
        return ""
    said = f"{day[:4]}-{day[4:6]}-{day[6:]}"
    return f"{said}T{clock[:2]}:{clock[2:4]}:{clock[4:6]}{clock[6:]}" if re.match(r"\d{6}", clock) else said


def _first_text(value: object) -> str:
    return _text(value[0] if isinstance(value, list) and value else value)


def _unique(words: Iterable[str]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for word in words:
        if len(found) >= MOST_KEYWORDS:
            break
        if word := clean(word):
            found[word] = None
    return tuple(found)
