"""Which device trains, why it isn't the GPU that one expects, and which compiler `--compile` needs."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shlex
import shutil
import sys
import warnings
from pathlib import Path

import torch

from massl.core.errors import MasslError
from massl.settings import Settings, check_device_name

DRIVER = Path("/proc/driver/nvidia/version")


def choose_device(name: str = "auto") -> torch.device:
    """The device of this process.

    Args:
        name: `auto` (the GPU if there is one, else the CPU), `cpu`, `cuda`, `cuda:N` or `mps`. `auto` and `cuda` give
            each of several processes that torchrun started its own GPU.

    Raises:
        MasslError: there is no such device here.
    """
    check_device_name(name)
    ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    kind, _, number = name.partition(":")
    if kind == "cpu" or (kind == "auto" and why_no_cuda() and not torch.backends.mps.is_available()):
        return torch.device("cpu")
    if kind == "mps" or (kind == "auto" and why_no_cuda()):
        if not torch.backends.mps.is_available():
            raise MasslError("--device mps needs an Apple GPU, and there is none; choose auto, cpu or cuda")
        return torch.device("mps")
    if reason := why_no_cuda():
        raise MasslError(f"--device {name} can't be used: {reason}; --device cpu trains on the CPU")
    if number and ranks_here > 1:
        raise MasslError(f"--device {name} is a single GPU; to use several, leave it out or set CUDA_VISIBLE_DEVICES")
    device = torch.device("cuda", int(number or os.environ.get("LOCAL_RANK", "0")))
    there = torch.cuda.device_count()
    if number and int(number) >= there:
        raise MasslError(f"there is no {name}: this machine has {_gpus(there)}, counted from cuda:0")
    if ranks_here > there:
        raise MasslError(f"this machine has {_gpus(there)}; give --devices {there}")
    return device


@functools.cache
def why_no_cuda() -> str:
    """Why torch can use no CUDA GPU here, and what to do about it; "" where it can.

    torch says why in a warning, once a process, the first time that it looks. Here it is caught.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if torch.cuda.is_available():
            return ""
    said = " ".join(str(warning.message) for warning in caught)
    if not torch.backends.cuda.is_built():
        return "this torch is built without CUDA; https://pytorch.org says how to install one that has it"
    if not _has_driver():
        return "no NVIDIA driver is found (in Docker start the container with --gpus all)"
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1"):
        return "CUDA_VISIBLE_DEVICES hides every GPU"
    if "too old" in said:
        found = re.search(r"found version (\d+)", said)
        number = f" (it knows CUDA {int(found[1]) // 1000}.{int(found[1]) % 1000 // 10})" if found else ""
        return (
            f"the NVIDIA driver{number} is too old for this torch (made for CUDA {torch.version.cuda}); update the "
            "driver, or install a torch for an older CUDA from https://pytorch.org"
        )
    first = re.sub(r"^CUDA initialization: ", "", said).split(". ")[0].strip(" .")
    return f"torch finds no GPU that it can use{f' ({first})' if first else ''}; nvidia-smi says what the driver sees"


def _has_driver() -> bool:
    return bool(torch.version.hip) or DRIVER.exists() or shutil.which("nvidia-smi") is not None


def unused_gpus(device: torch.device, ranks_here: int = 1) -> str:
    """A line for a person about GPUs of this machine that lie idle while `device` trains; "" where there are none.

    Args:
        device: that of this process, chosen by `auto`.
        ranks_here: of this machine, that train together.
    """
    if device.type == "cuda":
        there = torch.cuda.device_count()
        if there <= ranks_here:
            return ""
        used = "is used" if ranks_here == 1 else "are used"
        return f"{ranks_here} of this machine's {there} GPUs {used}; all: --devices {there}"
    reason = why_no_cuda()
    if device.type != "cpu" or not reason or not _has_driver() or "hides" in reason:
        return ""
    return f"there is an NVIDIA driver, but this trains on the CPU: {reason}"


def decoder_note(settings: Settings, device: torch.device) -> str:
    """A line for a person about JPEGs that are to be decoded on a device which is no faster at it; else ""."""
    if settings.decode == "loader" or device.type == "cuda":
        return ""
    return "decode=device helps on a CUDA GPU alone; here the training process itself decodes, so leave it out"


def choose_kernels(device: torch.device, precision: str) -> None:
    """Lets a GPU multiply as fast as a run's precision allows.

    What stays in float32 under bf16 or fp16, as the head, is multiplied with a mantissa of ten bits where the GPU has
    that (TensorFloat-32). Convolutions are tried out, as their sizes don't change.
    """
    if device.type == "cuda":
        torch.set_float32_matmul_precision("highest" if precision == "fp32" else "high")
        torch.backends.cudnn.benchmark = True


def can_compile(device: torch.device) -> bool:
    """Whether torch.compile has what it needs here to compile for a GPU."""
    if device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return False
    try:
        check_compiler(device)
    except MasslError:
        return False
    return True


def check_compiler(device: torch.device) -> None:
    """Looks for the compiler that torch.compile runs: of C++ for a CPU, of C for a GPU.

    Raises:
        MasslError: there is none.
    """
    variable, language, package = ("CC", "C", "gcc") if device.type == "cuda" else ("CXX", "C++", "g++")
    usual = ("gcc", "clang") if device.type == "cuda" else ("clang++",) if sys.platform == "darwin" else ("g++",)
    if sys.platform == "win32":
        usual, package = ("cl",), "Visual Studio's build tools"
    named = shlex.split(os.environ.get(variable, ""))[:1]
    if not any(shutil.which(name) for name in named or usual):
        missing = f"{variable}={named[0]} is not there" if named else f"{' or '.join(usual)} is not on the path"
        raise MasslError(
            f"--compile needs a compiler of {language}, and {missing}; install one (on Debian and Ubuntu: apt-get "
            f"install {package}), or give --no-compile"
        )


def _gpus(count: int) -> str:
    return f"{count} GPU{'s' * (count != 1)}"
