"""Where a collection lies: opened, made, repaired, given another encoder; and the lock for indexing."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import filelock

from indexer.encoder.onnx_encoder import Encoder, EncoderMismatch
from indexer.recovery import repair
from indexer.storage import encoder_copies, rendering_fit, tiling_fit
from indexer.storage.index_command import index_command
from indexer.store import image_writes, salvage
from indexer.store.catalog import Catalog, now
from indexer.store.damage import CatalogDamaged
from indexer.store.meta import Meta, Written
from indexer.store.sqlite_errors import cannot_write
from indexer.store.tiling import Tiling
from massl.core.errors import MasslError
from massl.core.files.path_notation import as_text, of_text
from massl.core.files.scan import CATALOG, check_folder, check_holds_images
from massl.core.images.rendering import AS_BEFORE, RenderingChoice


class CollectionBusy(MasslError):
    """Another process is indexing the collection."""


class Storage:
    """A folder of images, the folder that knows them, and the catalog in that. Safe to share by threads."""

    def __init__(self, root: Path, folder: Path, catalog: Catalog) -> None:
        self.root = root
        self.folder = folder
        self.catalog = catalog
        self._lock = threading.Lock()
        self._encoder: Encoder | None = None

    @classmethod
    def open(cls, root: Path | str, index_dir: Path | str | None = None) -> Storage:
        """See `Collection.open`."""
        root = Path(root)
        folder = _folder(root, index_dir)
        if not (folder / CATALOG).exists():
            check_folder(root)
            own = f"run: {index_command(root, folder)}"
            for above in root.resolve().parents:
                if not index_dir and (above / ".massl" / CATALOG).exists():
                    raise MasslError(f"{root} is part of {above}, which has an index; name that folder, or {own}")
            raise MasslError(f"{root} has no index yet; {own}")
        storage = cls(root, folder, Catalog.open(folder / CATALOG))
        owner = storage.catalog.meta().root
        # An index beside its images moves with them; one elsewhere could be meant for another folder.
        elsewhere = owner and os.path.realpath(root) != (owner := of_text(owner)) and os.path.isdir(owner)
        if index_dir and elsewhere:
            raise MasslError(f"the index in {folder} belongs to {owner}, not to {root}; choose another --index-dir")
        return storage

    @classmethod
    def create(
        cls,
        root: Path | str,
        encoder: Encoder | None,
        index_dir: Path | str | None,
        rebuild: bool,
        include: Sequence[str] = (),
        shown: RenderingChoice = AS_BEFORE,
        tiling: Tiling | None = None,
        exclude: Sequence[str] | None = None,
    ) -> Storage:
        """See `Collection.create`."""
        root = Path(root)
        check_folder(root)
        folder = _folder(root, index_dir)
        if (folder / CATALOG).exists():
            storage = cls._open_sound(root, folder, index_dir, encoder)
            if rebuild:
                rendering_fit.check_readable(storage.catalog, root, shown, exclude or ())
                storage._take(encoder or storage.encoder, shown, tiling)
            else:
                storage.check_fits(encoder)
                rendering_fit.take(storage.catalog, storage.root, storage.folder, shown, storage.held)
                tiling_fit.take(storage.catalog, storage.root, storage.folder, tiling, storage.held)
                if encoder is not None:
                    encoder_copies.mend(encoder, storage.folder)
            return storage
        check_holds_images(root, include)
        encoder = encoder or Encoder.load()
        with _locked(root, folder):
            return cls._make(root, folder, encoder, shown, tiling)

    @classmethod
    def choose_encoder(
        cls, root: Path | str, index_dir: Path | str | None, file: Path | None, image_size: int | None
    ) -> Encoder | None:
        """See `Collection.choose_encoder`."""
        if file is None and image_size is None:
            return None
        encoder = Encoder.load(file, image_size=image_size) if file else None
        root = Path(root)
        check_folder(root)
        folder = _folder(root, index_dir)
        if not (folder / CATALOG).exists():
            return encoder or Encoder.load(image_size=image_size)
        try:
            storage = cls.open(root, index_dir)
        except CatalogDamaged:
            storage = cls._open_sound(root, folder, index_dir, encoder)
        if encoder is None and image_size:
            # Not `storage.encoder`: the catalog's own size may be none that the file lists.
            encoder = encoder_copies.load(root, folder, storage.catalog.meta(), image_size)
        encoder = encoder or storage.encoder
        meta = storage.catalog.meta()
        if encoder.sha256 != meta.encoder_sha256:
            return encoder
        return _at(encoder, image_size or _size(meta, encoder))

    @classmethod
    def _open_sound(cls, root: Path, folder: Path, index_dir: Path | str | None, encoder: Encoder | None) -> Storage:
        """Opens a collection to index it: examined whole once a day; a damaged one is made anew of what is sound."""
        for last in (False, True):
            try:
                storage = cls.open(root, index_dir)
                if storage.catalog.meta().verified != now()[:10] and storage.catalog.can_be_written():
                    storage.catalog.examine(whole=True)
                    with contextlib.suppress(MasslError):  # a full disk costs the same again the next time
                        storage.catalog.set_meta(Meta.verified.to(now()[:10]))
                return storage
            except CatalogDamaged as error:
                if last:
                    raise
                cls._repair(root, folder, encoder, error)
        raise AssertionError

    @classmethod
    def _repair(cls, root: Path, folder: Path, encoder: Encoder | None, error: CatalogDamaged) -> None:
        """Puts a sound catalog in a damaged one's place; see `indexer.recovery.repair.repair`."""
        with _locked(root, folder):
            with contextlib.suppress(CatalogDamaged):
                Catalog.open(folder / CATALOG).close()
                Catalog(folder / CATALOG).examine(whole=True)
                Catalog(folder / CATALOG).meta()
                return  # another process has been at it meanwhile
            try:
                meta = Meta(salvage.read(folder / CATALOG).meta)
                sha256 = meta.encoder_sha256 if Meta.encoder_sha256 in meta else None
                known = encoder or encoder_copies.find(folder, sha256) or Encoder.load()
                same = sha256 in (None, known.sha256)
                if same and _size(meta, known) in known.image_sizes:
                    known = _at(known, _size(meta, known))
            except MasslError:
                raise error from None
            # Where the size can't be read, embeddings may be of any that the file lists.
            told = meta.image_size is not None or len(known.image_sizes) == 1
            comparable = same and told and known.image_size == _size(meta, known)
            # Tiles are made with the embedding of their image, and aren't salvaged.
            comparable = comparable and not meta.tiles
            repair.repair(folder / CATALOG, _facts(root, known), comparable)
            if not encoder_copies.path_of(folder, known.sha256).exists():
                encoder_copies.keep(known, folder)

    @classmethod
    def _make(
        cls, root: Path, folder: Path, encoder: Encoder, shown: RenderingChoice, tiling: Tiling | None
    ) -> Storage:
        if (folder / CATALOG).exists():  # another process was faster
            return cls.open(root, folder)
        copy = encoder_copies.keep(encoder, folder)
        facts = _facts(root, encoder) | dict(rendering_fit.facts(shown, None))
        facts |= dict([Meta.tiles.to(tiling)]) if tiling else {}
        storage = cls(root, folder, Catalog.create(folder / CATALOG, facts))
        storage._encoder = encoder
        encoder_copies.remove_others(copy)
        return storage

    def held(self) -> filelock.AcquireReturnProxy:
        """The lock that keeps a second indexer out, taken; released at the end of a `with`.

        Raises:
            CollectionBusy: another process has it.
            MasslError: nothing can be written.
        """
        try:
            held = filelock.FileLock(self.folder / "lock", timeout=0).acquire()
        except filelock.Timeout:
            holder = self.catalog.meta().holder
            raise CollectionBusy(f"{self.root} is being indexed by {holder}; try again when it has finished") from None
        except OSError as error:
            raise cannot_write(self.folder, error) from None
        self.catalog.set_meta(Meta.holder.to(f"process {os.getpid()}"))
        return held

    def made_by(self, encoder: Encoder) -> bool:
        """Whether the collection was embedded by this very encoder, at the size that it is used at."""
        meta = self.catalog.meta()
        return encoder.sha256 == meta.encoder_sha256 and encoder.image_size == _size(meta, encoder)

    def check_fits(self, encoder: Encoder | None) -> None:
        """Raises `EncoderMismatch` if the collection was embedded by another encoder, or at another size."""
        if encoder is None or self.made_by(encoder):
            return
        meta = self.catalog.meta()
        if encoder.sha256 == meta.encoder_sha256:
            was, asked = f"at {_size(meta, encoder)} pixels", f"at {encoder.image_size}"
            command = index_command(self.root, self.folder, image_size=encoder.image_size)
        else:
            was = f"with the encoder {meta.encoder_name} ({meta.encoder_sha256[:12]})"
            asked = f"with {encoder.name} ({encoder.sha256[:12]})"
            size = None if encoder.image_size == encoder.image_sizes[0] else encoder.image_size
            command = index_command(self.root, self.folder, encoder.called, image_size=size)
        raise EncoderMismatch(
            f"{self.root} was indexed {was}, not {asked}; to embed it again and keep its labels, run: {command}"
        )

    def encoder_facts(self) -> dict[str, Any]:
        """The encoder's name, identity and measures, in plain values."""
        meta = self.catalog.meta()
        return {
            "name": meta.encoder_name,
            "sha256": meta.encoder_sha256,
            "dim": meta.dim,
            "image_size": self.image_size,
        }

    @property
    def image_size(self) -> int | None:
        """Input side of the encoder in pixels; None if only its file has it and can't be read."""
        told = self.catalog.meta().image_size
        if told:
            return told
        try:
            return self.encoder.image_size
        except MasslError:
            return None

    @property
    def encoder(self) -> Encoder:
        """The encoder that the collection is made with now."""
        with self._lock:
            # Another process may have indexed it anew, with another one or at another size.
            if self._encoder is None or not self.made_by(self._encoder):
                self._encoder = encoder_copies.load(self.root, self.folder, self.catalog.meta())
            return self._encoder

    def encoder_at(self, image_size: int) -> Encoder:
        """The collection's encoder at another size, that its file lists."""
        return _at(self.encoder, image_size)

    def _take(self, encoder: Encoder, shown: RenderingChoice, tiling: Tiling | None) -> None:
        """Gives the collection another encoder, size, range or tiling: embeddings go, labels and decisions stay."""
        with self.held():
            meta = self.catalog.meta()
            same = encoder.sha256 == meta.encoder_sha256
            # The copy says nothing of where it could be made anew from.
            origin = [] if same and encoder.path.parent == self.folder else encoder_copies.origin(encoder)
            cut = [] if tiling is None else [Meta.tiles.to(tiling)]
            try:
                copy = encoder_copies.keep(encoder, self.folder)
            except OSError as error:
                raise cannot_write(self.folder, error) from None
            facts = rendering_fit.facts(shown, meta)
            picks = dict(facts).keys() & {Meta.channels.name, Meta.plane.name}
            looks_new = bool(meta.kind_ranges) or Meta.display_range not in meta or bool(picks)
            image_writes.forget_embeddings(self.catalog, [*_encoder_facts(encoder), *origin, *facts, *cut], looks_new)
            self._encoder = encoder
            encoder_copies.remove_others(copy)


