"""OME-XML: what a microscope's file says of its planes, checked before anything is built in proportion to its numbers.

tifffile makes a list of as many pages as the XML claims, whatever the file holds. It is asked once the claims fit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from xml.parsers import expat

from massl.core.images.tiff import Unsupported

_AXES = "XYZCT"
_MOST_OF_A_LIST = 10_000_000  # entries that tifffile makes for the planes, where a small page counts as several
_OF_AN_ELEMENT, _OF_ATTRIBUTES, _OF_AN_ATTRIBUTE = 120, 350, 60  # bytes of the objects that a parser makes


@dataclass
class _Claims:
    """What is claimed: of each picture with data the sizes by axis, of all the channels' names and the planes named."""

    pictures: list[dict[str, int]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    planes: list[int] = field(default_factory=list)  # of each part; 0 for all that there are
    steps: float = 0.0  # the most along an axis that is split in two
    _sizes: dict[str, int] | None = None

    def start(self, element: str, told: dict[str, str]) -> None:
        if element.endswith("Pixels"):
            order = told.get("DimensionOrder", "")
            if sorted(order) != sorted(_AXES) or order[:2] != "XY":
                raise Unsupported("damaged: OME-XML without an order of dimensions that there is")
            self._sizes = {axis: int(told.get(f"Size{axis}", 0)) for axis in _AXES}
        elif element.endswith("TiffData"):
            if self._sizes is not None:
                self.pictures.append(self._sizes)
                self._sizes = None
            count = told.get("PlaneCount", told.get("NumPlanes", "1" if "IFD" in told else "0"))
            self.planes.append(int(count))
        elif element.endswith("Channel"):
            self.names.append(told.get("Name", ""))
        elif element[:-1].endswith("Along") and "Start" in told:
            step = float(told.get("Step", 1))
            steps = (float(told.get("End", 0)) - float(told["Start"])) / step if step else math.inf
            self.steps = max(self.steps, steps if math.isfinite(steps) else math.inf)


def memory(text: str) -> int:
    """Bytes that it takes to parse it, at most."""
    elements, attributes = text.count("<"), text.count("=")
    return (
        2 * len(text)
        + elements * _OF_AN_ELEMENT
        + min(elements, attributes) * _OF_ATTRIBUTES
        + attributes * _OF_AN_ATTRIBUTE
    )


def checked(text: str, pages: int, samples: int, smallest: int) -> tuple[str, ...]:
    """The names of the channels, once what is claimed fits the file; none of what is no XML.

    Args:
        text: the XML.
        pages: that the file has.
        samples: channels that lie side by side on a page.
        smallest: pixels of the smallest page.

    Raises:
        Unsupported: it claims more than there is, or could make much of little.
    """
    if "<!DOCTYPE" in text:  # which could define entities without end
        raise Unsupported("OME-XML with a document type, which is not read")
    claims = _Claims()
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler = claims.start
    try:
        parser.Parse(text, True)
    except expat.ExpatError:
        return ()
    if len(claims.pictures) > 1:
        sizes = ", ".join(sorted({f"{each['Y']} x {each['X']}" for each in claims.pictures})[:10])
        raise Unsupported(
            f"a file of {len(claims.pictures):,} pictures that are no stack ({sizes}); save each as a file"
        )
    for sizes_of in claims.pictures:
        if min(sizes_of.values()) < 1:
            raise Unsupported("damaged: OME-XML of a stack without planes or pixels")
        planes = sizes_of["Z"] * sizes_of["C"] * sizes_of["T"]
        if planes // samples > pages:
            raise Unsupported(f"a stack of {planes // samples:,} pages of which {pages:,} are there")
        if planes * sizes_of["X"] * sizes_of["Y"] > _MOST_OF_A_LIST * smallest:
            raise Unsupported(f"damaged: OME-XML of pictures of {sizes_of['X']:,} x {sizes_of['Y']:,} pixels")
    named = sum(abs(count) or pages for count in claims.planes)
    if named > 4 * pages + 1_000 or claims.steps > pages:
        raise Unsupported(f"damaged: OME-XML that names {max(named, claims.steps):,.0f} of {pages:,} pages")
    return tuple(claims.names)
