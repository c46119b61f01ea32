"""Sessions of ONNX Runtime, within the memory that is free."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import onnxruntime

from indexer.encoder.contract import HOW
from massl.core.encoder_contract import LARGEST_SIDE
from massl.core.errors import MasslError
from massl.core.images.formats import SUFFIXES
from massl.core.memory_budget import available_memory

LEAST_MEMORY = 1 << 30  # bytes that running encoders may take, however little is free

# How ONNX Runtime says that memory ran out; its exceptions have no common class.
_NO_MEMORY = ("Failed to allocate memory", "Available memory of", "bad_alloc", "bad allocation")


def session_of(path: Path, data: bytes, threads: int | None, image_size: int | None) -> Any:
    _memory()
    options = onnxruntime.SessionOptions()
    if image_size:
        # What depends on the size alone is computed once, on loading.
        options.add_free_dimension_override_by_name("S", image_size)
    options.log_severity_level = 4  # what fails is said by us
    options.add_session_config_entry("session.use_env_allocators", "1")
    # By default idle threads wait in a busy loop, which takes the cores from the threads that decode meanwhile.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Without it a file of ONNX Runtime's own form would be run as well, into which the look for other files can't see.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    if threads:
        options.intra_op_num_threads = threads
    available = onnxruntime.get_available_providers()
    providers = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in available]
    try:
        return onnxruntime.InferenceSession(data, options, providers=providers)
    except Exception as error:  # ONNX Runtime raises a class of its own for each status, with no common base
        if is_out_of_memory(error):
            raise too_large(path) from None
        if path.suffix in (".pt", ".pth"):
            raise MasslError(f"{path} is a checkpoint; make an encoder of it: massl export {path}") from None
        if path.suffix.lower() in SUFFIXES:
            raise MasslError(f"{path} is a picture, not an encoder.onnx") from None
        first = " ".join(str(error).split())[:160]
        raise MasslError(f"{path} is not an ONNX model that can be run here: {first}; {HOW}") from None


def first_session(path: Path, data: bytes, threads: int | None, image_size: int | None) -> Any:
    """A session at the size asked for; at none where that fails, as the file may not list it, which it says itself."""
    if image_size is None or image_size > LARGEST_SIDE:
        return session_of(path, data, threads, None)
    try:
        return session_of(path, data, threads, image_size)
    except MasslError:
        return session_of(path, data, threads, None)


def is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY)


def too_large(path: Path) -> MasslError:
    return MasslError(
        f"{path} asks for more than the {_memory() / 1e9:,.1f} GB of memory that are free, for a single picture; use a "
        "smaller encoder, or one for smaller pictures"
    )


@functools.cache
def _memory() -> int:
    """Bytes that running encoders may take, all together: three quarters of what was free before the first.

    Asked for more, ONNX Runtime refuses, where the system would end the whole process.
    """
    most = max(LEAST_MEMORY, available_memory() * 3 // 4)
    place = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    onnxruntime.create_and_register_allocator(place, onnxruntime.OrtArenaCfg({"max_mem": most}))
    return most
