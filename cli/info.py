"""`massl info`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cli.options import IndexDir, Json, Quiet, Verbose, or_builtin


def command(
    thing: Annotated[Path, typer.Argument(metavar="THING", help="An encoder, `builtin`, an indexed folder, or a run.")],
    index_dir: IndexDir = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Say what an encoder, a collection or a run is.

    Examples: massl info builtin · massl info encoder.onnx · massl info ./photos · massl info runs/photos
    """
    from cli.terminal import print_json, print_line

    described = _describe(thing, index_dir)
    if as_json:
        print_json(described)
        return
    for key, value in described.items():
        if key == "skipped":
            print_line(f"skipped: {len(value):,} files")
            for item in value:
                print_line(f"  {item['path']!r}: {item['reason']}")
        elif isinstance(value, list):
            print_line(f"{key}: {', '.join(map(repr, value)) or 'nothing'}")
        elif isinstance(value, dict):
            print_line(f"{key}:")
            for name, inner in value.items():
                print_line(f"  {name}: {inner}")
        else:
            print_line(f"{key}: {value}")


def _describe(thing: Path, index_dir: Path | None) -> dict[str, Any]:
    from massl.errors import MasslError

    if (thing / "config.toml").exists():
        from massl.run import describe_run

        return describe_run(thing)
    if thing.is_dir() or index_dir:
        from indexer import Collection

        return Collection.open(thing, index_dir).info()
    thing = Path(or_builtin(str(thing)))
    if not thing.exists():
        raise MasslError(f"{thing}: there is no such file or folder")
    from indexer import Encoder

    encoder = Encoder.load(thing)
    return {
        "kind": "encoder",
        "path": str(thing),
        "name": encoder.name,
        "sha256": encoder.sha256,
        "dim": encoder.dim,
        "image_size": encoder.image_size,
        "patches": encoder.has_patches,
        "bytes": thing.stat().st_size,
        "metadata": dict(encoder.metadata),
    }
