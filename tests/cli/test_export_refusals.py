"""What `massl export` refuses in one line, before it writes anything."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file


@pytest.mark.parametrize("size", ["2064", "1000000000", "32,1000000000"])
def test_a_size_that_no_encoder_file_may_take_is_wrong_usage(massl, size: str, tmp_path: Path) -> None:
    done = massl("export", "builtin", "--image-size", size, "-o", tmp_path / "out.onnx")
    assert done.code == 2
    assert "at most 2,048 pixels" in done.error


def test_more_sizes_than_an_encoder_file_may_list_are_wrong_usage(massl, tmp_path: Path) -> None:
    sizes = ",".join(map(str, range(16, 49)))
    done = massl("export", "builtin", "--image-size", sizes, "-o", tmp_path / "out.onnx")
    assert done.code == 2
    assert "takes at most 32 sizes, not 33" in done.error


def test_an_encoder_file_of_someone_else_is_no_weights(massl, tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").touch()
    done = massl("export", tmp_path / "empty.onnx", "-o", tmp_path / "out.onnx")
    assert done.code == 1
    assert "was not written by massl export, so it can't be read as weights" in done.error


@pytest.mark.parametrize("factor", [0.0, 1e30], ids=["all zero", "overflowing"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_weights_that_give_no_embedding_are_not_written_out(
    massl, factor: float, precision: str, tmp_path: Path
) -> None:
    backbone = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    weights: dict[str, torch.Tensor] = {name: tensor * factor for name, tensor in backbone.state_dict().items()}
    save_file(weights, tmp_path / "weights.safetensors")
    out = tmp_path / "out.onnx"
    done = massl("export", tmp_path / "weights.safetensors", "--image-size", "32", "--precision", precision, "-o", out)
    assert done.code == 1
    assert "give no embedding" in done.error
    assert not out.exists()
