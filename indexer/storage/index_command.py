"""The commands that help: what errors, advice and the page tell a person to run."""

from __future__ import annotations

import shlex
from pathlib import Path

from massl.core.images.rendering import AS_BEFORE, RenderingChoice


def index_command(
    root: Path,
    folder: Path,
    encoder: Path | str | None = None,
    rebuild: bool = True,
    image_size: int | None = None,
    shown: RenderingChoice = AS_BEFORE,
    tiles: str | None = None,
) -> str:
    """The command that brings a collection up to date, or gives it another encoder, size or range.

    Args:
        root: where its images are.
        folder: where its index is.
        encoder: the file of the other encoder, or `builtin`.
        rebuild: everything is to be embedded anew with that encoder, or at that size.
        image_size: the other input side of the encoder in pixels.
        shown: how deep files are to be shown.
        tiles: another size of tiles, as `--tiles` takes it.
    """
    command = _command("index", root, folder)
    if encoder is not None:
        command += f" --encoder {shlex.quote(str(encoder))}"
    if image_size is not None:
        command += f" --image-size {image_size}"
    if tiles is not None:
        command += f" --tiles {tiles}"
    if options := shown.options():
        command += f" {options}"
    other = encoder is not None or image_size is not None or tiles is not None
    if rebuild and (other or options):
        command += " --rebuild"
    return command


def apply_command(root: Path, folder: Path, plan: str) -> str:
    """The command that puts what a plan of duplicates removes into the trash.

    Args:
        root: where its images are.
        folder: where its index is.
        plan: the plan's file.
    """
    return f"{_command('dupes', root, folder)} --apply {shlex.quote(plan)} --by trash"


def _command(name: str, root: Path, folder: Path) -> str:
    command = f"massl {name} {shlex.quote(str(root))}"
    return command if folder == root / ".massl" else f"{command} --index-dir {shlex.quote(str(folder))}"
