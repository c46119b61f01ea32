"""The copy of its encoder that a collection keeps, so that it works without the file that it was made with."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import stat
from pathlib import Path

from indexer.encoder.contract import SizeNotListed
from indexer.encoder.encoder_file import EncoderDamaged, builtin_encoder
from indexer.encoder.onnx_encoder import Encoder
from indexer.storage.index_command import index_command
from indexer.store.meta import Meta, Written
from massl.core.errors import MasslError
from massl.core.files.atomic_writing import remove_older, whole

# Collections' copies of encoders, and nobody's own encoder that lies in the folder too.
_COPIES = f"encoder-{'[0-9a-f]' * 16}.onnx"

_LOG = logging.getLogger(__name__)


def path_of(folder: Path, sha256: str) -> Path:
    """A collection's copy of an encoder: named by its content, so that a kill never leaves it beside another's name."""
    return folder / f"encoder-{sha256[:16]}.onnx"


def keep(encoder: Encoder, folder: Path) -> Path:
    """Puts a copy of an encoder into a collection's folder.

    Raises:
        EncoderDamaged: the encoder's file is no longer what was loaded.
        OSError: it can't be read or written.
    """
    copy = path_of(folder, encoder.sha256)
    data = encoder.path.read_bytes()
    if hashlib.sha256(data).hexdigest() != encoder.sha256:
        raise EncoderDamaged(f"{encoder.path} has changed since it was read; run it again")
    with whole(copy) as written:
        written.write_bytes(data)
    return copy


def remove_others(copy: Path) -> None:
    """Removes the copies of encoders that the collection had before this one."""
    remove_older(copy, _COPIES)


def find(folder: Path, sha256: str | None) -> Encoder | None:
    """The encoder of which a folder has a copy: that of this SHA-256, or the only one if it isn't known."""
    copies = [path_of(folder, sha256)] if sha256 else sorted(folder.glob(_COPIES))
    for copy in copies if len(copies) == 1 else ():
        with contextlib.suppress(MasslError):
            return Encoder.load(copy, sha256=sha256)
    return None


def load(root: Path, folder: Path, meta: Meta, image_size: int | None = None) -> Encoder:
    """The collection's copy, compared with the catalog before it is used; else a file of the very same content.

    Args:
        root: the folder of images, for the command that an error names.
        folder: the collection's own.
        meta: what its catalog says of the encoder.
        image_size: side in pixels of the pictures that it is used on; the collection's if left out.

    Raises:
        SizeNotListed: its file doesn't list the size.
        EncoderDamaged: there is none.
        EncoderMismatch: a copy under the name of before is another encoder.
    """
    own, size = meta.encoder_sha256, image_size or meta.image_size
    copy, as_before = path_of(folder, own), folder / "encoder.onnx"
    try:
        place = copy if copy.exists() or not as_before.exists() else as_before
        return Encoder.load(place, sha256=own, image_size=size)
    except SizeNotListed as error:
        if image_size:
            raise
        usual = Encoder.load(place, sha256=own).image_size
        command = index_command(root, folder, image_size=usual)
        raise SizeNotListed(
            f"{error}, as the index says; to embed it again and keep its labels, run: {command}"
        ) from None
    except EncoderDamaged:
        what = "damaged"
    except MasslError:
        what = "missing" if not copy.exists() else "unreadable"
    for place in (builtin_encoder(), Path(meta.encoder_path)):
        if not _may_be(place, meta.encoder_bytes):
            continue
        with contextlib.suppress(MasslError):
            encoder = Encoder.load(place, sha256=own, image_size=size)
            _replace(encoder, folder, what)
            return encoder
    raise EncoderDamaged(
        f"the index's copy of its encoder, {meta.encoder_name}, is {what}; labels and embeddings are sound. "
        f"Bring back the file that it was made with (SHA-256 {own[:12]}…): run: "
        f"{index_command(root, folder, 'FILE', rebuild=False)}"
    )


def mend(encoder: Encoder, folder: Path) -> None:
    """Puts the copy back, from the same encoder, if it is no longer what it was."""
    try:
        Encoder.load(path_of(folder, encoder.sha256), sha256=encoder.sha256)
    except MasslError:
        if encoder.path.resolve() != (folder / "encoder.onnx").resolve():
            _replace(encoder, folder, "damaged or missing")


def origin(encoder: Encoder) -> list[Written]:
    """Where an encoder's file lay, from which a damaged copy can be made anew."""
    path = os.path.realpath(encoder.path)
    size = str(os.path.getsize(path))
    try:
        path.encode()
    except UnicodeEncodeError:
        path = ""
    return [Meta.encoder_path.to(path), Meta.encoder_bytes.to(size)]


def _replace(encoder: Encoder, folder: Path, what: str) -> None:
    try:
        keep(encoder, folder)
        done = "was made anew from"
    except OSError:  # a read-only or full disk costs the copy, not the search
        done = "can't be written anew; in its place serves"
    _LOG.warning("the index's copy of its encoder was %s; it %s %s", what, done, encoder.called)


def _may_be(path: Path, size: str | None) -> bool:
    """Whether a file can be the encoder, before anything of it is read: the catalog names it, and may be anybody's."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(found.st_mode) and (size is None or str(found.st_size) == size)
