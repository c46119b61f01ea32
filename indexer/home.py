"""Where a collection lies: the folder of its catalog, the copy of its encoder, and the lock of whoever indexes it."""

from __future__ import annotations

import os
import secrets
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

import filelock

from indexer import health
from indexer.catalog import Catalog, cannot_write, now
from indexer.encoder import Encoder, EncoderMismatch
from massl.errors import MasslError
from massl.scan import CATALOG, check_folder, check_holds_images
from massl.writing import remove_older, whole

# Collections' copies of encoders, and nobody's own encoder that lies in the folder too.
_BYTES = "bytes:"  # before the hexadecimal form of a path that is no UTF-8; no whole path begins so
_COPIES = f"encoder-{'[0-9a-f]' * 16}.onnx"


class CollectionBusy(MasslError):
    """Another process is indexing the collection."""


class Home:
    """A folder of images, the folder that knows them, and the catalog in that. Safe to share by threads."""

    def __init__(self, root: Path, folder: Path, catalog: Catalog) -> None:
        self.root = root
        self.folder = folder
        self.catalog = catalog
        self._lock = threading.Lock()
        self._encoder: Encoder | None = None

    @classmethod
    def open(cls, root: Path | str, index_dir: Path | str | None = None) -> Home:
        """See `Collection.open`."""
        root = Path(root)
        folder = _folder(root, index_dir)
        if not (folder / CATALOG).exists():
            check_folder(root)
            own = f"run: {health.index_command(root, folder)}"
            for above in root.resolve().parents:
                if not index_dir and (above / ".massl" / CATALOG).exists():
                    raise MasslError(f"{root} is a part of {above}, which has an index: name that, or {own}")
            raise MasslError(f"{root} has no index yet; {own}")
        home = cls(root, folder, Catalog.open(folder / CATALOG))
        owner = home.catalog.meta().get("root")
        # An index beside its images moves with them; one elsewhere could be meant for another folder.
        elsewhere = owner and os.path.realpath(root) != (owner := _path(owner)) and os.path.isdir(owner)
        if index_dir and elsewhere:
            raise MasslError(f"the index in {folder} belongs to {owner}, not to {root}; choose another --index-dir")
        return home

    @classmethod
    def create(
        cls,
        root: Path | str,
        encoder: Encoder | None,
        index_dir: Path | str | None,
        rebuild: bool,
        include: Sequence[str] = (),
    ) -> Home:
        """See `Collection.create`."""
        root = Path(root)
        check_folder(root)
        folder = _folder(root, index_dir)
        if (folder / CATALOG).exists():
            home = cls.open(root, index_dir)
            if rebuild:
                home._take(encoder or home.encoder)
            else:
                home.check_fits(encoder)
            return home
        check_holds_images(root, include)
        encoder = encoder or Encoder.load()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(folder / "lock", timeout=0):
                return cls._make(root, folder, encoder)
        except filelock.Timeout:
            raise CollectionBusy(f"{root} is being indexed by another process; try again in a moment") from None
        except OSError as error:
            raise cannot_write(folder, error) from None

    @classmethod
    def _make(cls, root: Path, folder: Path, encoder: Encoder) -> Home:
        if (folder / CATALOG).exists():  # another process was faster
            return cls.open(root, folder)
        copy = _keep(encoder, folder)
        meta = {
            "encoder_sha256": encoder.sha256,
            "encoder_name": encoder.name,
            "dim": str(encoder.dim),
            "created": now(),
            "root": _text(os.path.realpath(root)),
            "generation": "0",
            "identity": secrets.token_hex(8),
        }
        home = cls(root, folder, Catalog.create(folder / CATALOG, meta))
        home._encoder = encoder
        remove_older(copy, _COPIES)
        return home

    def held(self) -> filelock.AcquireReturnProxy:
        """The lock that keeps a second indexer out, taken; released at the end of a `with`.

        Raises:
            CollectionBusy: another process has it.
            MasslError: nothing can be written.
        """
        try:
            held = filelock.FileLock(self.folder / "lock", timeout=0).acquire()
        except filelock.Timeout:
            holder = self.catalog.meta().get("holder", "another process")
            raise CollectionBusy(f"{self.root} is being indexed by {holder}; try again when it has finished") from None
        except OSError as error:
            raise cannot_write(self.folder, error) from None
        self.catalog.set_meta({"holder": f"process {os.getpid()}"})
        return held

    def check_fits(self, encoder: Encoder | None) -> None:
        """Raises `EncoderMismatch` if the collection was embedded by another encoder than this one."""
        meta = self.catalog.meta()
        if encoder and encoder.sha256 != meta["encoder_sha256"]:
            raise EncoderMismatch(
                f"{self.root} was indexed with the encoder {meta['encoder_name']} ({meta['encoder_sha256'][:12]}), "
                f"not with {encoder.name} ({encoder.sha256[:12]}); to embed it anew, keeping its labels, run: "
                + health.index_command(self.root, self.folder, encoder.called)
            )

    @property
    def encoder(self) -> Encoder:
        """The encoder that the collection is made with now."""
        own = self.catalog.meta()["encoder_sha256"]  # another process may have indexed it anew, with another one
        with self._lock:
            if self._encoder is None or self._encoder.sha256 != own:
                self._encoder = self._own_encoder()
            return self._encoder

    def _own_encoder(self) -> Encoder:
        copy = _copy(self.folder, self.catalog.meta()["encoder_sha256"])
        try:
            encoder = Encoder.load(copy if copy.exists() else self.folder / "encoder.onnx")  # as it was called before
        except MasslError as error:
            encoder = Encoder.load()
            if encoder.sha256 == self.catalog.meta()["encoder_sha256"]:
                return encoder  # the copy is damaged, but it was the built-in encoder's
            raise MasslError(
                f"the index's copy of its encoder is damaged ({error}); run: "
                f"{health.index_command(self.root, self.folder, 'FILE')}, with the encoder file that it was made with"
            ) from None
        self.check_fits(encoder)
        return encoder

    def _take(self, encoder: Encoder) -> None:
        """Makes the collection another encoder's: every embedding goes, labels and decisions stay."""
        with self.held():
            try:
                copy = _keep(encoder, self.folder)
            except OSError as error:
                raise cannot_write(self.folder, error) from None
            with self.catalog.writing() as connection:
                connection.execute("UPDATE images SET embedding = NULL")
                connection.execute("DELETE FROM meta WHERE key LIKE 'vectors_%' OR key LIKE 'calibrat%'")
                connection.execute("DELETE FROM meta WHERE key = 'drift'")
                connection.executemany(
                    "INSERT OR REPLACE INTO meta VALUES (?, ?)",
                    [
                        ("encoder_sha256", encoder.sha256),
                        ("encoder_name", encoder.name),
                        ("dim", str(encoder.dim)),
                    ],
                )
            self._encoder = encoder
            remove_older(copy, _COPIES)


