"""Batches from worker processes: how they come here, and how a wait for one ends when none comes."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing.connection
import multiprocessing.queues
import multiprocessing.util
import os
import queue
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from massl.core.errors import MasslError
from massl.core.machine import cores
from massl.core.memory_budget import BUDGET
from massl.method.views import MOST_UNDECODED, Batch, Item, Views, collate
from massl.settings import Settings

SHARED = Path("/dev/shm")
MOST = 8  # processes of one rank, unless told otherwise
MOST_FOR_A_GPU = 32  # which is fed by more, and leaves the cores to them
AHEAD = 4  # batches that a worker prepares ahead, where there is room for them
HELD = 2  # more, that have arrived and are not yet used
SHARE = 0.8  # of the shared memory that is free
SEMAPHORES = 1 << 20  # bytes of shared memory without which no worker can be started
LOOK = 0.5  # seconds between checks for other events
NO_ROOM, NOT_SENT = 101, 102  # exit codes of a worker that could not hand over a batch: no room, any other reason
# The longest path of the temporary folder, in bytes, in which a socket can lie that hands over shared memory: the path
# of a socket has 104 bytes on some systems, and those below the folder take 33 of them.
LONGEST_TEMPORARY = 70
MORE = "in Docker start the container with --shm-size=8g or --ipc=host"


class LoadingFailed(MasslError):
    """No batch will come. The reason names what to try."""


@dataclass(frozen=True)
class Loading:
    """How batches are loaded.

    Attributes:
        workers: processes that decode and cut views; 0: the training process does.
        ahead: batches that each prepares ahead.
        shared: handed over in shared memory; else through a pipe, which takes longer.
        note: what a person should know of it, or "".
    """

    workers: int
    ahead: int = AHEAD
    shared: bool = True
    note: str = ""


def usual_workers(ranks_here: int = 1, kind: str = "cpu") -> int:
    """Processes of one rank that load images: a core each, shared by this machine's ranks, at least one.

    Args:
        ranks_here: of this machine.
        kind: of the device that trains. On a GPU each rank keeps a core for itself, and has up to `MOST_FOR_A_GPU`.
    """
    each = cores() // ranks_here
    return max(1, min(MOST_FOR_A_GPU, each - 1) if kind == "cuda" else min(MOST, each))


def plan_loading(settings: Settings, ranks: int = 1, ranks_here: int = 1, free: int | None = None) -> Loading:
    """Fits the batches that are on their way into the shared memory that is free; a container may have but 64 MB.

    Args:
        settings: the run's; `batch` counts the images of all ranks.
        ranks: that learn together.
        ranks_here: those of this machine, which share its memory.
        free: bytes of shared memory; as found on this machine if left out.
    """
    workers = settings.workers
    free = _free() if free is None else free
    temporary = tempfile.gettempdir()
    if workers and len(os.fsencode(temporary)) > LONGEST_TEMPORARY:
        note = f"the path of the temporary folder, {temporary}, is too long for shared memory: batches go through pipes"
        return Loading(workers, 1, shared=False, note=f"{note} instead, which is slower; set TMPDIR to a shorter one")
    if not workers or free is None:
        return Loading(workers)
    room = SHARE * free / ranks_here
    pixels = 2 * settings.image_size**2 + settings.local_views * settings.local_size**2
    each = max(3 * pixels, MOST_UNDECODED) if settings.decode == "device" else 3 * pixels
    size = each * settings.batch // ranks

    def needed(ahead: int) -> int:
        return size * (workers * ahead + HELD)

    small = f"/dev/shm has {free / 1e6:,.0f} MB free, and the batches on their way take {needed(AHEAD) / 1e6:,.0f} MB: "
    if room < SEMAPHORES:
        note = (
            f"/dev/shm has {free / 1e6:,.1f} MB free: no other processes can load images (workers=0), which is slower"
        )
        return Loading(0, note=f"{note}; {MORE}")
    for ahead in range(AHEAD, 0, -1):
        if needed(ahead) <= room:
            note = f"{small}{ahead} a worker are prepared ahead instead of {AHEAD}; {MORE}" if ahead < AHEAD else ""
            return Loading(workers, ahead, note=note)
    return Loading(workers, 1, shared=False, note=f"{small}they go through pipes instead, which is slower; {MORE}")


def _free() -> int | None:
    try:
        return shutil.disk_usage(SHARED).free
    except OSError:  # another system, which keeps shared memory elsewhere
        return None


class Keys(Sampler[list[tuple[int, int]]]):
    """Batches of keys of `massl.method.views.Views`, as they are given."""

    def __init__(self, keys: list[list[tuple[int, int]]]) -> None:
        self.keys = keys

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return iter(self.keys)

    def __len__(self) -> int:
        return len(self.keys)


def make_loader(
    views: Views, keys: Sampler[list[tuple[int, int]]], loading: Loading, ranks_here: int = 1, pinned: bool = False
) -> DataLoader[Any]:
    """A loader of batches, to be read by `batches`; one of as many on this machine as there are `ranks_here`."""
    return DataLoader(
        views,
        batch_sampler=keys,
        num_workers=loading.workers,
        collate_fn=collate if loading.shared else _collate_arrays,
        prefetch_factor=loading.ahead if loading.workers else None,
        # Its own generator: by default it would draw from the global one, once more in a run that is resumed.
        generator=torch.Generator(),
        pin_memory=pinned,
        worker_init_fn=partial(begin_worker, ranks_here * loading.workers),
    )


def batches(loader: DataLoader[Any], patience: float, stop: Callable[[], bool]) -> Generator[Batch, None, None]:
    """Yields a loader's batches, and waits for none in vain.

    Ends early when `stop` says so during a wait. However it ends, no worker is left.

    Args:
        loader: from `make_loader`.
        patience: seconds after which a batch is given up.
        stop: asked while there is no batch.

    Raises:
        LoadingFailed: a worker was killed, or failed, or no batch came in time.
        MasslError: what a worker said.
        MemoryError: in a worker.
    """
    if not loader.num_workers:
        yield from loader
        return
    before = multiprocessing.active_children()
    multiprocessing.util.get_temp_dir()  # the workers' too, which are killed before they could remove one of their own
    with _as_it_was(signal.SIGCHLD if hasattr(signal, "SIGCHLD") else None):
        try:
            iterator = iter(loader)
        except OSError as error:
            reason = "shared memory is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
            raise LoadingFailed(f"no process can be started that loads images ({reason}); {MORE}") from None
    workers = [process for process in multiprocessing.active_children() if process not in before]
    ready: queue.Queue[Batch | BaseException | None] = queue.Queue(1)
    over = threading.Event()
    # A thread, as a wait for the rest of a batch whose sender was killed can't be ended.
    threading.Thread(target=_fetch, args=(iterator, ready, over), daemon=True).start()
    try:
        while (batch := next_batch(ready, workers, patience, stop)) is not None:
            yield batch
    finally:
        over.set()
        for worker in workers:
            worker.kill()
        for worker in workers:
            worker.join(LOOK)


def _fetch(iterator: Any, ready: queue.Queue[Any], over: threading.Event) -> None:
    def put(item: Any) -> None:
        while not over.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(item, timeout=LOOK)
                return

    try:
        for batch in iterator:
            put(_turned(batch, _tensor))
            if over.is_set():
                return
        put(None)
    except BaseException as error:  # it is raised where the batch is waited for
        put(error)


def next_batch(
    ready: queue.Queue[Any], workers: Sequence[BaseProcess], patience: float, stop: Callable[[], bool]
) -> Batch | None:
    """The next batch, None once there is no more or `stop` says so.

    Raises:
        LoadingFailed: a worker ended or failed, or no batch came within `patience` seconds.
        MasslError: what a worker said.
        MemoryError: in a worker.
    """
    began = time.monotonic()
    while True:
        try:
            item = ready.get(timeout=LOOK)
        except queue.Empty:
            ended = [worker.exitcode for worker in workers if worker.exitcode]
            if ended:
                raise LoadingFailed(_why(ended[0])) from None
            if stop():
                return None
            if time.monotonic() - began > patience:
                raise LoadingFailed(
                    f"no batch came within {patience:,.0f} s: a drive or a network share may have stopped answering; "
                    "check that the images can be read, or allow more time with --set batch_timeout=SECONDS"
                ) from None
            continue
        if not isinstance(item, BaseException):
            return item
        if isinstance(item, OSError | EOFError):  # a worker's sockets may be closed before it counts as ended
            multiprocessing.connection.wait([worker.sentinel for worker in workers], LOOK)
            for worker in workers:
                worker.join(LOOK / len(workers))
        ended = [worker.exitcode for worker in workers if worker.exitcode]
        if ended:
            raise LoadingFailed(_why(ended[0])) from None
        if isinstance(item, MemoryError):
            raise item
        # A worker's error comes with its traceback for a text, whose last line says what it was.
        said = (str(item).strip().splitlines() or [type(item).__name__])[-1]
        if isinstance(item, MasslError):
            raise MasslError(said.partition("MasslError: ")[2] or said) from item
        raise LoadingFailed(f"a process that loads images failed ({said})") from item


def _why(code: int) -> str:
    if code == NOT_SENT:
        return "a process that loads images could not hand over a batch; try --set workers=0"
    if code in (NO_ROOM, -getattr(signal, "SIGBUS", 0)):
        return f"shared memory (/dev/shm) is full; {MORE}, or try --set workers=0"
    if code == -getattr(signal, "SIGKILL", 0):
        return "a process that loads images was killed, most likely as memory ran out; try fewer: --set workers=1"
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return f"a process that loads images ended by itself ({how}); try --set workers=0"


def _tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else torch.from_numpy(value)


def _collate_arrays(items: list[Item]) -> Any:
    """As `collate`, but arrays, which are sent through the pipe as they are: tensors would go by shared memory."""
    return _turned(collate(items), Tensor.numpy)


def _turned(batch: Batch, turn: Callable[[Any], Any]) -> Batch:
    """A batch with each of its tensors turned into something else. Who loads images gives no embeddings."""
    jpegs = batch.jpegs and batch.jpegs._replace(data=turn(batch.jpegs.data), boxes=turn(batch.jpegs.boxes))
    large, small, draws = map(turn, (batch.large, batch.small, batch.draws))
    return batch._replace(large=large, small=small, draws=draws, jpegs=jpegs)


def begin_worker(workers: int, worker: int) -> None:
    """Prepares a process that loads images: one of `workers` on this machine that share the memory for pictures."""
    BUDGET.divide(workers)
    # One thread each: the pool of workers is the parallelism. Ctrl-C is the main process's to answer.
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What it has to say goes to the main process, which says it in a sentence.
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    # By default a batch that can't be handed over, as shared memory is full, is dropped, and waited for in vain.
    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(_give_up)  # type: ignore[attr-defined]


def _give_up(error: BaseException, item: object) -> None:
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.ENOMEM)
    # torch reports a failed allocation of shared memory as a RuntimeError that only says so.
    os._exit(NO_ROOM if full or "shared memory" in str(error) or "No space left" in str(error) else NOT_SENT)


@contextlib.contextmanager
def _as_it_was(number: int | None) -> Iterator[None]:
    """Keeps a signal's handler: torch's, for dead workers, would raise in the middle of a step."""
    if number is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(number)
    try:
        yield
    finally:
        signal.signal(number, handler)
