"""Keywords into XMP (ISO 16684-1) and out of it, so that nothing else in it changes: not a byte outside of the place.

Keywords are `dc:subject`, which digiKam, darktable and Lightroom read. As the reader beside it, this takes no document
type, nothing large and nothing deep.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from xml.parsers import expat
from xml.sax.saxutils import escape

from massl.core.images import xmp
from massl.core.images.xmp import XmpError

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_DC = "http://purl.org/dc/elements/1.1/"
_PHOTOSHOP = "http://ns.adobe.com/photoshop/1.0/"
_LISTS = ("Bag", "Seq", "Alt")
_UTF8 = ("utf-8", "utf8", "us-ascii", "ascii")

_NEW = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="{rdf}">
  <rdf:Description rdf:about=""{extension}/>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>
"""


@dataclass
class _Place:
    """An element of the packet: where its first tag begins, where its last tag begins, how it is called there, and what
    text it holds, where that is a keyword.
    """

    start: int
    name: str
    end: int = -1
    text: str = ""


@dataclass
class _Finder:
    """Finds keywords, and where others may go: in a list that is there, in a subject, a description, or the root."""

    parser: expat.XMLParserType
    items: list[_Place] = field(default_factory=list)
    lists: list[_Place] = field(default_factory=list)
    subjects: list[_Place] = field(default_factory=list)
    descriptions: list[_Place] = field(default_factory=list)
    roots: list[_Place] = field(default_factory=list)
    _open: list[tuple[str, str, _Place | None]] = field(default_factory=list)

    def start(self, name: str, attributes: dict[str, str]) -> None:
        uri, local, prefix = _parts(name)
        above = [(of, called) for of, called, _ in self._open]
        place = _Place(self.parser.CurrentByteIndex, f"{prefix}:{local}" if prefix else local)
        found: list[_Place] | None = None
        in_description = above[-2:] == [(_RDF, "RDF"), (_RDF, "Description")]
        if (uri, local) == (_RDF, "RDF") and (_RDF, "RDF") not in above:
            found = self.roots
        elif (uri, local) == (_RDF, "Description") and above[-1:] == [(_RDF, "RDF")]:
            found = self.descriptions
            if any(_parts(key)[:2] == (_DC, "subject") for key in attributes):
                raise XmpError("it has its keywords in an attribute, where no more can be added")
        elif (uri, local) == (_DC, "subject") and in_description:
            found = self.subjects
        elif uri == _RDF and local in _LISTS and above[-3:-1] == [(_RDF, "RDF"), (_RDF, "Description")]:
            found = self.lists if above[-1] == (_DC, "subject") else None
        elif (uri, local) == (_RDF, "li") and above[-2:-1] == [(_DC, "subject")] and above[-1][1] in _LISTS:
            found = self.items
        if found is not None:
            found.append(place)
        self._open.append((uri, local, place if found is not None else None))

    def text(self, text: str) -> None:
        if self._open and (place := self._open[-1][2]) is not None:
            place.text += text

    def end(self, name: str) -> None:
        *_, place = self._open.pop()
        if place is not None:
            place.end = self.parser.CurrentByteIndex


def with_keywords(data: bytes | None, words: Sequence[str], extension: str = "") -> bytes:
    """A packet of XMP, or the file beside a picture, with these keywords beside those that it has.

    Args:
        data: the packet; None for a new one.
        words: as they come; what readers make of them, `massl.core.images.xmp.clean`, is written.
        extension: of the picture's name without the dot, to be written into a new packet that would fit several
            pictures (`photoshop:SidecarForExtension`).

    Returns:
        the packet; `data` itself where it has all of them.

    Raises:
        XmpError: it can't be read, can't be added to, or would be too large to be read again.
    """
    if data is None:
        attribute = f'\n    xmlns:photoshop="{_PHOTOSHOP}" photoshop:SidecarForExtension="{extension}"'
        data = _NEW.format(rdf=_RDF, extension=attribute if extension else "").encode()
    had = xmp.read(data)
    missing = [word for word in dict.fromkeys(map(xmp.clean, words)) if word not in had.keywords]
    if not missing:
        return data
    done = _spliced(data, missing)
    read = xmp.read(done)
    if not {*had.keywords, *missing} <= set(read.keywords) or dict(read.values) != dict(had.values):
        raise XmpError(f"it can't take {len(missing)} more keywords; readers take {xmp.MOST_KEYWORDS}")
    return done


