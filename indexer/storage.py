"""The files of a collection: the folder of its catalog, the copy of its encoder, and the lock for indexing."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import secrets
import stat
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import filelock

from indexer import tiling_fit
from indexer.encoder.contract import SizeNotListed
from indexer.encoder.encoder_file import EncoderDamaged, builtin_encoder
from indexer.encoder.onnx_encoder import Encoder, EncoderMismatch
from indexer.index_command import index_command
from indexer.recovery import repair
from indexer.store import image_writes, salvage
from indexer.store.catalog import Catalog, cannot_write, now
from indexer.store.damage import CatalogDamaged
from indexer.store.images import Images
from indexer.store.meta import Meta, Written
from indexer.store.tiling import Tiling
from massl.core.errors import MasslError
from massl.core.files.atomic_writing import remove_older, whole
from massl.core.files.path_notation import as_text, of_text
from massl.core.files.scan import CATALOG, check_folder, check_holds_images
from massl.core.images.rendering import AS_BEFORE, BY_COLLECTION, RenderingChoice

# Collections' copies of encoders, and nobody's own encoder that lies in the folder too.
_COPIES = f"encoder-{'[0-9a-f]' * 16}.onnx"


_LOG = logging.getLogger(__name__)


class CollectionBusy(MasslError):
    """Another process is indexing the collection."""


class RenderingMismatch(EncoderMismatch):
    """A collection was embedded with its deep files shown otherwise."""


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
            own = f"run: {index_command(root, folder)}"
            for above in root.resolve().parents:
                if not index_dir and (above / ".massl" / CATALOG).exists():
                    raise MasslError(f"{root} is part of {above}, which has an index; name that folder, or {own}")
            raise MasslError(f"{root} has no index yet; {own}")
        home = cls(root, folder, Catalog.open(folder / CATALOG))
        owner = home.catalog.meta().root
        # An index beside its images moves with them; one elsewhere could be meant for another folder.
        elsewhere = owner and os.path.realpath(root) != (owner := of_text(owner)) and os.path.isdir(owner)
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
        shown: RenderingChoice = AS_BEFORE,
        tiling: Tiling | None = None,
    ) -> Home:
        """See `Collection.create`."""
        root = Path(root)
        check_folder(root)
        folder = _folder(root, index_dir)
        if (folder / CATALOG).exists():
            home = cls._open_sound(root, folder, index_dir, encoder)
            tiling_fit.check_engine(home.catalog, tiling)
            if rebuild:
                home._take(encoder or home.encoder, shown, tiling)
            else:
                home.check_fits(encoder)
                home._show(shown)
                tiling_fit.take(home.catalog, home.root, home.folder, tiling, home.held)
                if encoder is not None:
                    home._mend_copy(encoder)
            return home
        check_holds_images(root, include)
        encoder = encoder or Encoder.load()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(folder / "lock", timeout=0):
                return cls._make(root, folder, encoder, shown, tiling)
        except filelock.Timeout:
            raise CollectionBusy(f"{root} is being indexed by another process; try again in a moment") from None
        except OSError as error:
            raise cannot_write(folder, error) from None

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
            home = cls.open(root, index_dir)
        except CatalogDamaged:
            home = cls._open_sound(root, folder, index_dir, encoder)
        # Not `home.encoder` for a size that is given: the catalog's own may be none that the file lists.
        encoder = encoder or (home._own_encoder(image_size) if image_size else home.encoder)
        meta = home.catalog.meta()
        if encoder.sha256 != meta.encoder_sha256:
            return encoder
        return _at(encoder, image_size or _size(meta, encoder))

    @classmethod
    def _open_sound(cls, root: Path, folder: Path, index_dir: Path | str | None, encoder: Encoder | None) -> Home:
        """Opens a collection to index it: examined whole once a day; a damaged one is made anew of what is sound."""
        for last in (False, True):
            try:
                home = cls.open(root, index_dir)
                if home.catalog.meta().verified != now()[:10] and home.catalog.can_be_written():
                    home.catalog.examine(whole=True)
                    with contextlib.suppress(MasslError):  # a full disk costs the same again the next time
                        home.catalog.set_meta(Meta.verified.to(now()[:10]))
                return home
            except CatalogDamaged as error:
                if last:
                    raise
                cls._repair(root, folder, encoder, error)
        raise AssertionError

    @classmethod
    def _repair(cls, root: Path, folder: Path, encoder: Encoder | None, error: CatalogDamaged) -> None:
        """Puts a sound catalog in a damaged one's place; see `indexer.recovery.repair.repair`."""
        try:
            with filelock.FileLock(folder / "lock", timeout=0):
                with contextlib.suppress(CatalogDamaged):
                    Catalog.open(folder / CATALOG).close()
                    Catalog(folder / CATALOG).examine(whole=True)
                    Catalog(folder / CATALOG).meta()
                    return  # another process has been at it meanwhile
                try:
                    meta = Meta(salvage.read(folder / CATALOG).meta)
                    sha256 = meta.encoder_sha256 if Meta.encoder_sha256 in meta else None
                    known = encoder or _copied(folder, sha256) or Encoder.load()
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
                if not _copy(folder, known.sha256).exists():
                    _keep(known, folder)
        except filelock.Timeout:
            raise CollectionBusy(f"{root} is being indexed by another process; try again in a moment") from None
        except OSError as trouble:
            raise cannot_write(folder, trouble) from None

    @classmethod
    def _make(cls, root: Path, folder: Path, encoder: Encoder, shown: RenderingChoice, tiling: Tiling | None) -> Home:
        if (folder / CATALOG).exists():  # another process was faster
            return cls.open(root, folder)
        copy = _keep(encoder, folder)
        facts = _facts(root, encoder) | dict(_shown_facts(shown, None))
        facts |= dict([Meta.tiles.to(tiling)]) if tiling else {}
        home = cls(root, folder, Catalog.create(folder / CATALOG, facts))
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

    def _show(self, shown: RenderingChoice) -> None:
        """Takes what somebody asks for where no embedding depends on it.

        Raises:
            RenderingMismatch: the collection was embedded otherwise.
        """
        meta = self.catalog.meta()
        asked = {
            "range": (meta.display_range, shown.range),
            "channels": (
                ", ".join(meta.channels) or "first",
                None if shown.channels is None else ", ".join(shown.channels),
            ),
            "plane": (meta.plane or "first", shown.plane),
        }
        others = {name: pair for name, pair in asked.items() if pair[1] is not None and pair[0] != (pair[1] or "first")}
        if not others:
            return
        # Collections of earlier versions don't know whether they hold deep files, and none whether it holds stacks.
        free = set(others) == {"range"} and Meta.display_range in meta and not meta.kind_ranges
        if not free and Images(self.catalog).count() > 0:
            was = " and ".join(f"the {name} {before}" for name, (before, _) in others.items())
            now_asked = " and ".join(str(wanted or "first") for _, wanted in others.values())
            command = index_command(self.root, self.folder, shown=shown)
            raise RenderingMismatch(
                f"{self.root} was indexed with {was}, not {now_asked}; to embed it again and keep its labels, "
                f"run: {command}"
            )
        with self.held():
            self.catalog.set_meta(*_shown_facts(shown, meta))

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
                self._encoder = self._own_encoder()
            return self._encoder

    def encoder_at(self, image_size: int) -> Encoder:
        """The collection's encoder at another size, that its file lists."""
        return _at(self.encoder, image_size)

    def _own_encoder(self, image_size: int | None = None) -> Encoder:
        """The collection's copy, compared with the catalog before it is used; else a file of the very same content.

        Args:
            image_size: side in pixels of the pictures that it is used on; the collection's if left out.

        Raises:
            SizeNotListed: its file doesn't list the size.
            EncoderDamaged: there is none.
            EncoderMismatch: a copy under the name of before is another encoder.
        """
        meta = self.catalog.meta()
        own, size = meta.encoder_sha256, image_size or meta.image_size
        copy, as_before = _copy(self.folder, own), self.folder / "encoder.onnx"
        try:
            place = copy if copy.exists() or not as_before.exists() else as_before
            return Encoder.load(place, sha256=own, image_size=size)
        except SizeNotListed as error:
            if image_size:
                raise
            usual = Encoder.load(place, sha256=own).image_size
            command = index_command(self.root, self.folder, image_size=usual)
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
                self._replace_copy(encoder, what)
                return encoder
        raise EncoderDamaged(
            f"the index's copy of its encoder, {meta.encoder_name}, is {what}; labels and embeddings are sound. "
            f"Bring back the file that it was made with (SHA-256 {own[:12]}…): run: "
            f"{index_command(self.root, self.folder, 'FILE', rebuild=False)}"
        )

    def _mend_copy(self, encoder: Encoder) -> None:
        """Puts the copy back, from the same encoder, if it is no longer what it was."""
        try:
            Encoder.load(_copy(self.folder, encoder.sha256), sha256=encoder.sha256)
        except MasslError:
            if encoder.path.resolve() != (self.folder / "encoder.onnx").resolve():
                self._replace_copy(encoder, "damaged or missing")

    def _replace_copy(self, encoder: Encoder, what: str) -> None:
        try:
            _keep(encoder, self.folder)
            done = "was made anew from"
        except OSError:  # a read-only or full disk costs the copy, not the search
            done = "can't be written anew; in its place serves"
        _LOG.warning("the index's copy of its encoder was %s; it %s %s", what, done, encoder.called)

    def _take(self, encoder: Encoder, shown: RenderingChoice, tiling: Tiling | None) -> None:
        """Gives the collection another encoder, size, range or tiling: embeddings go, labels and decisions stay."""
        with self.held():
            meta = self.catalog.meta()
            same = encoder.sha256 == meta.encoder_sha256
            # The copy says nothing of where it could be made anew from.
            origin = [] if same and encoder.path.parent == self.folder else _origin(encoder)
            cut = [] if tiling is None else [Meta.tiles.to(tiling)]
            try:
                copy = _keep(encoder, self.folder)
            except OSError as error:
                raise cannot_write(self.folder, error) from None
            facts = _shown_facts(shown, meta)
            picks = dict(facts).keys() & {Meta.channels.name, Meta.plane.name}
            looks_new = bool(meta.kind_ranges) or Meta.display_range not in meta or bool(picks)
            image_writes.forget_embeddings(self.catalog, [*_encoder_facts(encoder), *origin, *facts, *cut], looks_new)
            self._encoder = encoder
            remove_older(copy, _COPIES)


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


