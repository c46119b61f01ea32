"""An encoder: one self-describing ONNX file, run by ONNX Runtime, or OpenVINO for many pictures
(`indexer.encoder.runtimes`).

Whatever fits the contract works, ours or not.

The contract (`docs/reference/encoder-file.md`): input `pixels`, uint8 `[N, S, S, 3]`, RGB; output `embedding`,
float32 `[N, D]`, rows of unit length; optionally a second output `patches`, float32 `[N, h, w, D]`; everything in one
file.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import psutil
from numpy.typing import NDArray
from PIL import Image

from indexer.encoder import runtimes
from indexer.encoder.contract import (
    HOW,
    check_contract,
    check_embeddings,
    check_format,
    shorter_side,
    size_to_use,
)
from indexer.encoder.embedding_graph import embedding_alone
from indexer.encoder.encoder_file import AGAIN, EncoderDamaged, builtin_encoder, check_whole, reads_other_files
from indexer.encoder.openvino_runtime import OpenVino
from indexer.encoder.runtimes import Runtime, RuntimeChoice, Wanted
from indexer.encoder.sessions import first_session, is_out_of_memory, session_of, too_large
from indexer.encoder.small_batches import SmallBatches
from massl.core.errors import MasslError
from massl.core.images.fitting import fit
from massl.core.machine import cores
from massl.core.memory_budget import available_memory

ALIKE = 0.98  # cosine that both runtimes' embeddings of a picture must have at least

_LOG = logging.getLogger(__name__)


class EncoderMismatch(MasslError):
    """A collection was embedded by another encoder than the one given."""

    exit_code = 4


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
        data = _read(path)
        digest = hashlib.sha256(data).hexdigest()
        check_whole(path, data, digest, sha256)
        if b"location" in data and reads_other_files(data):  # without the word no tensor refers to a file
            # Such a model would have ONNX Runtime read other files, of its author's choosing (CVE-2024-27318).
            raise MasslError(f"{path} keeps weights in other files; an encoder must be one file: {HOW}")
        session = first_session(path, data, threads, image_size)
        fixed, dim = check_contract(path, session)
        metadata = {
            key.removeprefix("massl."): value
            for key, value in session.get_modelmeta().custom_metadata_map.items()
            if key.startswith("massl.")
        }
        check_format(path, metadata)
        image_size, *sizes = size_to_use(path, metadata, fixed, image_size)
        resize = shorter_side(path, metadata, image_size, sizes[0])
        if fixed is None:
            session = session_of(path, data, threads, image_size)
        name = metadata.get("name", path.stem)
        encoder = cls(path, digest, name, dim, image_size, tuple(sizes), resize, metadata, session, threads)
        grey = np.full((2, image_size, image_size, 3), 128, np.uint8)
        try:
            embedded = encoder.embed(grey)
        except MasslError:
            raise
        except Exception as error:  # as for the session
            first = " ".join(str(error).split())[:160]
            raise MasslError(f"{path} can't embed a picture: {first}; {HOW}") from None
        check_embeddings(path, embedded, dim)
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
            why = "it may take too much memory" if is_out_of_memory(error) else _said_by_openvino(error)
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
            if available_memory() < 5 * len(data):  # for the weights as they are read, and once more as they are used
                return self
            single = self._for_embeddings(data)
            single = single or replace(self, session=session_of(self.path, data, 1, self.image_size))
        except MasslError:  # there is too little memory for another, or the file has changed since it was loaded
            return self
        return replace(self, faster=SmallBatches(single.embed, threads))

    def _for_embeddings(self, data: bytes) -> Encoder | None:
        """The same encoder on one thread without what only patches need; None where its embeddings aren't the same."""
        try:
            encoder = replace(self, session=session_of(self.path, embedding_alone(data), 1, self.image_size))
            pixels = self._blotches()
            same = all(np.array_equal(encoder.embed(some), self.embed(some)) for some in (pixels, pixels[:1]))
        except Exception:  # ONNX Runtime's have no common class; a graph that it can't run is left as it was
            return None
        return encoder if same else None

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
            raise EncoderDamaged(f"{self.path} can't be read any more: {error.strerror}; {AGAIN}") from None
        check_whole(self.path, data, hashlib.sha256(data).hexdigest(), self.sha256)
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
        made = OpenVino(embedding_alone(data), self.image_size, choice.precision, self.threads, free * 3 // 4)
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
            if not is_out_of_memory(error):
                raise
        if len(pixels) > 1:
            half = len(pixels) // 2
            return np.concatenate([self._run(output, pixels[:half]), self._run(output, pixels[half:])])
        raise too_large(self.path)


def _said_by_openvino(error: Exception) -> str:
    """What went wrong, without the places in its sources that OpenVINO names first."""
    return " ".join(re.sub(r".*\.(cpp|hpp):\d+:", "", str(error), flags=re.DOTALL).split())[:160]


def _read(path: Path) -> bytes:
    """A file's content.

    Raises:
        MasslError: missing, unreadable, or no ordinary file.
    """
    try:
        if not (path.is_file() or path.is_dir()) and path.exists():  # reading a pipe or a device may never end
            raise MasslError(f"{path} is not a regular file; give an encoder.onnx, or a run's folder")
        return path.read_bytes()
    except FileNotFoundError:
        raise MasslError(f"{path}: there is no such encoder file") from None
    except IsADirectoryError:
        raise MasslError(f"{path} is a folder; give an encoder.onnx, or a run's folder") from None
    except OSError as error:
        raise MasslError(f"{path}: {(error.strerror or str(error)).lower()}") from None
