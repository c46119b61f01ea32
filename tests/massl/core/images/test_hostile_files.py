"""Small files whose numbers promise much: read within little memory, or refused before anything is built of them.

Each took memory without bounds, or time in more than proportion to its size, in pydicom or tifffile.
"""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from massl.core.images import dicom_elements, planes
from massl.core.images.decoding import decode
from massl.core.images.image_errors import ImageError
from massl.core.images.rendering import Rendering

linux = pytest.mark.skipif(sys.platform != "linux", reason="measured as Linux tells it")

# Decodes files one after the other and reads what they say of themselves. Prints for each the bytes taken at most, and
# what became of it. The limits are for code that goes wrong: this must end, and not the machine.
READ = """if True:
    import resource, sys
    from pathlib import Path
    import pydicom, pydicom.pixels, tifffile
    from massl.core.images import metadata
    from massl.core.images.decoding import decode
    from massl.core.images.image_errors import ImageError
    from massl.core.images.rendering import Rendering

    def status(name):
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) << 10 for line in file if line.startswith(name))

    resource.setrlimit(resource.RLIMIT_AS, (status("VmSize") + (1 << 30),) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
    rendering = Rendering(plane=sys.argv[1])
    decode(Path(sys.argv[2]).read_bytes(), rendering=rendering)  # what is loaded with the first
    for path in sys.argv[3:]:
        data = Path(path).read_bytes()
        before = status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        try:
            became = "decoded: %d" % max(decode(data, rendering=rendering).picture.getextrema()[0])
        except ImageError as error:
            became = str(error)
        metadata.read(data)
        print(status("VmHWM") - before, became)
"""


def read_apart(folder: Path, ordinary: bytes, hostile: list[bytes], plane: str = "max") -> list[tuple[int, str]]:
    """Bytes taken and what became of each file, in a process of its own; an ordinary one comes first."""
    paths = [folder / f"{number}" for number in range(len(hostile) + 1)]
    for path, content in zip(paths, [ordinary, *hostile], strict=True):
        path.write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-c", READ, plane, *map(str, paths)],
        capture_output=True,
        text=True,
        timeout=240,
        env={"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"},
    )
    assert done.returncode == 0, done.stderr
    return [(int(taken), became) for taken, became in (line.split(" ", 1) for line in done.stdout.splitlines())]


# DICOM ----------------------------------------------------------------------------------------------------------------

UNDEFINED = 0xFFFF_FFFF


def element(group: int, number: int, kind: bytes, value: bytes = b"", length: int | None = None) -> bytes:
    size = len(value) if length is None else length
    said = struct.pack("<HL", 0, size) if kind in (b"OB", b"SQ") else struct.pack("<H", size)
    return struct.pack("<HH2s", group, number, kind) + said + value


def item(length: int) -> bytes:
    return struct.pack("<HHL", 0xFFFE, 0xE000, length)


END = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
MANY_EMPTY = b"".join(struct.pack("<HH2sH", 9 + 2 * (at >> 15), at & 0x7FFF, b"LO", 0) for at in range(200_000))


def sequence(items: bytes, group: int = 8, number: int = 0x1140) -> bytes:
    """A sequence whose length isn't said."""
    return element(group, number, b"SQ", length=UNDEFINED) + items + END


def dicom(*before: bytes, frames: int = 1, meta: bytes = b"", pixels: bytes | None = None) -> bytes:
    """A file of 4 x 4 pixels; run-length encoded where `pixels` are given."""
    syntax = b"1.2.840.10008.1.2.5\0" if pixels else b"1.2.840.10008.1.2.1\0"
    whole = {2: 1, 0x10: 4, 0x11: 4, 0x100: 8, 0x101: 8, 0x102: 7, 0x103: 0}
    told = b"".join(element(0x28, number, b"US", struct.pack("<H", value)) for number, value in whole.items())
    told += element(0x28, 4, b"CS", b"MONOCHROME2 ") + element(0x28, 8, b"IS", f"{frames:<8}".encode())
    stored = pixels or element(0x7FE0, 0x10, b"OB", bytes(range(15)) + b"\xff")
    return bytes(128) + b"DICM" + element(2, 0x10, b"UI", syntax) + meta + b"".join(before) + told + stored


RUN = struct.pack("<16L", 1, 64, *[0] * 14) + b"\xf9\0\xf9\xff"  # a frame of 4 x 4 pixels, 0 and 255


def fragments(*each: bytes, offsets: bytes = b"") -> bytes:
    return (
        element(0x7FE0, 0x10, b"OB", length=UNDEFINED) + b"".join(item(len(it)) + it for it in (offsets, *each)) + END
    )


