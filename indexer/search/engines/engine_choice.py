"""Which engine a collection is searched with: the one that its catalog names, found by the module's name.

`indexer/search/engines/NAME_engine.py` is the engine NAME. It has a function `engine(address: str) -> Engine`.
"""

from __future__ import annotations

import importlib
import logging
import pkgutil
import threading
from pathlib import Path

from indexer.search.engines import trusted_addresses
from indexer.search.engines.catalog_scan import NoEngine
from indexer.search.engines.interface import CurrentIndex, Engine, Measured, OpenedEngine, Preparing
from indexer.search.engines.subjects import IMAGES, TILES, Subject
from indexer.store.catalog import Catalog
from indexer.store.meta import Meta
from massl.core.errors import MasslError
from massl.core.printable import visible

DEFAULT = "faiss"
_ENDING = "_engine"
_LOG = logging.getLogger(__name__)


def names() -> list[str]:
    """The engines that there are, the usual one first."""
    modules = (module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]))
    found = sorted(name.removesuffix(_ENDING) for name in modules if name.endswith(_ENDING))
    return sorted(found, key=lambda name: name != DEFAULT)


def named(name: str, address: str = "") -> Engine:
    """The engine of that name, at that address.

    Raises:
        MasslError: there is none of that name, a package is missing, or the address is none that it takes.
    """
    if name not in names():
        raise MasslError(f"there is no search engine {visible(name[:40])!r}; there are {', '.join(names())}")
    engine: Engine = importlib.import_module(f"{__package__}.{name}{_ENDING}").engine(address)
    return engine


def use(catalog: Catalog, folder: Path, name: str, address: str = "") -> None:
    """Has a collection searched with another engine from now on; somebody who may decide that has asked for it.

    Raises:
        MasslError: see `named`; or the engine can't be reached, or nothing can be written.
    """
    meta = catalog.meta()
    wanted = named(name, address)
    wanted.check()
    if address:
        trusted_addresses.trust(address)
    if (meta.engine or DEFAULT, meta.engine_address) == (name, address):
        return
    for subject in (IMAGES, TILES):
        ChosenEngine(catalog, folder, subject).forget()
    forgotten = [subject.log.own.to("") for subject in (IMAGES, TILES)]
    catalog.set_meta(Meta.engine.to(name), Meta.engine_address.to(address), *forgotten)


class Chosen:
    """The `Engine` that each collection's catalog names: what a collection is searched with unless told otherwise."""

    def check(self) -> None:
        """See `Engine.check`."""

    def open(self, catalog: Catalog, folder: Path, subject: Subject = IMAGES) -> ChosenEngine:
        """See `Engine.open`."""
        return ChosenEngine(catalog, folder, subject)


class ChosenEngine:
    """The engine that a catalog names, also when another process has it name another one. An `OpenedEngine`."""

    def __init__(self, catalog: Catalog, folder: Path, subject: Subject = IMAGES) -> None:
        self._catalog = catalog
        self._folder = folder
        self._subject = subject
        self._lock = threading.Lock()
        self._opened: tuple[tuple[str, str], OpenedEngine] | None = None

    def _now(self) -> OpenedEngine:
        meta = self._catalog.meta()
        wanted = meta.engine or DEFAULT, meta.engine_address
        with self._lock:
            if self._opened is None or self._opened[0] != wanted:
                self._opened = wanted, self._open(*wanted)
            return self._opened[1]

    def _open(self, name: str, address: str) -> OpenedEngine:
        """The engine; where it can't be used, the catalog is searched, and it is said why."""
        try:
            if address and not trusted_addresses.is_trusted(address):
                raise MasslError(
                    f"the index names a search engine at {visible(address[:200])}, which may be somebody else's "
                    f"choice: it is not asked; to allow it, run: massl index IMAGES --engine {visible(name[:20])} "
                    "--engine-uri, and that address"
                )
            return named(name, address).open(self._catalog, self._folder, self._subject)
        except MasslError as error:
            _LOG.warning("%s", error)
            return NoEngine(self._catalog, self._folder, str(error), self._subject)

    def get(self, preparing: Preparing, tidy: bool = False) -> CurrentIndex:
        """See `OpenedEngine.get`."""
        return self._now().get(preparing, tidy)

    def is_current(self) -> bool:
        """See `OpenedEngine.is_current`."""
        return self._now().is_current()

    def measured(self) -> Measured | None:
        """See `OpenedEngine.measured`."""
        return self._now().measured()

    def how(self) -> str:
        """See `OpenedEngine.how`."""
        return self._now().how()

    def forget(self) -> None:
        """See `OpenedEngine.forget`."""
        self._now().forget()


CHOSEN = Chosen()
