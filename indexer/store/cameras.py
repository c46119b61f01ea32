"""The cameras that took the images of a catalog."""

from __future__ import annotations

from collections.abc import Iterable

from indexer.store.catalog import READY, Catalog
from massl.core.errors import MasslError

# A camera's name in `file_metadata`, as `massl.core.images.metadata.Metadata.camera` has it.
CAMERA = "CASE WHEN lower(substr(model, 1, length(make))) = lower(make) THEN model ELSE trim(make || ' ' || model) END"
_NAMED = 30  # that a message lists


def counts(catalog: Catalog) -> dict[str, int]:
    """How many searchable images each camera took, by its name."""
    return dict(
        catalog.read(
            f"SELECT {CAMERA} AS camera, count(*) FROM images JOIN file_metadata ON file_metadata.image = images.id "
            f"WHERE {READY} AND camera <> '' GROUP BY camera ORDER BY camera"
        )
    )


def meant(catalog: Catalog, text: str) -> tuple[str, ...]:
    """The cameras that a person means by a name, or by a part of one, in capitals or not.

    Raises:
        MasslError: there is none.
    """
    known, wanted = counts(catalog), text.strip().casefold()
    exact = [name for name in known if name.casefold() == wanted]
    found = exact or [name for name in known if wanted in name.casefold()]
    if not found or not wanted:
        raise unknown(text, known)
    return tuple(found)


def unknown(text: str, known: Iterable[str]) -> MasslError:
    """Why no picture is by a camera."""
    names = list(known)
    told = f"the cameras are: {', '.join(names[:_NAMED])}" if names else "no picture says which camera took it"
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return MasslError(f"no picture is by a camera {text[:40]!r}; {told}{more}")
