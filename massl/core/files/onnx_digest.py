"""A digest that an ONNX file carries of itself, so that a reader notices a flipped bit without asking anybody.

ONNX has no checksum, and ONNX Runtime runs a network with a flipped bit in a weight without a word. The digest is the
metadata property `massl.digest`: the first 32 hexadecimal digits of the SHA-256 of the file as it is with these digits
all zero.
"""

from __future__ import annotations

import hashlib
from typing import Any

_KEY = b"massl.digest"
_DIGITS = 32
_BLANK = b"0" * _DIGITS


def sealed(model: Any) -> bytes:
    """The file of an `onnx.ModelProto`, with its digest. An earlier digest is replaced."""
    kept = [entry for entry in model.metadata_props if entry.key != _KEY.decode()]
    others = [(entry.key, entry.value) for entry in kept]
    del model.metadata_props[:]
    for key, value in [*others, (_KEY.decode(), _BLANK.decode())]:
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    data = model.SerializeToString()
    place = _place(data)
    if place is None:
        raise AssertionError("a property that was just added is in the file")
    return data[:place] + _digest(data, place) + data[place + _DIGITS :]


def is_whole(data: bytes) -> bool:
    """Whether a file is what its digest says. One without a digest can't tell, and passes."""
    place = _place(data)
    return place is None or data[place : place + _DIGITS] == _digest(data, place)


def _place(data: bytes) -> int | None:
    """Where the digits begin: right behind the key, after the field's number and length (protocol buffers)."""
    key = data.rfind(_KEY)  # the last one: what is embedded in a weight or a name comes before the properties
    begin = key + len(_KEY) + 2
    if key < 0 or data[begin - 2 : begin] != bytes([0x12, _DIGITS]) or len(data) < begin + _DIGITS:
        return None
    return begin


def _digest(data: bytes, place: int) -> bytes:
    hashed = hashlib.sha256(data[:place])
    hashed.update(_BLANK)
    hashed.update(data[place + _DIGITS :])
    return hashed.hexdigest()[:_DIGITS].encode()
