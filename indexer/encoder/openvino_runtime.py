"""An encoder's network run by OpenVINO: for its embedding alone, in batches of one size.

The size of a batch is fixed. So the memory is known beforehand and taken once. And a picture's embedding does not
depend on the pictures beside it or on their number: OpenVINO may compute a convolution in another way for each size.
"""

from __future__ import annotations

import io
import itertools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.encoder.runtimes import Precision

BATCH = 16  # pictures; as fast as 32 with half of the memory


class OpenVino:
    """A compiled network. Safe to share by threads."""

    def __init__(
        self, model: bytes, image_size: int, precision: Precision, threads: int | None, max_memory: int
    ) -> None:
        """Compiles the content of an `.onnx` file that fits the contract of encoders.

        Args:
            model: the file's content. OpenVINO is given no path, so it reads no other files.
            image_size: S.
            precision: what it computes in where the file leaves it open.
            threads: for one batch; OpenVINO's choice (one a core) when left out.
            max_memory: the most bytes that weights and a batch may take.

        Raises:
            MemoryError: they take more.
            Exception: OpenVINO can't run the network. Its exceptions have no common class.
        """
        import openvino
        from openvino import frontend

        # By name: left to choose, OpenVINO would try to read the file in any form that it knows.
        reader = frontend.FrontEndManager().load_by_framework("onnx")
        network = reader.convert(reader.load(io.BytesIO(model)))
        for output in list(network.outputs):
            if "embedding" not in output.get_names():
                network.remove_result(output.get_node())  # patches would be computed with every embedding
        self._shape = (BATCH, image_size, image_size, 3)
        network.reshape({"pixels": openvino.PartialShape(self._shape)})
        if _bytes(network) > max_memory:
            raise MemoryError
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": precision,
            "NUM_STREAMS": 1,  # one batch after another, each on all cores
            "ENABLE_CPU_PINNING": False,  # the cores are shared with the threads that decode
        }
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads
        self._compiled = openvino.Core().compile_model(network, "CPU", settings)
        self._idle: list[Any] = []  # a request can be used by one thread at a time

    def embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 `[N, S, S, 3]` to float32 `[N, D]`."""
        embeddings = np.empty((len(pixels), self._compiled.outputs[0].shape[1]), np.float32)
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        for start in range(0, len(pixels), BATCH):
            batch = pixels[start : start + BATCH]
            if len(batch) < BATCH:
                batch = np.concatenate([batch, np.zeros((BATCH - len(batch), *self._shape[1:]), np.uint8)])
            embeddings[start : start + BATCH] = request.infer([batch])[0][: len(pixels) - start]
        self._idle.append(request)
        return embeddings


def _bytes(network: Any) -> int:
    """Bytes that a network of fixed shapes takes at most: its weights, and what of a batch is in use at a time.

    Raises:
        Exception: a shape isn't known before it runs.
    """
    nodes = network.get_ordered_ops()
    place = {node.get_name(): number for number, node in enumerate(nodes)}
    of_batch: set[str] = set()
    change = [0] * (len(nodes) + 1)
    for number, node in enumerate(nodes):
        sources = {value.get_source_output().get_node().get_name() for value in node.inputs()}
        if node.get_type_name() == "Parameter" or sources & of_batch:
            of_batch.add(node.get_name())
        for value in node.outputs():
            size = value.get_element_type().size * math.prod(value.get_shape())
            change[number] += size
            if node.get_name() in of_batch:
                users = (user.get_node().get_name() for user in value.get_target_inputs())
                change[max((place.get(user, number) for user in users), default=number) + 1] -= size
    return max(itertools.accumulate(change))
