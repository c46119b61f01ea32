"""Files of weights as they come: whole, cut short, of other kinds, with code in them."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from functools import cache
from io import BytesIO
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from massl.core.errors import MasslError
from massl.encoder.weight_files import read_weights

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)}


@cache
def written(kind: str) -> bytes:
    if kind == "safetensors":
        return save(TENSORS, {"source": "a trial"})
    file = BytesIO()
    torch.save(TENSORS, file, _use_new_zipfile_serialization=kind == "zip")
    return file.getvalue()


@pytest.mark.parametrize(
    ("kind", "name"),
    [("safetensors", "model.safetensors"), ("safetensors", "w.bin"), ("zip", "w.pth"), ("legacy", "w.pt")],
)
def test_files_are_read_by_what_they_hold(tmp_path: Path, kind: str, name: str) -> None:
    (tmp_path / name).write_bytes(written(kind))
    file = read_weights(tmp_path / name)
    assert file.state.keys() == TENSORS.keys()
    assert all(torch.equal(file.state[key], tensor) for key, tensor in TENSORS.items())
    assert file.notes == ({"source": "a trial"} if kind == "safetensors" else {})
    if kind == "zip":
        (tmp_path / name).rename(tmp_path / "w.safetensors")
        with pytest.raises(MasslError, match="is a PyTorch file; rename it"):
            read_weights(tmp_path / "w.safetensors")


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(["safetensors", "zip", "legacy"]), share=st.floats(0, 0.999))
def test_a_file_cut_short_anywhere_says_what_to_do(
    tmp_path_factory: pytest.TempPathFactory, kind: str, share: float
) -> None:
    path = tmp_path_factory.getbasetemp() / "cut.pth"
    path.write_bytes(written(kind)[: int(share * len(written(kind)))])
    with pytest.raises(MasslError, match=r"fetch it again|give a \.pth or a \.safetensors|more than tensors"):
        read_weights(path)


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(["safetensors", "zip", "legacy"]), share=st.floats(0, 0.999), byte=st.integers(0, 255))
def test_a_changed_byte_is_harmless_or_one_clear_line(
    tmp_path_factory: pytest.TempPathFactory, kind: str, share: float, byte: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "changed.pth"
    data = bytearray(written(kind))
    data[int(share * len(data))] = byte
    path.write_bytes(data)
    try:
        read_weights(path)
    except MasslError as error:
        assert "\n" not in str(error)


class Runs:
    """What a pickle can do to whoever loads it."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("way", ["zip", "legacy", "plain pickle"])
def test_nothing_in_a_file_is_run(tmp_path: Path, way: str) -> None:
    evil = {"state_dict": TENSORS, "args": Runs(f"touch {tmp_path / 'owned'}")}
    if way == "plain pickle":
        (tmp_path / "evil.pth").write_bytes(pickle.dumps(evil["args"]))
    else:
        torch.save(evil, tmp_path / "evil.pth", _use_new_zipfile_serialization=way == "zip")
    with pytest.raises(MasslError, match=r"more than tensors and plain values.*could run code; ask .* \.safetensors"):
        read_weights(tmp_path / "evil.pth")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; fetch it again"),
        (b"\n<!DOCTYPE html><html><body>Sign in", "is a web page, not weights"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (json.dumps({"metadata": {}, "weight_map": {}}).encode(), "lie in several files; .* save them as one"),
        (b'{"architecture": "vit"}', "is a text in JSON"),
        (b"hello", "is not a weights file; give a .pth or a .safetensors"),
    ],
)
def test_what_lies_in_the_place_of_weights_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(MasslError, match=message):
        read_weights(tmp_path / "model.safetensors")


def test_archives_of_another_kind_are_named(tmp_path: Path) -> None:
    for member, message in (("a.npy", "not of PyTorch's"), ("net/constants.pkl", "is a program of TorchScript")):
        with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
            archive.writestr(member, b"x")
        with pytest.raises(MasslError, match=message):
            read_weights(tmp_path / "a.pth")


def test_a_folder_without_a_run_and_what_is_no_file_say_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(MasslError, match="holds no checkpoint; give the folder that `massl train` wrote"):
        read_weights(tmp_path)
    save_file(TENSORS, tmp_path / "model.safetensors")
    with pytest.raises(MasslError, match=r"is not a run; give the weights file itself, as .*model\.safetensors"):
        read_weights(tmp_path)
    os.mkfifo(tmp_path / "pipe.pth")
    with pytest.raises(MasslError, match="is not a file"):
        read_weights(tmp_path / "pipe.pth")
    with pytest.raises(MasslError, match="there is no such file"):
        read_weights(tmp_path / "nowhere.pth")
