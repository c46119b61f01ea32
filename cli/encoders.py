"""What is measured by `massl eval`: an encoder's file, a run, the built-in encoder, or a table of embeddings."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cli.terminal import ProgressLine
from indexer.encoder.onnx_encoder import Encoder
from indexer.encoder.runtimes import Wanted
from indexer.ingest.labelled_images import Embedded, LabelledFiles, Table, embed, embed_paths, read_table
from massl.core.errors import MasslError
from massl.core.files.run_folder import is_run
from massl.core.files.scan import Skipped
from massl.core.images.decoding import ImageError, open_image, within_memory

if TYPE_CHECKING:
    from massl.evaluation.revisited import GroundTruth

BUILTIN = "builtin"


@dataclass(frozen=True)
class Judge:
    """An encoder or a table under the name that it is shown by; `runtime` is what embeds many pictures."""

    name: str
    source: Encoder | Table
    runtime: Wanted = "auto"

    @property
    def described(self) -> dict[str, Any]:
        """For the JSON."""
        return {"name": self.name, "sha256": self.source.sha256, "dim": self.source.dim}

    def encoder(self, count: int, why: str) -> Encoder:
        """The encoder, to embed so many pictures; a `MasslError` where it is a table."""
        if isinstance(self.source, Table):
            raise MasslError(f"{self.name} is a table of embeddings, and {why}; give an encoder")
        return self.source.for_many(count, self.runtime)

    def embed(self, files: LabelledFiles, quiet: bool) -> Embedded:
        """Labelled images to embeddings."""
        if isinstance(self.source, Table):
            return self.source.find(files)
        with ProgressLine(f"Embedding {files.name} with {self.name}", "images", quiet) as line:
            return embed(files, self.source.for_many(len(files.paths), self.runtime), line.update)

    def embed_paths(
        self, root: Path, paths: Sequence[str], quiet: bool
    ) -> tuple[NDArray[np.float32], list[int], tuple[Skipped, ...]]:
        """Images without labels to embeddings: see `indexer.ingest.labelled_images.embed_paths`."""
        encoder = self.encoder(len(paths), "this needs the pictures")
        with ProgressLine(f"Embedding with {self.name}", "images", quiet) as line:
            return embed_paths(root, paths, encoder, line.update)

    def embed_landmarks(
        self, folder: Path, truth: GroundTruth, quiet: bool
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The images of Revisited Oxford or Paris, and its queries cropped to their box.

        Raises:
            MasslError: an image is missing or can't be read.
        """
        encoder = self.encoder(len(truth.queries), "the queries are parts of pictures")
        where = folder / "jpg" if (folder / "jpg").is_dir() else folder
        images, _, skipped = self.embed_paths(where, [f"{name}.jpg" for name in truth.images], quiet)
        if skipped:
            raise MasslError(f"{where}: {skipped[0].path!r}, which the ground truth names: {skipped[0].reason}")
        pixels = []
        for name, query in zip(truth.query_images, truth.queries, strict=True):
            try:
                with within_memory():
                    picture = open_image(where / f"{name}.jpg")
                    pixels.append(encoder.prepare(picture.crop(_within(query.box, picture.size))))
            except ImageError as error:
                raise MasslError(f"{where}: query {name!r}: {error}") from None
        return images, np.concatenate([encoder.embed(pixels[row : row + 32]) for row in range(0, len(pixels), 32)])


def _within(box: tuple[float, float, float, float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """A box in whole pixels, cut to the picture, at least one pixel large."""
    width, height = size
    left, top, right, bottom = (round(value) for value in box)
    left, top = min(max(left, 0), width - 1), min(max(top, 0), height - 1)
    return left, top, min(max(right, left + 1), width), min(max(bottom, top + 1), height)


@contextmanager
def load_judges(named: Sequence[str], data: Sequence[Path], runtime: Wanted = "auto") -> Iterator[list[Judge]]:
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
    with tempfile.TemporaryDirectory(prefix="massl-eval-") as scratch:
        judges = [_load(name, Path(scratch) / f"{place}.onnx") for place, name in enumerate(named or [BUILTIN])]
        names = [judge.name for judge in judges]
        yield [
            replace(judge, runtime=runtime, name=name if names.count(name) == 1 else f"{name} ({given})")
            for judge, name, given in zip(judges, names, named or [BUILTIN], strict=True)
        ]


def _load(named: str, scratch: Path) -> Judge:
    if named == BUILTIN:
        encoder = Encoder.load()
        return Judge(encoder.name, encoder)
    path = Path(named)
    if path.suffix.lower() == ".npz":
        table = read_table(path)
        return Judge(table.name, table)
    if path.is_dir():
        path = _of_run(path, scratch)
    encoder = Encoder.load(path)
    return Judge(encoder.name, encoder)


def _of_run(run: Path, scratch: Path) -> Path:
    """The encoder of a run: the one it wrote, else one made of its newest checkpoint."""
    if (run / "encoder.onnx").is_file():
        return run / "encoder.onnx"
    if not is_run(run):
        raise MasslError(f"{run} is a folder, and no run; give an encoder.onnx or the folder of a run")
    try:
        from massl.encoder.export import export
    except ImportError as error:
        raise MasslError(
            f"{run} has no encoder.onnx yet, and making one needs more packages ({error.name}); "
            "run: pip install 'massl[train]'"
        ) from None
    export(str(run), scratch, name=run.resolve().name)
    return scratch
