"""Built-in encoders of earlier versions: collections keep the one that they were made with."""

from __future__ import annotations

from indexer.encoder.encoder_file import BUILTIN

# SHA-256 of each file that was built in before. Whoever builds in another adds the one that it replaces.
FORMER = frozenset(
    {
        "699c439dcbaf2506c79ae56524a272b9b987b21347fd59d071be4bd43a4a5e16",  # massl-builtin-1
        "843b1564ce46702835f3e5ee8bccd0e076866e147829b7227c2735be47d6cd04",  # massl-builtin-1, written again
        "3aec9665e5efd72a12feb72b1cdf4b2c3d0adac3e7faab0b9caff03d4157a37f",  # massl-builtin-2
        "4fdbc79972751579057447f37058a95e7025d7337f51df482f6019fd52b832d7",  # massl-builtin-3
        "1196b1fa7a604d2e7eb0d015361f8a6fa946dfeb0fd4081d6e47774cede8b893",  # massl-builtin-4
        "4b293f8f53c318917658f3e0ce366e863b54936183b6b531bd78feaa7ac2ea99",  # massl-builtin-5
    }
)
_NAMES = "massl-builtin"


def is_former_builtin(sha256: str, name: str) -> bool:
    """Whether an encoder, by its SHA-256 and its name, is a built-in one, but not that of this version."""
    return sha256 != BUILTIN and (sha256 in FORMER or name.startswith(_NAMES))