def without_keywords(data: bytes, words: Collection[str]) -> bytes:
    """A packet of XMP without these keywords.

    Args:
        data: the packet.
        words: as `massl.core.images.xmp.read` gives them.

    Returns:
        the packet; `data` itself where it has none of them.

    Raises:
        XmpError: it can't be read, or they stand where they can't be taken out alone.
    """
    had = xmp.read(data)
    if not (unwanted := set(words) & set(had.keywords)):
        return data
    done = data
    for place in reversed(_found(data).items):
        if xmp.clean(place.text) in unwanted:
            done = done[: place.start] + done[_element_end(data, place) :]
    read = xmp.read(done)
    if set(read.keywords) != set(had.keywords) - unwanted or dict(read.values) != dict(had.values):
        raise XmpError("it has keywords where they can't be taken out")
    return done


def _found(data: bytes) -> _Finder:
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.namespace_prefixes = True
    finder = _Finder(parser)
    parser.StartElementHandler = finder.start
    parser.EndElementHandler = finder.end
    parser.CharacterDataHandler = finder.text
    parser.XmlDeclHandler = _check_encoding
    body = data.rstrip(b"\0 \r\n\t")
    if body[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in body[:8]:
        raise XmpError("it is not written in UTF-8")
    parser.Parse(body, True)
    return finder


def _spliced(data: bytes, words: Sequence[str]) -> bytes:
    finder = _found(data)
    if finder.lists:
        place = finder.lists[0]
        prefix = place.name.rpartition(":")[0]
        item = f"{prefix}:li" if prefix else "li"
        return _inside(data, place, "".join(f"<{item}>{escape(word)}</{item}>" for word in words))
    items = "".join(f"<rdf:li>{escape(word)}</rdf:li>" for word in words)
    content = f'<rdf:Bag xmlns:rdf="{_RDF}">{items}</rdf:Bag>'
    if finder.subjects:
        place = finder.subjects[0]
        if xmp.read(data).keywords or data[place.start : place.end].rstrip()[-1:] not in (b"", b">"):
            raise XmpError("its keywords are in no list, where no more can be added")
        return _inside(data, place, content)
    content = f'<dc:subject xmlns:dc="{_DC}">{content}</dc:subject>'
    if finder.descriptions:
        return _inside(data, finder.descriptions[0], content)
    if finder.roots:
        whole = f'<rdf:Description xmlns:rdf="{_RDF}" rdf:about="">{content}</rdf:Description>'
        return _inside(data, finder.roots[0], whole)
    raise XmpError("it is no XMP: it has no rdf:RDF")


def _inside(data: bytes, place: _Place, text: str) -> bytes:
    """The packet with a text at the end of an element; one that is a single tag gets a last one."""
    close = _tag_end(data, place.start)
    if data[close - 1 : close] == b"/":
        first = data[: close - 1].rstrip() + b">"
        return first + text.encode() + f"</{place.name}>".encode() + data[close + 1 :]
    return data[: place.end] + text.encode() + data[place.end :]


def _element_end(data: bytes, place: _Place) -> int:
    """Where an element ends; a single tag is its own end."""
    close = _tag_end(data, place.start)
    return (close if data[close - 1 : close] == b"/" else _tag_end(data, place.end)) + 1


def _tag_end(data: bytes, start: int) -> int:
    """Where the tag ends that starts there: at the first `>` outside of quotes."""
    quote = b""
    for place in range(start, len(data)):
        sign = data[place : place + 1]
        if quote:
            quote = b"" if sign == quote else quote
        elif sign in (b'"', b"'"):
            quote = sign
        elif sign == b">":
            return place
    raise XmpError("a tag in it has no end")


def _parts(name: str) -> tuple[str, str, str]:
    """Namespace, name and prefix of what expat calls `namespace name prefix`, or parts of it."""
    parts = name.split(" ")
    return (parts[0], parts[1], parts[2] if len(parts) > 2 else "") if len(parts) > 1 else ("", name, "")


def _check_encoding(version: str, encoding: str | None, standalone: int) -> None:
    if encoding is not None and encoding.lower() not in _UTF8:
        raise XmpError("it is not written in UTF-8")
