"""The house: which room may import what, asserted in fresh processes."""

from __future__ import annotations

import subprocess
import sys

import pytest

# DESIGN's table, last column, and what must stay light.
FORBIDDEN = {
    "massl": ("indexer", "app", "cli", "torch", "timm"),
    "massl.core.images.decoding": ("indexer", "app", "cli", "torch", "timm"),
    "massl.core.files.scan": ("indexer", "app", "cli", "torch", "timm", "numpy", "PIL"),
    "massl.training.loop": ("indexer", "app", "cli"),
    "massl.encoder.export": ("indexer", "app", "cli"),
    "indexer": ("torch", "timm", "gradio", "openvino", "app", "cli"),
    "app": ("torch", "openvino", "cli"),
    "app.server": ("torch", "cli"),
    "app.page": ("torch", "cli"),
    "cli.commands": ("torch", "timm", "gradio", "faiss", "onnxruntime", "sklearn", "numpy", "PIL"),
}


@pytest.mark.parametrize("room", FORBIDDEN)
def test_a_room_imports_only_what_it_may(room: str) -> None:
    code = f"import sys, {room}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert room.split(".")[0] in loaded
    assert not set(FORBIDDEN[room]) & set(loaded)