def _copy(folder: Path, sha256: str) -> Path:
    """A collection's copy of an encoder: named by its content, so that a kill never leaves it beside another's name."""
    return folder / f"encoder-{sha256[:16]}.onnx"


def _facts(root: Path, encoder: Encoder) -> dict[str, str]:
    """What a new catalog says of its collection."""
    return dict(
        [
            *_encoder_facts(encoder),
            *_origin(encoder),
            Meta.created.to(now()),
            Meta.root.to(as_text(os.path.realpath(root))),
            Meta.generation.to(0),
            Meta.identity.to(secrets.token_hex(8)),
        ]
    )


def _shown_facts(shown: RenderingChoice, meta: Meta | None) -> list[Written]:
    """How deep files are shown from now on: as is asked for, else as before; of a former version's, as in a new one."""
    before = meta.display_range if meta and Meta.display_range in meta else BY_COLLECTION
    channels = meta.channels if meta and shown.channels is None else shown.channels or ()
    plane = meta.plane if meta and shown.plane is None else shown.plane or ""
    told = [Meta.display_range.to(shown.range or before)]
    if channels or (meta and meta.channels):
        told.append(Meta.channels.to(channels))
    if plane or (meta and meta.plane):
        told.append(Meta.plane.to(plane))
    return told


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


