"""The device that was asked for, or one line that says why not."""

from __future__ import annotations

import os
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from massl.core.errors import MasslError
from massl.core.machine import cores
from massl.training import devices, loading
from massl.training.devices import can_compile, check_compiler, choose_device, choose_kernels, unused_gpus, why_no_cuda
from massl.training.distributed import World
from massl.training.loading import usual_workers

# As torch's libc10_cuda has it, with the driver's version as a number.
TOO_OLD = (
    "CUDA initialization: The NVIDIA driver on your system is too old (found version 11040). Please update your GPU "
    "driver by downloading and installing a new version from the URL: http://www.nvidia.com/Download/index.aspx"
)


@pytest.fixture(autouse=True)
def looked_at_anew() -> Iterator[None]:
    why_no_cuda.cache_clear()
    yield
    why_no_cuda.cache_clear()


def machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gpus: int = 0, driver: bool = True, said: str = ""
) -> None:
    """A machine as torch sees it: so many GPUs, a driver, and a warning of torch's."""

    def is_available() -> bool:
        if said:
            warnings.warn(said, stacklevel=2)
        return gpus > 0

    monkeypatch.setattr(torch.cuda, "is_available", is_available)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(devices, "DRIVER", tmp_path / "version")
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("CUDA_VISIBLE_DEVICES", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    if driver:
        (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX Open Kernel Module 470.256.02")


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "CPU", "", "cuda:-1", "cpu:0"])
def test_a_device_of_another_name_is_refused(name: str) -> None:
    with pytest.raises(MasslError, match="choose auto, cpu, cuda, cuda:N or mps"):
        choose_device(name)


def test_devices_that_are_there_are_taken(monkeypatch, tmp_path: Path) -> None:
    machine(monkeypatch, tmp_path, gpus=2)
    chosen = {name: choose_device(name) for name in ("auto", "cpu", "cuda", "cuda:1")}
    assert chosen == {name: torch.device(where) for name, where in
                      (("auto", "cuda:0"), ("cpu", "cpu"), ("cuda", "cuda:0"), ("cuda:1", "cuda:1"))}  # fmt: skip
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda:1")
    with pytest.raises(MasslError, match="cuda:0 is a single GPU"):
        choose_device("cuda:0")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(MasslError, match=r"this machine has 2 GPUs; give --devices 2$"):
        choose_device()


def test_a_device_that_is_not_there_is_refused_in_one_line(monkeypatch, tmp_path: Path) -> None:
    machine(monkeypatch, tmp_path, gpus=1)
    with pytest.raises(MasslError, match=r"there is no cuda:1: this machine has 1 GPU, counted from cuda:0$"):
        choose_device("cuda:1")
    why_no_cuda.cache_clear()
    machine(monkeypatch, tmp_path, driver=False)
    (tmp_path / "version").unlink()
    with pytest.raises(MasslError, match=r"^--device cuda can't be used: no NVIDIA driver is found .*--device cpu"):
        choose_device("cuda")
    if not torch.backends.mps.is_available():
        with pytest.raises(MasslError, match="needs an Apple GPU"):
            choose_device("mps")
        assert choose_device() == torch.device("cpu")


def test_nothing_is_said_of_a_machine_without_a_gpu(monkeypatch, tmp_path: Path) -> None:
    machine(monkeypatch, tmp_path, driver=False)
    assert unused_gpus(torch.device("cpu")) == ""


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (TOO_OLD, r"knows CUDA 11\.4\) is too old for this torch \(made for CUDA 13\.0\); update"),
        ("CUDA initialization: Unexpected error from cudaGetDeviceCount(). Did you", r"Unexpected error.*nvidia-smi"),
        ("", "torch finds no GPU that it can use; nvidia-smi"),
    ],
    ids=["too old", "other", "silent"],
)
def test_a_gpu_that_torch_can_not_use_is_said_and_not_shown_as_a_warning(
    said: str, line: str, monkeypatch, tmp_path: Path
) -> None:
    machine(monkeypatch, tmp_path, said=said)
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        device = choose_device()
        note = unused_gpus(device)
    assert device == torch.device("cpu")
    assert not shown
    assert note.startswith("there is an NVIDIA driver, but this trains on the CPU: ")
    assert re.search(line, note)


def test_a_gpu_that_the_user_hides_is_no_surprise(monkeypatch, tmp_path: Path) -> None:
    machine(monkeypatch, tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert unused_gpus(choose_device()) == ""
    with pytest.raises(MasslError, match="CUDA_VISIBLE_DEVICES hides every GPU"):
        choose_device("cuda")


def test_gpus_that_lie_idle_are_said_with_how_to_use_them(monkeypatch, tmp_path: Path) -> None:
    machine(monkeypatch, tmp_path, gpus=4)
    assert unused_gpus(torch.device("cuda:0")) == "1 of this machine's 4 GPUs is used; all: --devices 4"
    assert unused_gpus(torch.device("cuda:0"), 2) == "2 of this machine's 4 GPUs are used; all: --devices 4"
    assert unused_gpus(torch.device("cuda:0"), 4) == ""


@pytest.mark.parametrize(("device", "found", "variable"), [("cpu", "g++", "CXX"), ("cuda", "clang", "CC")])
def test_a_compiler_is_looked_for_first(device: str, found: str, variable: str, monkeypatch, tmp_path: Path) -> None:
    machine(monkeypatch, tmp_path)
    with pytest.raises(
        MasslError, match=r"--compile needs a compiler of C.* not on the path; install .*give --no-comp"
    ):
        check_compiler(torch.device(device))
    os.symlink(shutil.which("true", path="/bin:/usr/bin") or "", tmp_path / found)
    check_compiler(torch.device(device))
    monkeypatch.setenv(variable, "icx -O2")
    with pytest.raises(MasslError, match=f"and {variable}=icx is not there"):
        check_compiler(torch.device(device))


def test_workers_are_shared_by_the_ranks_of_this_machine_alone(monkeypatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    world = World(torch.device("cpu"), 3, 4 * cores())  # four machines like this one and more
    assert usual_workers(world.size_here) == min(8, cores())
    assert usual_workers(2 * cores()) == 1
    monkeypatch.setattr(loading, "cores", lambda: 16)
    assert [usual_workers(ranks, "cuda") for ranks in (1, 2, 8, 16)] == [15, 7, 1, 1]
    monkeypatch.setattr(loading, "cores", lambda: 128)
    assert (usual_workers(1, "cuda"), usual_workers(1, "cpu")) == (32, 8)


def test_a_gpu_multiplies_as_fast_as_the_precision_allows() -> None:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark
    try:
        choose_kernels(torch.device("cpu"), "bf16")
        assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark) == before
        for precision, wanted in (("bf16", "high"), ("fp32", "highest")):
            choose_kernels(torch.device("cuda"), precision)
            assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark) == (wanted, True)
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.benchmark = before[1]


def test_compiling_is_for_gpus_with_a_compiler(monkeypatch, tmp_path: Path) -> None:
    machine(monkeypatch, tmp_path)
    assert not can_compile(torch.device("cuda"))
    os.symlink(shutil.which("true", path="/bin:/usr/bin") or "", tmp_path / "gcc")
    assert can_compile(torch.device("cuda"))
    assert not can_compile(torch.device("cpu"))