@linux
def test_a_dicom_file_of_many_elements_takes_no_more_than_its_size(tmp_path: Path) -> None:
    cases = {
        "items": dicom(sequence(item(0) * 100_000)),
        "elements": dicom(MANY_EMPTY),
        "elements of an item": dicom(sequence(item(len(MANY_EMPTY)) + MANY_EMPTY)),
        "elements before the encoding": dicom(meta=b"".join(element(2, 0x200 + at, b"LO") for at in range(20_000)) * 8),
        "a private sequence": dicom(sequence(item(0) * 100_000, 9, 0x1001)),
        "within each other": dicom((element(8, 0x1140, b"SQ", length=UNDEFINED) + item(UNDEFINED)) * 100_000),
        "noughts behind the pixels": dicom() + bytes(40_000_000),
        "a window of many numbers": dicom(element(0x28, 0x1050, b"DS", b"1\\" * 30_000)),
        "a table of many items": dicom(sequence(item(0) * 100_000, 0x28, 0x3000)),
    }
    expected = dict.fromkeys(cases, "decoded: 255") | {
        "within each other": "truncated",
        "a window of many numbers": "DICOM whose element (0028,1050) takes more than 16,384 bytes",
        "a table of many items": "DICOM whose element (0028,3000) takes more than 262,144 bytes",
    }
    found = read_apart(tmp_path, dicom(), list(cases.values()))
    for (name, data), (taken, became) in zip(cases.items(), found, strict=True):
        assert became.startswith(expected[name]), (name, became)
        assert taken < 4 * len(data) + (24 << 20), f"{name}: {taken:,} bytes of a file of {len(data):,}"


def test_a_dicom_file_of_more_elements_than_anybody_needs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom_elements, "MOST", 1_000)
    assert decode(dicom(sequence(item(0) * 900))).width == 4
    for data in (dicom(sequence(item(0) * 1_000)), dicom(MANY_EMPTY[:8_000]), dicom(meta=element(2, 9, b"LO") * 1_000)):
        with pytest.raises(ImageError, match="DICOM of more than 1,000 elements"):
            decode(data)


