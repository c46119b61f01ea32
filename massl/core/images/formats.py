"""Which kind of file a name or the first bytes tell of: a picture that is read, another picture, or neither."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

HEAD = 132  # bytes of a file that `kind_of_content` needs: DICOM's mark ends there
PICTURE = "picture"  # of a format that is read
OTHER = ""  # no picture
UNOPENED = "file that can't be opened"  # whose name doesn't say what it is

# Of cameras' RAW photographs.
RAW_SUFFIXES = frozenset(
    {".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".sr2", ".srf", ".orf", ".rw2", ".raf", ".pef", ".srw"}
    | {".3fr", ".erf", ".iiq", ".kdc", ".mrw", ".rwl", ".x3f", ".gpr", ".fff", ".mef", ".mos", ".dcr", ".k25"}
)
# Names of formats that are read; these files are not opened to be found.
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".jfi", ".jpg_large", ".mpo", ".jps", ".insp", ".png", ".apng", ".webp"}
    | {".gif", ".bmp", ".dib", ".tif", ".tiff", ".btf", ".tf8", ".lsm", ".avif", ".avifs"}
    | {".heic", ".heif", ".heics", ".heifs", ".hif", ".dcm", ".dicom"}
    | RAW_SUFFIXES
)

_STACKS = frozenset({".tif", ".tiff", ".btf", ".tf8", ".lsm"})

_NOT_READ = {
    "JPEG XL": "jxl",
    "JPEG 2000": "jp2 j2k j2c jpc jpf jpx jpm jph jhc",
    "JPEG XR": "jxr wdp hdp",
    "Photoshop": "psd psb",
    "GIMP": "xcf",
    "Krita": "kra",
    "OpenRaster": "ora",
    "Affinity": "afphoto afdesign",
    "Paint.NET": "pdn",
    "SVG": "svg svgz",
    "Illustrator": "ai",
    "PostScript": "eps epsf",
    "Windows metafile": "wmf emf",
    "OpenEXR": "exr",
    "Radiance HDR": "rgbe",
    "NIfTI": "nii",
    "NRRD": "nrrd nhdr",
    "MetaImage": "mha mhd",
    "FITS": "fits fit fts",
    "MRC": "mrc",
    "Zeiss CZI": "czi zvi",
    "Nikon ND2": "nd2",
    "Leica LIF": "lif lof",
    "Olympus": "oib oif oir",
    "Imaris": "ims",
    "MrSID": "sid",
    "ECW": "ecw",
    "Portable anymap": "ppm pgm pbm pnm pam pfm",
    "Targa": "tga",
    "DirectDraw surface": "dds",
    "icon": "ico cur icns",
    "PCX": "pcx",
    "SGI": "sgi",
    "QOI": "qoi",
    "FLIF": "flif",
    "BPG": "bpg",
    "DjVu": "djvu djv",
    "X bitmap": "xbm xpm",
}

# A slide's first page is far larger than any picture, or its file only the label beside it: the name decides.
_SLIDE = "whole slide"
# Which the programs that come with the device export as OME-TIFF.
EXPORTABLE = ("Zeiss CZI", "Nikon ND2", "Leica LIF", "Olympus", "Imaris", _SLIDE)
_SLIDES = ("svs", "ndpi", "mrxs", "scn", "bif", "vms", "vsi", "isyntax")

# What lies beside pictures in great numbers and isn't any: not worth opening. The last row is of what isn't finished.
_OTHERS = """
txt md rst log nfo tex bib rtf doc docx odt xls xlsx ods ppt pptx odp pdf ps epub mobi pages numbers key
csv tsv json jsonl ndjson geojson xml yaml yml toml ini cfg conf plist html htm xhtml css js mjs map
parquet feather arrow avro npy npz mat h5 hdf5 zarr pkl pickle db sqlite sqlite3 sql mdb lmdb lck lock
py pyc pyi ipynb r rmd m jl c h cc cpp hpp cs java kt go rs rb php pl lua sh bash bat ps1 swift proto
pt pth ckpt safetensors onnx pb tflite gguf faiss bin exe dll so dylib a o obj lib class jar whl
xmp aae thm lrv pp3 dop vrd on1 cos nksc lrcat lrdata lrtemplate cube icc icm mie exif sidecar
mp4 m4v mov avi mkv webm mpg mpeg mts m2ts ts wmv flv 3gp 3g2 ogv insv vob braw r3d mxf srt vtt ass gcsv
mp3 m4a wav flac ogg oga opus aac wma aif aiff mid midi amr
zip tar gz tgz bz2 tbz2 xz txz zst lz4 7z rar z iso dmg cab deb rpm apk
cls id label labels lst list names data idx index meta tfw jgw pgw jpgw wld prj shp shx dbf cpg gpx kml kmz
ttf otf woff woff2 eot url lnk desktop webloc torrent eml msg vcf ics crt pem sha1 sha256 md5 sfv par2
blend fbx gltf glb stl ply mtl dae 3ds step stp dwg dxf las laz pcd
tmp temp part partial crdownload download opdownload swp
"""

_BY_SUFFIX = (
    {f".{suffix}": OTHER for suffix in _OTHERS.split()}
    | {f".{suffix}": kind for kind, suffixes in _NOT_READ.items() for suffix in suffixes.split()}
    | {f".{suffix}": _SLIDE for suffix in _SLIDES}
    | dict.fromkeys(SUFFIXES, PICTURE)
)

_READ_STARTS = (
    b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+",
    b"FUJIFILMCCD-RAW", b"IIU\0", b"IIRO", b"IIRS", b"MMOR", b"\0MRM", b"FOVb",
)  # fmt: skip
_BRANDS = frozenset(
    {b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
    | {b"crx "}
)
_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)  # bytes, of every version
_STARTS = {
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL \r\n\x87\n": "JPEG XL",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"II\xbc": "JPEG XR",
    b"8BPS": "Photoshop",
    b"gimp xcf": "GIMP",
    b"<svg": "SVG",
    b"v/1\x01": "OpenEXR",
    b"#?RADIANCE": "Radiance HDR",
    b"#?RGBE": "Radiance HDR",
    b"SIMPLE  =": "FITS",
    b"NRRD000": "NRRD",
    b"ZISRAWFILE": "Zeiss CZI",
    b"\xda\xce\xbe\x0a": "Nikon ND2",
    b"DDS |": "DirectDraw surface",
    b"icns": "icon",
    b"qoif": "QOI",
    b"FLIF": "FLIF",
    b"BPG\xfb": "BPG",
    b"AT&TFORM": "DjVu",
    b"%!PS-Adobe-3.0 EPSF": "PostScript",
}
# Another text whenever a table above changes: what was found by another one may be wrong by now.
RULES = hashlib.sha256(
    repr((sorted(_BY_SUFFIX.items()), _READ_STARTS, sorted(_BRANDS), sorted(_STARTS.items()))).encode()
).hexdigest()[:16]
_OPENS_AS_SVG = re.compile(rb"(?:\xef\xbb\xbf)?\s*<\?xml[^>]*>\s*(?:<!--.*?-->\s*)?(?:<!DOCTYPE svg|<svg)", re.DOTALL)


class PlaneCounter(NamedTuple):
    """`planes_of` tells how many planes a file holds, None where nobody can say; `rule` is another where it may tell
    others.
    """

    planes_of: Callable[[Path], int | None]
    rule: str = ""


def kind_of_name(name: str) -> str | None:
    """What a file's name says of it: `PICTURE`, `OTHER`, or what to call one that isn't read; None: nothing."""
    if name.lower().endswith(".nii.gz"):
        return "NIfTI"
    return _BY_SUFFIX.get(os.path.splitext(name)[1].lower())


def needs_a_look(name: str) -> bool:
    """Whether only its content says what a file is: its name says nothing, or tells of a picture that isn't read."""
    return kind_of_name(name) not in (PICTURE, OTHER, _SLIDE)


