"""`massl doctor`."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Any

from cli.options import Json, Quiet, RuntimeName, RuntimeOption, Verbose
from massl.core.errors import MasslError
from massl.core.machine import cores

_PACKAGES = (
    "massl", "numpy", "pillow", "pi-heif", "faiss-cpu", "faiss-gpu", "onnxruntime", "onnxruntime-gpu", "openvino",
    "gradio", "scikit-learn", "torch", "torchvision", "timm", "onnx", "pymilvus", "pyarrow",
)  # fmt: skip
# Both halves of a pair write the same import folder: the last one installed wins, without a word from pip.
_EXCLUSIVE = (("faiss-cpu", "faiss-gpu"), ("onnxruntime", "onnxruntime-gpu"))


def command(
    runtime: RuntimeOption = RuntimeName.auto, as_json: Json = False, quiet: Quiet = False, verbose: Verbose = False
) -> None:
    """Say what this machine can do: devices, providers, versions, and what is wrong with the installation.

    Examples: massl doctor · massl doctor --json
    """
    from cli.terminal import print_json, print_line

    found = _examine(runtime)
    if as_json:
        print_json(found)
        return
    print_line(f"Python {found['python']} on {found['system']}, {found['cores']} cores")
    runs_on = [name.removesuffix("ExecutionProvider") for name in found["onnxruntime_providers"]]
    # That of Azure sends pictures to a server and is never used; every build of ONNX Runtime names it.
    print_line(f"encoders run on: {', '.join(name for name in runs_on if name != 'Azure')} (ONNX Runtime)")
    print_line(f"search runs on: CPU{', GPU' if found['faiss_gpus'] else ''} (FAISS)")
    devices = ", ".join(found["torch_devices"]).replace("cpu", "CPU", 1)
    print_line(f"training runs on: {devices or 'nothing, as torch is not installed'}{' (torch)' if devices else ''}")
    if found["builtin"]:
        print_line(f"built-in encoder: {_described(found['builtin'])}")
    for name, version in found["packages"].items():
        print_line(f"  {name} {version or 'not installed'}")
    for problem in found["problems"]:
        print_line(f"! {problem}")
    print_line("no problems found" if not found["problems"] else f"{len(found['problems'])} problem(s)")


def _described(builtin: dict[str, Any]) -> str:
    if builtin["runtime"] == "onnxruntime":
        more = "; it embeds large folders faster on this processor: pip install 'massl[openvino]'"
        return f"by ONNX Runtime, as {builtin['why']}{more if builtin['openvino_would_pay'] else ''}"
    few = f"; ONNX Runtime for fewer than {builtin['from']:,} pictures" if builtin["from"] else ""
    return f"by OpenVINO in {builtin['precision']}, as {builtin['why']}{few}"


def _examine(runtime: RuntimeName) -> dict[str, Any]:
    import faiss
    import onnxruntime

    from indexer.encoder.encoder_file import builtin_encoder
    from indexer.encoder.onnx_encoder import Encoder
    from indexer.encoder.runtimes import many, would_pay

    packages = {name: _version(name) for name in _PACKAGES}
    problems = [
        f"{cpu} and {gpu} are both installed and overwrite each other: pip uninstall -y {cpu} {gpu}, "
        f"then pip install {gpu if _has_gpu() else cpu}"
        for cpu, gpu in _EXCLUSIVE
        if packages[cpu] and packages[gpu]
    ]
    devices = ["cpu"]
    if packages["torch"]:
        import torch

        devices += [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    builtin = None
    try:
        choice = Encoder.load().choice(runtime.value)
    except MasslError as error:
        problems.append(str(error))
    else:
        by_openvino = choice.runtime == "openvino"
        builtin = {
            "runtime": choice.runtime,
            "why": choice.why,
            "precision": choice.precision if by_openvino else None,
            "from": many() if by_openvino and runtime is RuntimeName.auto else 0,
            "openvino_would_pay": not packages["openvino"] and would_pay(builtin_encoder().read_bytes()),
        }
        problems += [choice.why] if choice.amiss else []
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": cores(),
        "onnxruntime_providers": onnxruntime.get_available_providers(),
        "faiss_gpus": faiss.get_num_gpus() if hasattr(faiss, "get_num_gpus") else 0,
        "torch_devices": devices if packages["torch"] else [],
        "builtin": builtin,
        "packages": packages,
        "problems": problems,
    }


def _has_gpu() -> bool:
    return os.path.exists("/dev/nvidiactl")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
