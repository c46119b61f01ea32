"""What `--encoder` names, opened for `massl eval`: a file, a run, the built-in encoder, or a table of embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from indexer.encoder.onnx_encoder import Encoder
from indexer.encoder.runtimes import Wanted
from indexer.ingest.embedding import FileEmbedder
from massl.core.errors import MasslError
from massl.core.files.run_folder import is_run
from massl.core.files.temporary_folders import TemporaryFolder
from massl.evaluation.datasets import read_table
from massl.evaluation.encoders import EncoderUnderTest

BUILTIN = "builtin"


@contextmanager
def load_encoders(
    named: Sequence[str], data: Sequence[Path], runtime: Wanted = "auto"
) -> Iterator[list[EncoderUnderTest]]:
    """What `named` names, in that order, or the built-in encoder; nothing where all of `data` are tables themselves.

    Encoders embed many pictures by `runtime`.

    A run without an `encoder.onnx` (one that is still going, or was stopped) is exported from its newest checkpoint
    to a temporary file, for as long as the context lasts.

    Raises:
        MasslError: one of them can't be used.
    """
    if data and all(path.suffix.lower() == ".npz" for path in data):
        yield []
        return
    with TemporaryFolder("eval") as scratch:
        encoders = [
            _load(name, Path(scratch) / f"{place}.onnx", runtime) for place, name in enumerate(named or [BUILTIN])
        ]
        names = [encoder.name for encoder in encoders]
        yield [
            replace(encoder, name=name if names.count(name) == 1 else f"{name} ({given})")
            for encoder, name, given in zip(encoders, names, named or [BUILTIN], strict=True)
        ]


def _load(named: str, scratch: Path, runtime: Wanted) -> EncoderUnderTest:
    if named == BUILTIN:
        encoder = Encoder.load()
        return EncoderUnderTest(encoder.name, FileEmbedder(encoder, runtime))
    path = Path(named)
    if path.suffix.lower() == ".npz":
        table = read_table(path)
        return EncoderUnderTest(table.name, table)
    if path.is_dir():
        path = _of_run(path, scratch)
    encoder = Encoder.load(path)
    return EncoderUnderTest(encoder.name, FileEmbedder(encoder, runtime))


def _of_run(run: Path, scratch: Path) -> Path:
    """The encoder of a run: the one it wrote, else one made of its newest checkpoint."""
    if (run / "encoder.onnx").is_file():
        return run / "encoder.onnx"
    if not is_run(run):
        raise MasslError(f"{run} is a folder but not a run; give an encoder.onnx or the folder of a run")
    try:
        from massl.encoder.export import export
    except ImportError as error:
        raise MasslError(
            f"{run} has no encoder.onnx yet, and exporting one needs more packages ({error.name}); "
            "run: pip install 'massl[train]'"
        ) from None
    export(str(run), scratch, name=run.resolve().name)
    return scratch