def may_hold_several(name: str) -> bool:
    """Whether a picture may be a stack, by its name: that of a TIFF, or one that says nothing."""
    suffix = os.path.splitext(name)[1].lower()
    return suffix in _STACKS or suffix not in SUFFIXES


def kind_of_content(head: bytes) -> str:
    """What a file is by its first `HEAD` bytes, in the terms of `kind_of_name`."""
    if head.startswith(_READ_STARTS) or head[6:14] == b"HEAPCCDR":
        return PICTURE
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return PICTURE
    if head[:2] == b"BM" and head[6:10] == bytes(4) and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return PICTURE
    if head[4:8] == b"ftyp":
        size = min(int.from_bytes(head[:4], "big"), len(head))
        brands = {head[8:12]} | {head[place : place + 4] for place in range(16, size - 3, 4)}
        return PICTURE if brands & _BRANDS else OTHER
    if head[128:132] == b"DICM":
        return PICTURE  # DICOM
    if _OPENS_AS_SVG.match(head):
        return "SVG"
    return next((kind for start, kind in _STARTS.items() if head.startswith(start)), OTHER)


def kind_of(name: str, head: bytes) -> str:
    """What a file is, by name and first bytes; the content counts for more where the two say different things."""
    return kind_of_content(head) or kind_of_name(name) or OTHER
