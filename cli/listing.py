"""The pictures that pass filters, in an order, printed: `massl search` without a query."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from indexer import Collection
    from indexer.store.ordering import Placed


def print_listing(
    collection: Collection,
    order: str,
    wanted: Mapping[str, Any],
    count: int | None,
    *,
    absolute: bool,
    as_json: bool,
    end: str | None,
    quiet: bool,
) -> None:
    """Lists pictures.

    Args:
        collection: of the pictures.
        order: one of `indexer.store.ordering.ORDERS`.
        wanted: filters, by the names that `FolderImages.filter` has.
        count: how many; None for all.
        absolute: whether paths are absolute.
        as_json: whether to print the JSON of a search.
        end: what follows each path where paths alone are printed; else None.
        quiet: whether nothing else is said.

    Raises:
        MasslError: a filter that none passes.
    """
    from cli.terminal import print_json, print_line, say
    from indexer.json_results import of_listing
    from massl.core.errors import MasslError
    from massl.core.printable import visible

    started = time.perf_counter()
    passing = collection.images.filter(**wanted)
    listed = collection.images.ordered(order, passing, -1 if count is None else count)
    if absolute:
        listed = [replace(each, path=str(collection.root.absolute() / each.path)) for each in listed]
    if end is not None and not as_json:
        for each in listed:
            print_line(each.path, end)
        return
    described = of_listing(collection, listed, started)
    if as_json:
        print_json(described)
        return
    if not listed:
        raise MasslError("nothing to list: no image passes the filters" if passing else "the index is empty")
    wide = len(str(len(listed)))
    for each, row in zip(listed, described["results"], strict=True):
        named = f"  [{visible(row['label'])}]" if row["label"] else ""
        print_line(f"{row['rank']:>{wide}}  {_value(order, each)}{visible(each.path)}{named}")
    pass_by = f"{collection.images.count(passing):,} that pass, of " if passing else ""
    say(f"{len(listed):,} of {pass_by}{len(collection):,} images", quiet)


def _value(order: str, placed: Placed) -> str:
    from indexer.store.ordering import TIMES
    from massl.core.printable import visible

    value = placed.value
    if order == "folder":
        return ""
    if order in TIMES:
        return f"{str(value or '-')[:10]:<10}  "
    if order == "tag":
        return f"{visible(str(value)) if value is not None else '-':<16}  "
    number = "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
    return f"{number:>12}  "
