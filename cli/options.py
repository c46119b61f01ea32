"""Arguments and options that several commands share."""

from __future__ import annotations

import importlib.util
import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.configuration import Harmless

if TYPE_CHECKING:
    from indexer import Collection

HELP_FLAGS = {"help_option_names": ["-h", "--help"]}

ImagesArgument = Annotated[Path, typer.Argument(metavar="IMAGES", help="The folder of images.", show_default=False)]
IndexDir = Annotated[
    Path | None,
    typer.Option("--index-dir", envvar="MASSL_INDEX_DIR", help="The folder of the index. Default: IMAGES/.massl."),
]
OnlyPaths = Annotated[bool, typer.Option("--paths", help="Print only paths, one per line.")]
NulPaths = Annotated[bool, typer.Option("-0", help="Print only paths, each followed by NUL, for xargs -0.")]


def folder_of(text: str, root: Path) -> str:
    """A folder below IMAGES as the collection knows it, given so or as a path on this machine."""
    if (not os.path.isabs(text) and (root / text).is_dir()) or not Path(text).is_dir():
        return Path(text).as_posix()
    return Path(below(root, text) or text).as_posix()  # it may lie elsewhere, which is then said of it


def below(root: Path, path: str) -> str | None:
    """A path on this machine as one relative to IMAGES, or None where it lies elsewhere.

    With links followed, but not that of a linked file; where these lead elsewhere as it is written, since what a linked
    folder holds is indexed under the link.
    """
    from indexer.store.paths import can_name_a_file

    if not can_name_a_file(path):
        return None
    folder, name = os.path.split(str(Path(path)))
    followed = os.path.realpath(path) if os.path.isdir(path) else os.path.join(os.path.realpath(folder or "."), name)
    for here, top in ((followed, os.path.realpath(root)), (os.path.abspath(path), os.path.abspath(root))):
        try:
            found = os.path.relpath(here, top)
        except ValueError:  # on another drive
            continue
        if found != os.pardir and not found.startswith(os.pardir + os.sep):
            return found
    return None


def on_command_line(context: typer.Context, *names: str) -> bool:
    """Whether one of these parameters was given there, and not by a variable or the configuration file."""
    sources = (context.get_parameter_source(name) for name in names)
    return any(source is not None and source.name == "COMMANDLINE" for source in sources)


def open_embedded(images: Path, index_dir: Path | None, quiet: bool) -> Collection:
    """An index to ask for what embeddings tell; where a rebuild has not come to its end, that is said.

    Raises:
        MasslError: as `Collection.open`, or no image is embedded.
    """
    from cli.terminal import say
    from indexer import Collection
    from indexer.storage.index_command import index_command
    from massl.core.errors import MasslError

    collection = Collection.open(images, index_dir)
    count, left = len(collection), collection.images.unembedded()
    command = index_command(images, collection.folder)
    if count and left == count:
        raise MasslError(f"no image of {images} is embedded by its new encoder yet; go on with: {command}")
    if left:
        say(
            f"only {count - left:,} of {count:,} images are embedded by the new encoder yet; go on with: {command}",
            quiet,
        )
    return collection


def or_builtin(source: str) -> str:
    """What the user named; `builtin` is a file of the package."""
    if source != "builtin":
        return source
    from indexer.encoder.encoder_file import builtin_encoder, check_builtin

    check_builtin()
    return str(builtin_encoder())


def _file(encoder: Path | None) -> Path | None:
    """The file that is meant: a run's folder stands for the encoder that it wrote."""
    from massl.core.errors import MasslError
    from massl.core.files.run_folder import is_run

    if encoder is None or not is_run(encoder):
        return encoder and Path(or_builtin(str(encoder)))
    if not (encoder / "encoder.onnx").is_file():
        raise MasslError(f"{encoder} has no encoder.onnx; make one: massl export {encoder} -o {encoder}/encoder.onnx")
    return encoder / "encoder.onnx"


EncoderFile = Annotated[
    Path | None,
    typer.Option(
        "--encoder",
        envvar="MASSL_ENCODER",
        callback=_file,
        help="An encoder.onnx, a run that wrote one, or `builtin`, the default of a new index.",
    ),
]


class RuntimeName(StrEnum):
    """What embeds many pictures, see `indexer.encoder.runtimes`."""

    auto = "auto"
    onnxruntime = "onnxruntime"
    openvino = "openvino"


def _installed(runtime: RuntimeName) -> RuntimeName:
    if runtime is RuntimeName.openvino and importlib.util.find_spec("openvino") is None:
        raise typer.BadParameter("OpenVINO is not installed; run: pip install 'massl[openvino]'")
    return runtime


RuntimeOption = Annotated[
    RuntimeName,
    typer.Option(
        "--runtime",
        envvar="MASSL_RUNTIME",
        callback=_installed,
        help="Runtime that embeds many pictures on a CPU. auto takes OpenVINO if it is installed and faster; see "
        "massl doctor.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object."), Harmless()]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress and no summary.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print details, and a traceback on errors."), Harmless()]
