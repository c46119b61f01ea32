"""Blocks embedded by the worker processes of a Ray cluster, or of one that is started on this machine for it.

The blocks are a Ray Data pipeline over `BlockWork`, which needs the images and the encoder alone. Ray gives
the blocks of a worker that ends to another one.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import pickle
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from indexer.encoder.onnx_encoder import Encoder
from indexer.encoder.runtimes import Wanted
from indexer.ingest.bulk_embedding import BlockWork
from indexer.ingest.embedding_table import TableRow
from massl.core.errors import MasslError
from massl.core.files.temporary_folders import TemporaryFolder
from massl.core.machine import cores
from massl.core.printable import visible

ADDRESS = "RAY_ADDRESS"  # Ray's own variable: the cluster to use
_CPUS = 4  # of a worker, if its machine has as many: more help one encoder little
_CONNECTING = 10.0  # seconds
_STORE = 512 << 20  # bytes of shared memory, on this machine: a block's rows are a few megabytes


class RayEngine:
    """A `BlockEngine` of several worker processes.

    Args:
        encoder: what embeds. Its file is sent to the workers.
        wanted: the runtime that they embed with.
        workers: how many; as many as the cluster has room for if left out.

    Attributes:
        runtimes: those that the workers used.

    Raises:
        MasslError: Ray isn't installed.
    """

    def __init__(self, encoder: Encoder, wanted: Wanted, workers: int | None = None) -> None:
        if importlib.util.find_spec("ray") is None:
            raise MasslError("--engine ray needs a package that isn't installed; run: pip install 'massl[ray]'")
        self._encoder = encoder
        self._wanted = wanted
        self._workers = workers
        self.runtimes: set[str] = set()

    def __call__(
        self, work: BlockWork, blocks: Sequence[range], seen: Callable[[int], None]
    ) -> Iterator[tuple[range, list[TableRow]]]:
        """See `BlockEngine`.

        Raises:
            MasslError: the cluster can't be reached, has no room, or fails; the images can't be read.
        """
        if not blocks:
            return
        images = sum(map(len, blocks))
        with _cluster() as ray:
            workers, cpus = _shares(ray, self._workers, len(blocks))
            task = (work, self._encoder.path.name, self._encoder.path.read_bytes(), self._encoder.sha256)
            # In a list, so that a worker which is started again finds it there still.
            kept = [ray.put(pickle.dumps((*task, self._encoder.image_size, self._wanted, images)))]
            items = [{"first": block.start, "last": block.stop} for block in blocks]
            answers = ray.data.from_items(items, override_num_blocks=len(items)).map(
                _Worker,
                fn_constructor_args=(kept, cpus),
                compute=ray.data.ActorPoolStrategy(size=workers),
                num_cpus=cpus,
            )
            for answer in _told(iter(answers.iter_rows())):
                if answer["failed"]:
                    raise MasslError(answer["failed"])
                self.runtimes.add(answer["runtime"])
                rows, limits = pickle.loads(answer["rows"])
                work.ranges.adopt(limits)
                yield range(answer["first"], answer["last"]), rows


class _Worker:
    """One process: loads the encoder once, and embeds block after block."""

    def __init__(self, kept: list[Any], cpus: int) -> None:
        import ray

        work, name, data, digest, image_size, wanted, images = pickle.loads(ray.get(kept[0]))
        self._folder = TemporaryFolder("worker")
        path = Path(self._folder.name, name)
        path.write_bytes(data)
        encoder = Encoder.load(path, threads=cpus, sha256=digest, image_size=image_size)
        self._encoder = encoder.for_many(images, wanted)
        self._work = replace(work, readers=work.readers or cpus)

    def __call__(self, block: dict[str, int]) -> dict[str, Any]:
        answer = {**block, "failed": "", "runtime": self._encoder.runtime, "rows": b""}
        try:
            rows = self._work.rows(range(block["first"], block["last"]), self._encoder, lambda seen: None)
        except MasslError as error:  # the same for every worker, and no reason to try again
            return answer | {"failed": str(error)}
        return answer | {"rows": pickle.dumps((rows, self._work.ranges.limits))}


@contextmanager
def _cluster() -> Iterator[Any]:
    """Ray, connected to the cluster that the environment names or to one of this machine, which ends with this.

    Raises:
        MasslError: it can't be reached, or not be started.
    """
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what it says on standard error past all loggers
    import ray
    import ray.data

    for name in ("ray", "ray.data", "ray._private", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)
    address = os.environ.get(ADDRESS)
    here: dict[str, Any] = (
        {} if address else {"num_cpus": cores(), "include_dashboard": False, "object_store_memory": _STORE}
    )
    try:
        _check_answers(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **here)
    except Exception as error:  # of many classes, by what is wrong
        where = f"the Ray cluster at {visible(address[:100])} can't be used" if address else "Ray can't be started"
        raise MasslError(f"{where}: {_short(error)}") from None
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        yield ray
    finally:
        ray.shutdown()


def _check_answers(address: str | None) -> None:
    """Raises an `OSError` where nobody listens: Ray itself would try for many minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), _CONNECTING).close()


def _shares(ray: Any, workers: int | None, blocks: int) -> tuple[int, int]:
    """How many workers there are, and how many cores each has.

    Raises:
        MasslError: the cluster has no core.
    """
    nodes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    if not any(nodes):
        raise MasslError("the Ray cluster has no processor that work can be given to")
    # So many cores that all workers fit, whichever machine they are on.
    cpus = max(1, min(_CPUS, max(nodes)) if workers is None else min(max(nodes), sum(nodes) // workers))
    room = sum(node // cpus for node in nodes)
    return min(workers or room, room, blocks), cpus


def _told(answers: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The answers; what fails in Ray itself is one line."""
    while True:
        try:
            answer = next(answers)
        except StopIteration:
            return
        except Exception as error:
            raise MasslError(f"Ray gave up: {_short(error)}; run the same command again to go on") from None
        yield answer


def _short(error: Exception) -> str:
    """The last line of what Ray says, which is often a traceback of another process."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return visible((lines[-1] if lines else type(error).__name__)[:200])
