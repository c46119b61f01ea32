"""Files of a run of which a bit has flipped."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch

from massl.core.errors import MasslError
from massl.core.files.onnx_digest import sealed
from massl.encoder import checkpoint, weights
from tests.indexer.tiny import write_encoder


def test_a_flipped_bit_in_a_checkpoint_is_noticed(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 1, {"weights": torch.ones(10_000)}, keep=2)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(MasslError, match="is damaged"):
        checkpoint.load(path)
    checkpoint.save(tmp_path, 2, {"weights": torch.zeros(4)}, keep=2)
    path.rename(tmp_path / "step-00000003.pt")
    state, said = checkpoint.latest_sound(tmp_path)
    assert state["weights"].shape == (4,)
    assert len(said) == 1


def test_a_flipped_bit_in_an_encoder_that_training_begins_with_is_noticed(tmp_path: Path) -> None:
    path = write_encoder(tmp_path / "encoder.onnx")
    data = bytearray(sealed(onnx.load(path)))
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(MasslError, match="is damaged: its content has changed"):
        weights.read(str(path))