@contextlib.contextmanager
def _locked(root: Path, folder: Path) -> Iterator[None]:
    """Keeps other processes from making or repairing a catalog meanwhile; makes the folder if it isn't there.

    Raises:
        CollectionBusy: another process is at it.
        MasslError: nothing can be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder / "lock", timeout=0):
            yield
    except filelock.Timeout:
        raise CollectionBusy(f"{root} is being indexed by another process; try again in a moment") from None
    except OSError as error:
        raise cannot_write(folder, error) from None


def _folder(root: Path, index_dir: Path | str | None) -> Path:
    """The checked folder of the index: somebody else may have put links there that lead to other files.

    Raises:
        MasslError: something in it is no ordinary file or folder; or it is itself a link that nobody named.
    """
    folder = Path(index_dir) if index_dir else root / ".massl"
    own = os.path.join(os.path.realpath(root), ".massl")
    if not index_dir and os.path.lexists(folder) and os.path.realpath(folder) != own:
        raise MasslError(
            f"{folder} is a link; if you made it, name its target {os.path.realpath(folder)} with --index-dir"
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
        return  # there is none yet, or it can't be listed, which opening it reports


def _facts(root: Path, encoder: Encoder) -> dict[str, str]:
    """What a new catalog says of its collection."""
    return dict(
        [
            *_encoder_facts(encoder),
            *encoder_copies.origin(encoder),
            Meta.created.to(now()),
            Meta.root.to(as_text(os.path.realpath(root))),
            Meta.generation.to(0),
            Meta.identity.to(secrets.token_hex(8)),
        ]
    )


def _encoder_facts(encoder: Encoder) -> list[Written]:
    return [
        Meta.encoder_sha256.to(encoder.sha256),
        Meta.encoder_name.to(encoder.name),
        Meta.dim.to(encoder.dim),
        Meta.image_size.to(encoder.image_size),
    ]


def _size(meta: Meta, encoder: Encoder) -> int:
    """Side in pixels of the pictures that a collection of this encoder was embedded by; the usual one if not told."""
    return meta.image_size or encoder.image_sizes[0]


def _at(encoder: Encoder, image_size: int) -> Encoder:
    """The same file at this size.

    Raises:
        MasslError: it doesn't list the size.
    """
    if encoder.image_size == image_size:
        return encoder
    return Encoder.load(encoder.path, sha256=encoder.sha256, image_size=image_size)