@pytest.mark.parametrize("frames", [3, 40])
def test_all_frames_are_found_in_one_pass(frames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[Any] = []
    real = pydicom.encaps.parse_basic_offsets
    monkeypatch.setattr(
        pydicom.encaps, "parse_basic_offsets", lambda *given, **named: passes.append(given) or real(*given, **named)
    )
    data = dicom(frames=frames, pixels=fragments(*[RUN] * frames))
    assert np.asarray(decode(data, rendering=Rendering(plane="max")).picture).max() == 255
    assert len(passes) == 1


def test_more_frames_than_are_looked_through_are_refused() -> None:
    data = dicom(frames=planes.MOST + 1)
    with pytest.raises(ImageError, match="DICOM of more than 100,000 frames"):
        decode(data, rendering=Rendering(plane="max"))


# TIFF -----------------------------------------------------------------------------------------------------------------

Entry = tuple[int, int, int, int]  # tag, type, count, value
SHORT, LONG = 3, 4


def tiff(pages: list[list[Entry]], body: bytes = b"") -> bytes:
    """A TIFF whose pages' entries name what they like of the `body`, which begins at byte 8."""
    data = b"II*\0" + struct.pack("<L", 8 + len(body)) + body
    for number, entries in enumerate(pages):
        after = len(data) + 2 + 12 * len(entries) + 4
        data += struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHLL", *each) for each in sorted(entries))
        data += struct.pack("<L", after if number < len(pages) - 1 else 0)
    return data


def page(*more: Entry, width: int = 4, height: int = 4, offset: int = 8) -> list[Entry]:
    """A page of 16 bits in one strip, unless `more` says otherwise."""
    told = {256: width, 257: height, 258: 16, 259: 1, 262: 1, 273: offset, 277: 1, 278: height, 279: 2 * width * height}
    entries = {tag: (tag, LONG, 1, value) for tag, value in told.items()} | {entry[0]: entry for entry in more}
    return list(entries.values())


PIXELS = struct.pack("<16H", *range(16))
HALVES = [page(), page()]


def described(text: str, count: int = 1, *more: Entry) -> bytes:
    """Pages of 4 x 4 pixels with a text about them."""
    body = PIXELS + text.encode() + bytes(1)
    return tiff([page((270, 2, len(text) + 1, 40), *more), *[page()] * (count - 1)], body)


def ome_xml(
    inside: str = '<TiffData IFD="0" PlaneCount="2"/>', behind: str = "", before: str = "", **sizes: object
) -> str:
    told = {
        "DimensionOrder": "XYZCT",
        "SizeX": 4,
        "SizeY": 4,
        "SizeZ": 2,
        "SizeC": 1,
        "SizeT": 1,
        "Type": "uint16",
    } | sizes
    pixels = " ".join(f'{name}="{value}"' for name, value in told.items())
    return f'{before}<OME xmlns="x"><Image ID="I"><Pixels {pixels}>{inside}</Pixels></Image>{behind}</OME>'


def modulo(**told: object) -> str:
    said = " ".join(f'{name}="{value}"' for name, value in told.items())
    note = f'<XMLAnnotation ID="A" Namespace="modulo"><Value><Modulo><ModuloAlongZ Type="lifetime" {said}/></Modulo>'
    return f"<StructuredAnnotations>{note}</Value></XMLAnnotation></StructuredAnnotations>"


LAUGHS = "<!DOCTYPE OME [" + "".join(
    f'<!ENTITY e{at + 1} "{f"&e{at};" * 10 if at else "ha" * 40}">' for at in range(8)
) + "]>"  # fmt: skip

SMALL_VERSIONS = 2_000
PICTURES = f"<OME>{ome_xml()[13:-6] * 1_000}</OME>"
SHAPED = b'{"shape": [4, 4]   }'

CLAIMS = {
    "planes": (described(ome_xml(SizeZ=40_000_000)), "a stack of 40,000,000 pages of which 1 are there"),
    "channels": (described(ome_xml(SizeC=40_000_000), 2), "a stack of 80,000,000 pages of which 2 are there"),
    "pixels": (described(ome_xml(SizeX=20_000, SizeY=20_000), 2), "damaged: OME-XML of pictures of 20,000 x 20,000"),
    "named": (
        described(ome_xml('<TiffData IFD="0" PlaneCount="40000000"/>'), 2),
        "damaged: OME-XML that names 40,000,000 of 2 pages",
    ),
    "named often": (described(ome_xml("<TiffData/>" * 20_000), 400), "damaged: OME-XML that names 8,000,000 of 400"),
    "an axis in steps": (
        described(ome_xml(behind=modulo(Start=0, End=6e7, Step=1)), 2),
        "damaged: OME-XML that names 60,000,000 of 2 pages",
    ),
    "entities": (described(ome_xml(before=LAUGHS, inside="&e7;"), 2), "OME-XML with a document type"),
    "pictures with smaller versions": (
        tiff(
            [
                page((270, 2, len(PICTURES) + 1, 10_000), (330, LONG, SMALL_VERSIONS, 1_000)),
                *[page()] * (SMALL_VERSIONS // 2),
            ],
            (PIXELS.ljust(992, b"\0") + struct.pack("<L", 500_000) * SMALL_VERSIONS).ljust(9_992, b"\0")
            + PICTURES.encode().ljust(500_000, b"\0"),
        ),
        "a file of 1,000 pictures that are no stack (4 x 4)",
    ),
    "strips of all pages": (
        tiff(
            [page((273, LONG, 50_000, 40), (279, LONG, 50_000, 40), (278, LONG, 1, 1), width=1, height=50_000)] * 200,
            PIXELS + struct.pack("<L", 8) * 50_000,
        ),
        "damaged: the pages of a TIFF claim more than the file holds",
    ),
    "channels of all pages": (
        tiff([page((258, SHORT, 50_000, 40), (277, SHORT, 1, 50_000))] * 200, PIXELS * 4_000),
        "damaged: the pages of a TIFF claim more than the file holds",
    ),
    "profiles of all pages": (
        tiff([page((34675, 7, 4_000_000, 40))] * 500, bytes(4_000_040)),
        "damaged: the pages of a TIFF claim more than the file holds",
    ),
    "smaller versions": (
        tiff([page((330, LONG, 40_000, 40))] * 20, PIXELS + struct.pack("<L", 160_040) * 40_000),
        "damaged: the pages of a TIFF claim more than the file holds",
    ),
    "a circle": (tiff([page()] * 300)[:-4] + struct.pack("<L", 8), "damaged: the pages of a TIFF lead back to one"),
    "pages that are not alike": (
        tiff([page(width=1 + at) for at in range(3_000)], PIXELS),
        "a stack of 3,000 pages that are not alike",
    ),
    "series": (
        tiff([page((270, 2, 20, 40), (254, LONG, 1, 1), width=at % 7 + 1) for at in range(3_000)], PIXELS + SHAPED),
        "a file of 3,000 pictures that are no stack",
    ),
    "planes of MetaMorph": (
        tiff([page((33629, 5, 1 << 30, 40), (33628, LONG, 1 << 30, 40))], PIXELS * 10),
        "a MetaMorph stack of 1,073,741,824 pages",
    ),
}


@linux
def test_a_tiff_takes_no_more_than_its_pages_hold(tmp_path: Path) -> None:
    found = read_apart(tmp_path, tiff(HALVES, PIXELS), [data for data, _ in CLAIMS.values()])
    for (name, (data, reason)), (taken, became) in zip(CLAIMS.items(), found, strict=True):
        assert became.startswith(reason), name
        assert taken < 4 * len(data) + (24 << 20), f"{name}: {taken:,} bytes of a file of {len(data):,}"


def test_pages_that_lie_within_each_other_are_not_all_looked_at() -> None:
    # A page begins every 12 bytes and has 2,000 entries; where the next one begins stands behind them.
    count = 2_000
    group = struct.pack("<HH", count, 0).ljust(12, b"\0")
    behind = b"".join(struct.pack("<xxL", 8 + 12 * (at + 1)).ljust(12, b"\0") for at in range(count))
    data = b"II*\0" + struct.pack("<L", 8) + group * count + behind
    assert planes.of_tiff(data) < 5
    with pytest.raises(ImageError, match="damaged: the pages of a TIFF claim more than the file holds"):
        decode(data, rendering=Rendering(plane="max"))
