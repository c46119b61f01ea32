"""Which image of a collection a path in a table means."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from indexer.store.images import Images
from massl.core.errors import MasslError
from massl.core.files.path_notation import common_form, not_utf8, several


class TablePaths:
    """Finds images by paths as tables have them; see `massl.core.files.path_notation`.

    Args:
        root: the collection's folder.
        images: those of it.
        exactly: gives an image's id by a path as it stands; raises `MasslError` for none.
    """

    def __init__(self, root: Path, images: Images, exactly: Callable[[str], int]) -> None:
        self._images = images
        self._exactly = exactly
        self._roots = {common_form(os.fspath(place)) for place in (os.path.abspath(root), os.path.realpath(root))}

    def image(self, path: str) -> int:
        """The id of the image that a path means: the one called so, or else the only one that it could mean.

        Raises:
            MasslError: there is none, or there are several.
        """
        try:
            return self._exactly(path)
        except MasslError as error:
            wanted = common_form(path)
            inside = [wanted.removeprefix(f"{root}/") for root in self._roots if wanted.startswith(f"{root}/")]
            found = self._by_form.get(inside[0] if inside else wanted, [])
            if len(found) == 1:
                return found[0][0]
            if found:
                raise several(path, sorted(name for _, name in found)) from None
            if not_utf8(path):
                raise MasslError("the path is not written in UTF-8; save the file as CSV in UTF-8") from None
            raise error from None

    @cached_property
    def _by_form(self) -> dict[str, list[tuple[int, str]]]:
        forms: dict[str, list[tuple[int, str]]] = defaultdict(list)
        for image, name in self._images.ready():
            forms[common_form(name)].append((image, name))
        return dict(forms)
