"""Which runtime embeds many pictures: ONNX Runtime, or OpenVINO where it is installed and pays.

ONNX Runtime loads every encoder, checks it, and embeds a few pictures: it is ready within a tenth of a second. OpenVINO
compiles for one to four seconds and then runs some files on some processors faster. `benchmarks/engines.py` measures
both, and `docs/measurements/speed.md` has what it found.
"""

from __future__ import annotations

import functools
import importlib.util
import platform
import re
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from massl.core.machine import cores

Runtime = Literal["onnxruntime", "openvino"]
Wanted = Literal["auto", "onnxruntime", "openvino"]
Precision = Literal["f32", "bf16"]

# Pictures a core from which OpenVINO is taken. Compiling takes one core one to four seconds; by then it has saved about
# twice that, whether a core embeds 10 pictures a second or 100.
PER_CORE = 256

# Instructions for products of 8-bit numbers, as Linux names them.
_VNNI = {"avx512_vnni", "avx_vnni", "amx_int8"}
_BFLOAT16 = {"avx512_bf16", "amx_bf16"}
# Products of activations that are quantised while the network runs, which OpenVINO computes in floating point.
_SLOW = {"DynamicQuantizeLinear", "MatMulInteger", "ConvInteger", "QLinearMatMul", "QLinearConv"}

_ASKED_FOR = "it was asked for"


@dataclass(frozen=True)
class RuntimeChoice:
    """What embeds many pictures.

    Attributes:
        runtime: which of the two.
        why: the reason, to follow a colon.
        precision: what OpenVINO computes in where the file leaves it open.
        amiss: whether OpenVINO was installed or asked for, and is not used.
    """

    runtime: Runtime
    why: str
    precision: Precision = "f32"
    amiss: bool = False


def many() -> int:
    """From how many pictures OpenVINO is worth its compilation on this machine."""
    return PER_CORE * cores()


def choose(model: bytes, wanted: Wanted = "auto") -> RuntimeChoice:
    """What embeds many pictures on this machine's CPU with an encoder, given as the content of its `.onnx` file."""
    if wanted == "onnxruntime":
        return RuntimeChoice("onnxruntime", _ASKED_FOR)
    if importlib.util.find_spec("openvino") is None:
        return RuntimeChoice("onnxruntime", "OpenVINO is not installed", amiss=wanted == "openvino")
    try:
        able = _abilities()
    except Exception as error:  # of a library that lacks another, or of OpenVINO itself
        return RuntimeChoice(
            "onnxruntime", f"OpenVINO can't be loaded ({' '.join(str(error).split())[:160]})", amiss=True
        )
    return rule(_operations(model), able, wanted)


def rule(operations: Set[str], able: Set[str], wanted: Wanted = "auto") -> RuntimeChoice:
    """The choice for a network of these ONNX operations on a processor that is `able` to do `vnni` and `bf16`."""
    quantised = "QuantizeLinear" in operations
    # In bfloat16 what a quantised network leaves in floating point is no faster, and its embeddings are a little worse.
    precision: Precision = "bf16" if "bf16" in able and not quantised else "f32"
    if wanted == "openvino":
        return RuntimeChoice("openvino", _ASKED_FOR, precision)
    if slow := sorted(_SLOW & operations):
        return RuntimeChoice("onnxruntime", f"OpenVINO is slow at the file's {slow[0]}")
    if quantised and "vnni" not in able:
        return RuntimeChoice("onnxruntime", "this processor is not known to multiply numbers of 8 bits (VNNI)")
    if not quantised and "bf16" not in able:
        return RuntimeChoice("onnxruntime", "this processor does not compute in bfloat16")
    why = "this processor multiplies numbers of 8 bits" if quantised else "this processor computes in bfloat16"
    return RuntimeChoice("openvino", why, precision)


def would_pay(model: bytes) -> bool:
    """Whether OpenVINO, which isn't installed, would be taken for an encoder, given as the content of its file."""
    instructions = _instructions()
    able = {"bf16", "vnni"} if _BFLOAT16 & instructions else {"vnni"} if _VNNI & instructions else set()
    return rule(_operations(model), able).runtime == "openvino"


@functools.cache
def _abilities() -> frozenset[str]:
    """What of `vnni` and `bf16` the processor can do; nothing on one other than x86-64, where nothing was measured."""
    import openvino

    if platform.machine().lower() not in ("x86_64", "amd64"):
        return frozenset()
    # All processors with bfloat16 have the other, which OpenVINO doesn't tell of.
    if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return frozenset({"bf16", "vnni"})
    return frozenset({"vnni"} if _VNNI & _instructions() else ())


def _instructions() -> set[str]:
    """What the processor can do beside the usual, as Linux names it; nothing on other systems."""
    try:
        told = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return set()
    flags = re.search(r"^flags\s*:(.*)$", told, re.MULTILINE)
    return set(flags[1].split()) if flags else set()


def _operations(model: bytes) -> set[str]:
    """The kinds of operation that a network is made of."""
    import onnx

    return {node.op_type for node in onnx.load_model_from_string(model).graph.node}