def _text(path: str) -> str:
    """A path as the catalog can hold it: its own text, or its bytes where those are no UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return _BYTES + os.fsencode(path).hex()
    return path


def _path(text: str) -> str:
    """What `_text` made of a path, back; as it is if it isn't that."""
    try:
        return os.fsdecode(bytes.fromhex(text.removeprefix(_BYTES))) if text.startswith(_BYTES) else text
    except ValueError:
        return text


def _folder(root: Path, index_dir: Path | str | None) -> Path:
    """Where the index lies, after a look at it: whoever made it may have put links there that lead to other files.

    Raises:
        MasslError: something in it is no ordinary file or folder; or it is itself a link that nobody named.
    """
    folder = Path(index_dir) if index_dir else root / ".massl"
    own = os.path.join(os.path.realpath(root), ".massl")
    if not index_dir and os.path.lexists(folder) and os.path.realpath(folder) != own:
        raise MasslError(
            f"{folder} is a link, and may lead into somebody's own folder; if you made it, name "
            f"{os.path.realpath(folder)} with --index-dir"
        )
    check_no_links(folder)
    return folder


def check_no_links(folder: Path) -> None:
    """Refuses a folder in which writing a file could write another one, or reading it never end.

    Raises:
        MasslError: it holds a link, a pipe or a device.
    """
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not (entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)):
                    raise MasslError(
                        f"{Path(entry.path)} is a link, or no ordinary file, which massl never makes there: nothing of "
                        "it was used; remove it and try again"
                    )
    except OSError:
        return  # there is none yet, or it can't be listed, which whoever opens it will say


def _copy(folder: Path, sha256: str) -> Path:
    """A collection's copy of an encoder: named by its content, so that a kill never leaves it beside another's name."""
    return folder / f"encoder-{sha256[:16]}.onnx"


def _keep(encoder: Encoder, folder: Path) -> Path:
    """Puts a copy of an encoder into a collection's folder.

    Raises:
        OSError: it can't be written.
    """
    copy = _copy(folder, encoder.sha256)
    with whole(copy) as written:
        shutil.copyfile(encoder.path, written)
    return copy
