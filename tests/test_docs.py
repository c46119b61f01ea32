"""The documentation's examples run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"


def test_the_library_s_examples_run(photos: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "library.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 4
    names = {"photos": photos}
    for block in blocks:
        exec(compile(block, "docs/library.md", "exec"), names)
    assert names["report"].indexed == 24
    assert names["ids"].shape == (1, 10)
