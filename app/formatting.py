"""Formatting of texts on the page."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Sized
from datetime import datetime
from typing import TYPE_CHECKING, Any

from massl.core.printable import shortened

if TYPE_CHECKING:
    from indexer import Collection
    from indexer.store.kind_ranges import KindRange
    from massl.core.images.metadata import Metadata


def readable(path: str) -> str:
    """A path as text: file names that are not UTF-8 come with bytes that no JSON can carry."""
    return path.encode("utf-8", "backslashreplace").decode()


def of_readable(text: str) -> str:
    """The path that `readable` gave as text; as it is if it holds no such bytes."""
    return re.sub(r"\\udc([89a-f][0-9a-f])", lambda byte: chr(0xDC00 + int(byte[1], 16)), text)


def count(images: Sized) -> str:
    """`1 picture`, `2 pictures`."""
    return plural(len(images), "picture", "pictures")


def plural(number: int, one: str, many: str) -> str:
    """`1 class`, `2 classes`."""
    return f"{number:,} {one if number == 1 else many}"


MASKS = "most look like label masks, whose numbers are names and no brightness: leave them out (--exclude)"


def deep_range(of: str, known: Mapping[str, KindRange]) -> list[str]:
    """What is black and white in files of more than 8 bits, a line for each kind of their numbers.

    Args:
        of: `collection`, `file`, or what a person said.
        known: by kind.
    """
    lines = []
    for kind, each in known.items():
        if of == "file":
            lines.append(f"{kind}: each file's own, of {plural(each.files, 'file', 'files')}")
            continue
        shown = f"{each.low:,.6g} to {each.high:,.6g}" if each.limits else of.replace(":", " to ")
        if each.limits:
            where = plural(each.measured_on, "file", "files") if each.measured_on else "the files of massl embed"
            shown += f", measured on {where}"
        if each.are_masks:
            shown += f"; {MASKS}"
        if each.later:
            later = (
                plural(each.later, "later file", "later files") if each.limits else plural(each.later, "file", "files")
            )
            shown += f"; of {later} {100 * each.clipped:.2g} % is clipped"
        lines.append(f"{kind}: {shown}")
    return lines


def size(number: int) -> str:
    """Bytes as `3.4 MB`."""
    value = float(number)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            break
        value /= 1000
    return f"{value:,.0f} {unit}" if unit == "bytes" or value >= 100 else f"{value:.1f} {unit}"


def at_size(name: str, side: int) -> str:
    """An encoder's name with an input size in pixels."""
    return f"{name} at {side} px"


def cost(side: int, used: int) -> str:
    """The work for a picture of this side in pixels, in proportion to its number of patches."""
    times = (side / used) ** 2
    return f"{times:.1f} times the work" if times >= 1 else f"{times:.2f} times the work"


def other_sizes(sides: Sequence[int], used: int) -> str:
    """The other input sizes of an encoder and their cost; empty if there are none."""
    return ", ".join(f"{side} px: {cost(side, used)}" for side in sorted(sides) if side != used)


def moment(when: datetime | str | None) -> str:
    """A time, local or in the catalog's format, as local text."""
    if isinstance(when, str) and when:
        when = datetime.fromisoformat(when).astimezone()
    return f"{when:%Y-%m-%d %H:%M}" if when else "not known"


def picked(channels: Sequence[str], plane: str) -> str:
    """What is read of stacks, in words; empty where that is their first page."""
    if not channels and not plane:
        return ""
    planes = {
        "": "the first plane",
        "max": "the maximum of all planes",
        "middle": "the plane in the middle",
        "each": "each plane by itself",
    }
    which = f"channels {', '.join(channels)}" if channels else "the first channel"
    return f"{which}, {planes.get(plane) or f'plane {plane}'}"


def unseen(share: float) -> str:
    """Which share of a picture the encoder isn't given, in words; empty where it is little."""
    from indexer.store.quality import UNSEEN

    return f"{100 * share:.0f} % of a picture on average, outside of its middle square" if share >= UNSEEN else ""


def of_several(counts: Mapping[Any, int], read: str = "") -> str:
    """How many files hold several pictures, in words; empty where none does.

    Args:
        counts: of files, by how many pictures each holds.
        read: what is read of stacks, see `picked`.
    """
    if not counts:
        return ""
    files = ", ".join(f"{count:,} with {planes}" for planes, count in list(counts.items())[:5])
    more = f" and {len(counts) - 5} other numbers" if len(counts) > 5 else ""
    return f"files with several pictures, of which {'what was chosen' if read else 'the first'} is read: {files}{more}"


def brought(known: Metadata | None, read: str = "") -> list[tuple[str, str]]:
    """What a picture brings with it, by name; without what it doesn't, but for the day it was taken.

    Args:
        known: what it is; None where nobody looked yet.
        read: what is read of stacks, see `picked`.
    """
    if known is None:
        return [("Taken", "not read yet")]
    stars = "rejected" if known.rating == -1 else f"{known.rating} of 5"
    shown = f"shown and compared: {readable(read)}" if read else "the first one is shown and compared"
    planes = f"{known.planes:,} in this file; {shown}" if known.planes else f"a plane of a stack; {shown}"
    told = [
        ("Taken", known.when() or "not known"),
        ("Camera", known.camera),
        ("Rating", "" if known.rating is None else stars),
        ("Keywords", ", ".join(known.keywords)),
        ("Pictures", planes if known.planes != 1 else ""),
        ("Sidecar", f"not read: {known.trouble}" if known.trouble else ""),
    ]
    return [(name, text) for name, text in told if text]


def sentence(text: str) -> str:
    """An error's text as a sentence of its own; what it quotes of somebody's words is shortened."""
    text = capitalised(readable(shortened(text)))
    return text + ("" if text.endswith((".", "!", "?")) else ".")


def capitalised(text: str) -> str:
    """The same with a capital first, unless the first word is a name: of a path, an option, a parameter, a command."""
    first = text.split(maxsplit=1)[0] if text.strip() else ""
    is_a_word = re.fullmatch(r"[a-z]+(['\u2019-][a-z]+)*[,;:.!?]*", first) and first != "massl"
    return text[:1].upper() + text[1:] if is_a_word else text


def no_pictures(collection: Collection) -> str:
    """The text of an empty screen: what is happening, or what to do."""
    if collection.updating:
        return "The first pictures are being indexed. They appear here in a few seconds."
    if skipped := collection.images.skipped():
        return (
            f"None of {len(skipped):,} files could be read as a picture; massl info says why. "
            "Add others: massl serve indexes them by itself."
        )
    return "There are no pictures in this folder yet. Add some: massl serve indexes them by itself."
