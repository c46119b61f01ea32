"""The file of an encoder: whether it is what was written, the one that comes with the product, and what it may hold."""

from __future__ import annotations

import hashlib
import importlib.resources
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from massl.core.errors import MasslError
from massl.core.files.onnx_digest import is_whole

AGAIN = "copy it again from where it came, or export it again with `massl export`"

# Whoever builds in another adds this one to `indexer.encoder.former_builtin`.
BUILTIN = "2d8577241f2687951da84e1595a38980313b43db0ef9a77e58f43c3d0d7afc90"  # SHA-256 of the encoder of this version

# Collections' copies of encoders: the name tells the content.
_NAMED_BY_CONTENT = re.compile(r"encoder-([0-9a-f]{16})\.onnx")


class EncoderDamaged(MasslError):
    """An encoder file is not what it was when it was written."""


def builtin_encoder() -> Path:
    """The encoder that comes with the product."""
    return Path(str(importlib.resources.files("indexer.encoder") / "builtin" / "encoder.onnx"))


def check_builtin(digest: str | None = None) -> None:
    """Compares the built-in encoder's file, or its SHA-256 if that is known already, with what this version brought.

    Raises:
        EncoderDamaged: it is missing, or another.
    """
    path = builtin_encoder()
    try:
        digest = digest or hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise EncoderDamaged(f"the built-in encoder can't be read ({error.strerror}); install massl again") from None
    if digest != BUILTIN:
        raise EncoderDamaged(
            f"the built-in encoder of this installation is damaged ({path} has another SHA-256); install massl again"
        )


def check_whole(path: Path, data: bytes, digest: str, wanted: str | None) -> None:
    """Compares a file with all that is known of it: what is asked for, its name, and the digest that it carries.

    Raises:
        EncoderDamaged: it differs.
    """
    if path == builtin_encoder():
        check_builtin(digest)
    if wanted is not None and digest != wanted:
        raise EncoderDamaged(f"{path} is damaged: its SHA-256 is {digest[:12]}…, not {wanted[:12]}…")
    elif (named := _NAMED_BY_CONTENT.fullmatch(path.name)) and not digest.startswith(named[1]):
        raise EncoderDamaged(
            f"{path} is damaged: its SHA-256 doesn't begin as its name says; take the file that it is a copy of"
        )
    elif not is_whole(data):
        raise EncoderDamaged(f"{path} is damaged: its content has changed since it was written; {AGAIN}")


def reads_other_files(model: bytes) -> bool:
    """Whether some tensor of an ONNX model, in whatever part of it, keeps its numbers in another file."""
    import onnx

    waiting: list[Any] = []
    try:
        waiting.append(onnx.load_model_from_string(model))
    except Exception:  # of protocol buffers, another class for each of their implementations
        return False  # no model, which running it reports
    while waiting:
        message = waiting.pop()
        if isinstance(message, onnx.TensorProto) and message.data_location == onnx.TensorProto.EXTERNAL:
            return True
        for field, value in message.ListFields():
            if field.message_type:
                waiting += value if isinstance(value, Sequence) else [value]
    return False
