"""XMP (ISO 16684-1): dates and words that programs write into pictures, or into a file beside them.

A file may come from anybody. So there are no entities here, no document type and nothing that is fetched, the size is
bounded, and so is the depth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from xml.parsers import expat

MOST_BYTES = 1 << 20
MOST_KEYWORDS = 256
LONGEST = 128  # characters of a keyword or a name
_DEEPEST = 64  # elements within each other

_EXIF, _TIFF = "http://ns.adobe.com/exif/1.0/", "http://ns.adobe.com/tiff/1.0/"
_XMP, _PHOTOSHOP = "http://ns.adobe.com/xap/1.0/", "http://ns.adobe.com/photoshop/1.0/"
_RDF, _SUBJECT = "http://www.w3.org/1999/02/22-rdf-syntax-ns#", "http://purl.org/dc/elements/1.1/ subject"
_ITEM = f"{_RDF} li"
_WANTED = {
    f"{_EXIF} DateTimeOriginal": "taken",
    f"{_PHOTOSHOP} DateCreated": "created",
    f"{_PHOTOSHOP} SidecarForExtension": "extension",
    f"{_XMP} Rating": "rating",
    f"{_TIFF} Make": "make",
    f"{_TIFF} Model": "model",
    f"{_TIFF} Orientation": "orientation",
}


class XmpError(Exception):
    """No XMP that is read here. The message says why, in a few words."""


@dataclass(frozen=True)
class Xmp:
    """What is read of it: `values` as texts, by the names in `_WANTED`; what is missing is not there."""

    values: Mapping[str, str] = field(default_factory=dict)
    keywords: tuple[str, ...] = ()


class _PacketReader:
    """Collects what is wanted of elements and attributes as they come by."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.keywords: dict[str, None] = {}
        self._open: list[str] = []
        self._text: list[str] = []
        self._length = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._open.append(name)
        if len(self._open) > _DEEPEST:
            raise XmpError("its elements lie too deep within each other")
        for key, value in attributes.items():
            self._note(key, value)
        self._text, self._length = [], 0

    def text(self, text: str) -> None:
        if self._length <= LONGEST:
            self._text.append(text)
            self._length += len(text)

    def end(self, name: str) -> None:
        text = "".join(self._text)
        if name == _ITEM and _SUBJECT in self._open and len(self.keywords) < MOST_KEYWORDS and (word := clean(text)):
            self.keywords[word] = None
        self._note(name, text)
        self._open.pop()
        self._text, self._length = [], 0

    def _note(self, name: str, text: str) -> None:
        if name in _WANTED and (value := clean(text)):
            self.values.setdefault(_WANTED[name], value)


def read(data: bytes) -> Xmp:
    """Reads a packet of XMP, or the file beside a picture.

    Raises:
        XmpError: too large, no XML, or with a document type, which could make much of little.
    """
    if len(data) > MOST_BYTES:
        raise XmpError(f"more than {MOST_BYTES >> 20} MiB")
    reader = _PacketReader()
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    parser.StartDoctypeDeclHandler = _refuse
    try:
        parser.Parse(data.rstrip(b"\0 \r\n\t"), True)
    except (expat.ExpatError, ValueError, LookupError) as error:  # the others come of an encoding that there isn't
        raise XmpError(f"no XML that can be read ({' '.join(str(error).split())[:80]})") from None
    return Xmp(reader.values, tuple(reader.keywords))


def clean(text: str) -> str:
    """A word or name of somebody else's, for a line of a terminal or a page: no control characters, not too long."""
    text = text[: 4 * LONGEST]
    if not text.isprintable():
        text = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(text.split())[:LONGEST]


def _refuse(*_: object) -> None:
    raise XmpError("it has a document type, which is not read")
