"""An encoder: one self-describing ONNX file, run by ONNX Runtime, or OpenVINO for many pictures
(`indexer.encoder.runtimes`).

Whatever fits the contract works, ours or not.

The contract (`docs/reference/encoder-file.md`): input `pixels`, uint8 `[N, S, S, 3]`, RGB; output `embedding`,
float32 `[N, D]`, rows of unit length; optionally a second output `patches`, float32 `[N, h, w, D]`; everything in one
file.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib.resources
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime
import psutil
from numpy.typing import NDArray
from PIL import Image

from indexer.encoder import runtimes
from indexer.encoder.openvino_runtime import OpenVino
from indexer.encoder.runtimes import Runtime, RuntimeChoice, Wanted
from indexer.encoder.small_batches import SmallBatches
from massl.core.encoder_contract import FORMAT, LARGEST_SIDE, MOST_SIZES
from massl.core.errors import MasslError
from massl.core.files.onnx_digest import is_whole
from massl.core.images.decoding import fit
from massl.core.images.formats import SUFFIXES
from massl.core.machine import cores
from massl.core.memory_budget import available_memory

WIDEST = 16_384  # numbers of an embedding
LEAST_MEMORY = 1 << 30  # bytes that running encoders may take, however little is free

_AGAIN = "copy it again from where it came, or export it again with `massl export`"
_HOW = "make one with `massl export`"
# How ONNX Runtime says that memory ran out; its exceptions have no common class.
_NO_MEMORY = ("Failed to allocate memory", "Available memory of", "bad_alloc", "bad allocation")

# Whoever builds in another adds this one to `indexer.encoder.former_builtin`.
BUILTIN = "4b293f8f53c318917658f3e0ce366e863b54936183b6b531bd78feaa7ac2ea99"  # SHA-256 of the encoder of this version

UNIT = 0.02  # that the length of an embedding may differ from 1 by; bfloat16 rounds by up to 0.004
ALIKE = 0.98  # cosine that both runtimes' embeddings of a picture must have at least

_LOG = logging.getLogger(__name__)

_SIZES = re.compile(r"[0-9]{1,5}(,[0-9]{1,5})*")

# Collections' copies of encoders: the name tells the content.
_NAMED_BY_CONTENT = re.compile(r"encoder-([0-9a-f]{16})\.onnx")


class EncoderMismatch(MasslError):
    """A collection was embedded by another encoder than the one given."""

    exit_code = 4


class EncoderDamaged(MasslError):
    """An encoder file is not what it was when it was written."""


class SizeNotListed(MasslError):
    """An encoder file is to be used at a size that it doesn't list."""


class Embeds(Protocol):
    """What reading and embedding files asks of an encoder, for the attributes of which see `Encoder`.

    So that a yardstick which is no ONNX file sees the same decoded pictures through the same code.
    """

    @property
    def resize(self) -> int: ...

    @property
    def device(self) -> str: ...

    def prepare(self, picture: Image.Image, /) -> NDArray[np.uint8]: ...

    def embed(self, pixels: NDArray[np.uint8], /) -> NDArray[np.float32]: ...


def builtin_encoder() -> Path:
    """The encoder that comes with the product."""
    return Path(str(importlib.resources.files("indexer.encoder") / "builtin" / "encoder.onnx"))


def check_builtin(digest: str | None = None) -> None:
    """Compares the built-in encoder's file, or its SHA-256 if that is known already, with what this version brought.

    Raises:
        EncoderDamaged: it is missing, or another.
    """
    path = builtin_encoder()
    try:
        digest = digest or hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise EncoderDamaged(f"the built-in encoder can't be read ({error.strerror}); install massl again") from None
    if digest != BUILTIN:
        raise EncoderDamaged(
            f"the built-in encoder of this installation is damaged ({path} has another SHA-256); install massl again"
        )


