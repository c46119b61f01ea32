"""What all reports share: one HTML file, pictures included, that asks nothing of the network."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from PIL import Image

from massl.core.disk_errors import cannot_write
from massl.core.files.atomic_writing import write
from massl.core.images.decoding import within_memory
from massl.core.images.image_errors import ImageError

SIDE = 96  # pixels of a picture


@dataclass(frozen=True)
class ReportPicture:
    """A picture, `path` when pointed at, with a line below; `kind` says how it is framed."""

    kind: str
    path: str
    caption: str
    jpeg: str = ""  # in base64
    reason: str = ""  # why it can't be shown


def shown(kind: str, opened: Callable[[], Image.Image], path: str, caption: str) -> ReportPicture:
    """What `opened` gives, as small as a report shows it; where it raises an `ImageError`, the reason instead."""
    try:
        with within_memory():
            picture = opened()
            picture.thumbnail((SIDE, SIDE))
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=80)
        return ReportPicture(kind, path, caption, jpeg=base64.b64encode(file.getvalue()).decode())
    except ImageError as error:
        return ReportPicture(kind, path, caption, reason=str(error))


def write_page(path: Path, package: str, template: str, **given: Any) -> None:
    """Renders a template of `package` and writes the page, replacing the file only once all of it is there.

    Raises:
        MasslError: it can't be written.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package, "."), PackageLoader("massl.evaluation", ".")]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    text = environment.get_template(template).render(number="{:,}".format, **given)
    try:
        # Names of files may hold bytes that are no text.
        write(path, text.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise cannot_write(path, error, "name another file") from None