def _copied(folder: Path, sha256: str | None) -> Encoder | None:
    """The encoder of which a folder has a copy: that of this SHA-256, or the only one if it isn't known."""
    copies = [_copy(folder, sha256)] if sha256 else sorted(folder.glob(_COPIES))
    for copy in copies if len(copies) == 1 else ():
        with contextlib.suppress(MasslError):
            return Encoder.load(copy, sha256=sha256)
    return None


def _origin(encoder: Encoder) -> list[Written]:
    """Where an encoder's file lay, from which a damaged copy can be made anew."""
    path = os.path.realpath(encoder.path)
    size = str(os.path.getsize(path))
    try:
        path.encode()
    except UnicodeEncodeError:
        path = ""
    return [Meta.encoder_path.to(path), Meta.encoder_bytes.to(size)]


def _may_be(path: Path, size: str | None) -> bool:
    """Whether a file can be the encoder, before anything of it is read: the catalog names it, and may be anybody's."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(found.st_mode) and (size is None or str(found.st_size) == size)


def _keep(encoder: Encoder, folder: Path) -> Path:
    """Puts a copy of an encoder into a collection's folder.

    Raises:
        EncoderDamaged: the encoder's file is no longer what was loaded.
        OSError: it can't be read or written.
    """
    copy = _copy(folder, encoder.sha256)
    data = encoder.path.read_bytes()
    if hashlib.sha256(data).hexdigest() != encoder.sha256:
        raise EncoderDamaged(f"{encoder.path} has changed since it was read; run it again")
    with whole(copy) as written:
        written.write_bytes(data)
    return copy
