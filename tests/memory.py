"""Memory as if there were little of it."""

from __future__ import annotations

import pytest

from massl.core.memory_budget import ALWAYS, BUDGET, MemoryBudget


def little_memory(patch: pytest.MonkeyPatch) -> None:
    """Pictures are granted what they are always granted, and no more."""
    for name, value in vars(MemoryBudget(lambda: ALWAYS)).items():
        patch.setattr(BUDGET, name, value)