@dataclass(frozen=True)
class Encoder:
    """An encoder ready to run. Its identity is the SHA-256 of its file.

    Attributes:
        path: the file it came from.
        sha256: of that file, in hexadecimal.
        name: what it calls itself, else the file's name.
        dim: D, the width of an embedding.
        image_size: S, the side of its input in pixels.
        image_sizes: all that S can be, the file's usual one first.
        resize: pixels of the shorter side before the S x S centre is cut out.
        metadata: every `massl.*` property of the file, without that prefix.
        session: ONNX Runtime's.
        threads: for one batch; one a core if None.
        faster: what embeds in place of the session; see `for_many`.
    """

    path: Path
    sha256: str
    name: str
    dim: int
    image_size: int
    image_sizes: tuple[int, ...]
    resize: int
    metadata: Mapping[str, str]
    session: Any
    threads: int | None = None
    faster: OpenVino | SmallBatches | None = None

    @classmethod
    def load(
        cls,
        path: Path | str | None = None,
        threads: int | None = None,
        sha256: str | None = None,
        image_size: int | None = None,
    ) -> Encoder:
        """Reads an encoder and checks that it is whole and fits the contract.

        Args:
            path: an `.onnx` file; the built-in encoder when left out.
            image_size: side of the pictures that it is used on, in pixels, of those that the file lists; the file's
                usual one when left out.
            threads: for one batch; ONNX Runtime's choice (one a core) when left out.
            sha256: what the file must be, in hexadecimal. Compared before anything reads it as a network.

        Raises:
            EncoderDamaged: it is not what it was when it was written.
            MasslError: missing, unreadable, no ONNX model, one that doesn't fit the contract, or one that doesn't list
                `image_size`.
        """
        path = Path(path) if path else builtin_encoder()
        try:
            if not (path.is_file() or path.is_dir()) and path.exists():  # reading a pipe or a device may never end
                raise MasslError(f"{path} is no ordinary file; give an encoder.onnx, or a run's folder")
            data = path.read_bytes()
        except FileNotFoundError:
            raise MasslError(f"{path}: there is no such encoder file") from None
        except IsADirectoryError:
            raise MasslError(f"{path} is a folder; give an encoder.onnx, or a run's folder") from None
        except OSError as error:
            raise MasslError(f"{path}: {(error.strerror or str(error)).lower()}") from None
        digest = hashlib.sha256(data).hexdigest()
        _check_whole(path, data, digest, sha256)
        if b"location" in data and _reads_other_files(data):  # without the word no tensor refers to a file
            # Such a model would have ONNX Runtime read other files, of its author's choosing (CVE-2024-27318).
            raise MasslError(f"{path} keeps weights in other files; an encoder must be one file: {_HOW}")
        session = _first_session(path, data, threads, image_size)
        fixed, dim = _check_contract(path, session)
        metadata = {
            key.removeprefix("massl."): value
            for key, value in session.get_modelmeta().custom_metadata_map.items()
            if key.startswith("massl.")
        }
        _check_format(path, metadata)
        sizes = _image_sizes(path, metadata, fixed)
        usual = sizes[0]
        image_size = image_size or usual
        if image_size not in sizes:
            name = metadata.get("name", path)
            raise SizeNotListed(
                f"the encoder {name} takes pictures of {_listed(sorted(set(sizes)))} pixels, not of {image_size}"
            )
        if fixed is None:
            session = _session(path, data, threads, image_size)
        elif fixed != image_size:
            raise MasslError(f"{path} doesn't fit the encoder contract: it takes {fixed} pixels alone; {_HOW}")
        told = metadata.get("resize", str(usual))
        try:
            resize = round(int(told) * image_size / usual)
        except ValueError:
            resize = -1
        if not 0 < resize <= 4 * LARGEST_SIDE:
            most = f"{4 * LARGEST_SIDE:,}"
            raise MasslError(f"{path}: its massl.resize is {told[:40]!r}, not a number of pixels up to {most}")
        encoder = cls(
            path,
            digest,
            metadata.get("name", path.stem),
            dim,
            image_size,
            sizes,
            max(resize, image_size),
            metadata,
            session,
            threads,
        )
        grey = np.full((2, image_size, image_size, 3), 128, np.uint8)
        try:
            embedded = encoder.embed(grey)
        except MasslError:
            raise
        except Exception as error:  # as for the session
            first = " ".join(str(error).split())[:160]
            raise MasslError(f"{path} can't embed a picture: {first}; {_HOW}") from None
        if embedded.shape != (2, dim):
            found = list(embedded.shape)
            raise MasslError(f"{path} doesn't fit the encoder contract: it gives {found} for [2, {dim}]; {_HOW}")
        lengths = np.linalg.norm(embedded, axis=1)
        if not np.allclose(lengths, 1, atol=1e-2):
            raise MasslError(f"{path} doesn't fit the encoder contract: its embeddings are not of unit length; {_HOW}")
        return encoder

    @property
    def called(self) -> str:
        """What a command takes it by."""
        return "builtin" if self.path == builtin_encoder() else str(self.path)

    @property
    def has_patches(self) -> bool:
        """Whether it has the second output, for region queries and heat maps."""
        return any(output.name == "patches" for output in self.session.get_outputs())

    @property
    def whitening(self) -> float:
        """How strongly its embeddings are whitened on its training images, from 0 to 1; see
        `massl.encoder.whitening`.
        """
        told = self.metadata.get("whitening", "")
        try:
            return min(1.0, max(0.0, float(told)))
        except ValueError:
            return float(self.metadata.get("whitened") == "True")  # a file from before it could be less than full

    @property
    def mean_embedding(self) -> NDArray[np.float32]:
        """Mean of its training images' embeddings, float32 `[D]`; zeros where they are taken about their own mean.

        Raises:
            MasslError: what the file tells of it can't be read.
        """
        told = self.metadata.get("mean_embedding")
        if told is None:
            return np.zeros(self.dim, np.float32)
        try:
            mean = np.frombuffer(base64.b64decode(told, validate=True), "<f2").astype(np.float32)
        except ValueError:
            mean = np.zeros(0, np.float32)
        if mean.shape != (self.dim,) or not np.isfinite(mean).all():
            raise MasslError(f"{self.path}: its massl.mean_embedding is damaged; export it again")
        return mean

    @property
    def device(self) -> str:
        """Where it runs, as `cpu` or `cuda`."""
        return str(self.session.get_providers()[0]).removesuffix("ExecutionProvider").lower()

    @property
    def runtime(self) -> Runtime:
        """What computes its embeddings."""
        return "openvino" if isinstance(self.faster, OpenVino) else "onnxruntime"

    def choice(self, wanted: Wanted = "auto") -> RuntimeChoice:
        """What embeds many pictures with it on this machine, and why.

        Raises:
            EncoderDamaged: its file is no longer what was loaded.
        """
        return self._choice(self._data(), wanted)

    def for_many(self, count: int, wanted: Wanted = "auto") -> Encoder:
        """The same encoder, run by what embeds so many pictures fastest.

        ONNX Runtime then takes a small batch for each core at a time. Where OpenVINO can't run the file, a line says so
        and ONNX Runtime does.

        Args:
            count: how many pictures are to be embedded.
            wanted: which runtime; `auto` takes OpenVINO where it is installed and pays (`indexer.encoder.runtimes`).
        """
        if self.faster or (count < runtimes.many() and wanted != "openvino"):
            return self
        try:
            data = self._data()
            choice = self._choice(data, wanted)
            if choice.runtime == "openvino":
                return self._compile(data, choice)
            why = choice.why if choice.amiss else ""
        except Exception as error:  # OpenVINO's have no common class
            why = "it may take too much memory" if _out_of_memory(error) else _said_by_openvino(error)
        if why:
            _LOG.warning("OpenVINO can't run the encoder %s, so ONNX Runtime does: %s", self.name, why)
        return self if count < runtimes.many() else self._in_parallel()

    def _in_parallel(self) -> Encoder:
        """The same encoder with a batch for each core at a time, where that can be."""
        threads = self.threads or cores()
        if threads == 1 or self.device != "cpu":
            return self
        try:
            data = self._data()
            if available_memory() < 3 * len(data):  # for the weights once more, and room for what is computed
                return self
            session = _session(self.path, data, 1, self.image_size)
        except MasslError:  # there is too little memory for another, or the file has changed since it was loaded
            return self
        return replace(self, faster=SmallBatches(replace(self, session=session).embed, threads))

    def _choice(self, data: bytes, wanted: Wanted) -> RuntimeChoice:
        if self.device != "cpu":
            return RuntimeChoice("onnxruntime", f"it runs on {self.device}", amiss=wanted == "openvino")
        return runtimes.choose(data, wanted)

    def _data(self) -> bytes:
        """The file's content.

        Raises:
            EncoderDamaged: it is no longer what was loaded.
        """
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise EncoderDamaged(f"{self.path} can't be read any more: {error.strerror}; {_AGAIN}") from None
        _check_whole(self.path, data, hashlib.sha256(data).hexdigest(), self.sha256)
        return data

    def _compile(self, data: bytes, choice: RuntimeChoice) -> Encoder:
        """The same encoder on OpenVINO, once its embeddings are seen to be the same.

        Raises:
            MemoryError: there may not be enough.
            Exception: OpenVINO can't run it, or embeds otherwise.
        """
        free = available_memory()
        # A small file may make large tensors as it is loaded. Those of ONNX Runtime are part of this process's memory,
        # and OpenVINO makes them anew before it can be asked how large they are.
        if free < psutil.Process().memory_info().rss:
            raise MemoryError
        made = OpenVino(data, self.image_size, choice.precision, self.threads, free * 3 // 4)
        pixels = self._blotches()
        cosines = (made.embed(pixels) * self.embed(pixels)).sum(1)
        if not cosines.min() >= ALIKE:  # also where it is not a number
            raise ValueError(f"its embeddings have a cosine of {cosines.min():.3f} with those of ONNX Runtime")
        return replace(self, faster=made)

    def _blotches(self) -> NDArray[np.uint8]:
        """Pictures of nothing, with about as much detail as real ones: uint8 `[4, S, S, 3]`."""
        size = (self.image_size, self.image_size)
        blotches = np.random.default_rng(0).integers(0, 256, (4, 14, 14, 3), np.uint8)
        return np.stack([np.asarray(Image.fromarray(each).resize(size, Image.Resampling.BICUBIC)) for each in blotches])

    def prepare(self, picture: Image.Image) -> NDArray[np.uint8]:
        """An RGB picture of any size to what the encoder takes: uint8 `[S, S, 3]`."""
        return np.asarray(fit(picture, self.image_size, self.resize))

    def embed(self, pixels: NDArray[np.uint8] | Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Embeds prepared pictures: uint8 `[N, S, S, 3]` to float32 `[N, D]`, rows of unit length."""
        pixels = np.asarray(pixels)
        return self.faster.embed(pixels) if self.faster else self._run("embedding", pixels)

    def embed_patches(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The patch tokens of prepared pictures: uint8 `[N, S, S, 3]` to float32 `[N, h, w, D]`."""
        return self._run("patches", np.asarray(pixels))

    def _run(self, output: str, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """An output for some pictures: fewer at a time where they don't fit into memory together."""
        try:
            return self.session.run([output], {"pixels": pixels})[0]
        except Exception as error:
            if not _out_of_memory(error):
                raise
        if len(pixels) > 1:
            half = len(pixels) // 2
            return np.concatenate([self._run(output, pixels[:half]), self._run(output, pixels[half:])])
        raise _too_large(self.path)


def are_unit(embeddings: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which rows of `[N, D]` are embeddings: numbers of unit length. A file that keeps the contract on grey may not
    keep it on every picture.
    """
    lengths = np.linalg.norm(embeddings, axis=1)
    return np.asarray(np.abs(lengths - 1) <= UNIT)  # also false where a length is not a number


def _check_whole(path: Path, data: bytes, digest: str, wanted: str | None) -> None:
    """Compares a file with all that is known of it: what is asked for, its name, and the digest that it carries.

    Raises:
        EncoderDamaged: it differs.
    """
    if path == builtin_encoder():
        check_builtin(digest)
    if wanted is not None and digest != wanted:
        raise EncoderDamaged(f"{path} is damaged: its SHA-256 is {digest[:12]}…, not {wanted[:12]}…")
    elif (named := _NAMED_BY_CONTENT.fullmatch(path.name)) and not digest.startswith(named[1]):
        raise EncoderDamaged(
            f"{path} is damaged: its SHA-256 doesn't begin as its name says; take the file that it is a copy of"
        )
    elif not is_whole(data):
        raise EncoderDamaged(f"{path} is damaged: its content has changed since it was written; {_AGAIN}")


def _reads_other_files(model: bytes) -> bool:
    """Whether some tensor of an ONNX model, in whatever part of it, keeps its numbers in another file."""
    import onnx

    waiting: list[Any] = []
    try:
        waiting.append(onnx.load_model_from_string(model))
    except Exception:  # of protocol buffers, another class for each of their implementations
        return False  # no model, which whoever runs it will say
    while waiting:
        message = waiting.pop()
        if isinstance(message, onnx.TensorProto) and message.data_location == onnx.TensorProto.EXTERNAL:
            return True
        for field, value in message.ListFields():
            if field.message_type:
                waiting += value if isinstance(value, Sequence) else [value]
    return False


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY)


def _said_by_openvino(error: Exception) -> str:
    """What went wrong, without the places in its sources that OpenVINO names first."""
    return " ".join(re.sub(r".*\.(cpp|hpp):\d+:", "", str(error), flags=re.DOTALL).split())[:160]


def _too_large(path: Path) -> MasslError:
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


def _session(path: Path, data: bytes, threads: int | None, image_size: int | None) -> Any:
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
        if _out_of_memory(error):
            raise _too_large(path) from None
        if path.suffix in (".pt", ".pth"):
            raise MasslError(f"{path} is a checkpoint; make an encoder of it: massl export {path}") from None
        if path.suffix.lower() in SUFFIXES:
            raise MasslError(f"{path} is a picture, and no encoder.onnx") from None
        first = " ".join(str(error).split())[:160]
        raise MasslError(f"{path} is no ONNX model that can be run here: {first}; {_HOW}") from None


def _first_session(path: Path, data: bytes, threads: int | None, image_size: int | None) -> Any:
    """A session at the size asked for; at none where that fails, as the file may not list it, which it says itself."""
    if image_size is None or image_size > LARGEST_SIDE:
        return _session(path, data, threads, None)
    try:
        return _session(path, data, threads, image_size)
    except MasslError:
        return _session(path, data, threads, None)


def _image_sizes(path: Path, metadata: Mapping[str, str], fixed: int | None) -> tuple[int, ...]:
    """All that S can be in pixels, the usual one first."""
    told = metadata.get("image_sizes", str(fixed))
    # Not by int() alone, which takes the digits of all scripts, signs and underscores.
    sizes = tuple(int(size) for size in told.split(",")) if _SIZES.fullmatch(told) else ()
    if not sizes or not 0 < min(sizes) <= max(sizes) <= LARGEST_SIDE or len(set(sizes)) < len(sizes):
        raise MasslError(
            f"{path}: its massl.image_sizes is {told[:40]!r}, not a list of pixels up to {LARGEST_SIDE:,}; {_HOW}"
        )
    if len(sizes) > MOST_SIZES:
        raise MasslError(f"{path}: its massl.image_sizes lists {len(sizes):,} sizes, and {MOST_SIZES} is the most")
    return sizes


def _check_format(path: Path, metadata: Mapping[str, str]) -> None:
    """Compares the version of the contract that a file was written for.

    Raises:
        MasslError: it is not known here.
    """
    told = metadata.get("format", FORMAT)
    if told != FORMAT:
        raise MasslError(
            f"{path} was written for another version of massl: its massl.format is {told[:40]!r}, not {FORMAT}; "
            f"install the newest massl, or {_HOW}"
        )


def _listed(sizes: Sequence[int]) -> str:
    *most, last = map(str, sizes)
    return f"{', '.join(most)} or {last}" if most else last


def _check_contract(path: Path, session: Any) -> tuple[int | None, int]:
    """S, None where the file lists several, and D, or what doesn't fit."""

    def refuse(what: str) -> MasslError:
        return MasslError(f"{path} doesn't fit the encoder contract: {what}; {_HOW}")

    inputs = {value.name: value for value in session.get_inputs()}
    if list(inputs) != ["pixels"]:
        raise refuse(f"its inputs are {', '.join(inputs) or 'none'}, not one called pixels")
    shape, kind = inputs["pixels"].shape, inputs["pixels"].type
    if kind != "tensor(uint8)" or len(shape) != 4 or shape[3] != 3 or shape[1] != shape[2]:
        raise refuse(f"pixels is {kind} {shape}, not uint8 [N, S, S, 3]")
    told = session.get_modelmeta().custom_metadata_map
    if isinstance(shape[0], int):
        raise refuse(f"pixels is {shape}: N must be dynamic")
    if not isinstance(shape[1], int) and "massl.image_sizes" not in told:
        raise refuse(f"pixels is {shape}: S must be fixed, or massl.image_sizes list what it can be")
    if isinstance(shape[1], int) and not 0 < shape[1] <= LARGEST_SIDE:
        raise refuse(f"it takes pictures of {shape[1]:,} pixels a side, and {LARGEST_SIDE:,} is the most")
    outputs = {value.name: value for value in session.get_outputs()}
    if "embedding" not in outputs:
        raise refuse(f"its outputs are {', '.join(outputs)}, with no embedding among them")
    out = outputs["embedding"]
    if out.type != "tensor(float)" or len(out.shape) != 2 or not isinstance(out.shape[1], int):
        raise refuse(f"embedding is {out.type} {out.shape}, not float32 [N, D]")
    if not 0 < out.shape[1] <= WIDEST:
        raise refuse(f"its embeddings have {out.shape[1]:,} numbers, and {WIDEST:,} is the most")
    return shape[1] if isinstance(shape[1], int) else None, out.shape[1]
