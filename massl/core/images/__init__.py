"""Image files: which formats there are, what decoding costs, and pixels as upright 8-bit sRGB.

from massl.core.images import open_image

open_image(Path("photo.heic"))  # a picture of Pillow's
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from massl.core.images.decoding import open_image as open_image


def __getattr__(name: str) -> Any:
    """Loads what decodes when it is asked for: who looks at file names alone need not wait for it."""
    if name == "open_image":
        from massl.core.images.decoding import open_image

        return open_image
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
