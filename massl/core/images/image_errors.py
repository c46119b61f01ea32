"""Why a file can't be used as an image."""

from __future__ import annotations

from massl.core.errors import MasslError


class ImageError(MasslError):
    """A file that can't be used as an image. The message is the reason, short enough for a table.

    `lasting` says whether the reason lies in the file's content, and so holds until that changes.
    """

    def __init__(self, reason: str, lasting: bool = True) -> None:
        super().__init__(reason)
        self.lasting = lasting


class Truncated(ImageError):
    """A file that ends before its image does."""


class TooLarge(ImageError):
    """More pixels than the caller allows, or more that decoding takes."""
