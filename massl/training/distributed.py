"""One path for one process and for many: what ranks that learn together tell each other."""

from __future__ import annotations

import logging
import os
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from massl.core.machine import cores
from massl.training.devices import choose_device

# Long enough for rank 0 to measure and to write a checkpoint while the others wait for it.
PATIENCE = timedelta(minutes=30)


@dataclass(frozen=True)
class World:
    """The ranks that learn together: how many, which is this one, and its device. By default, this process alone."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls, device: torch.device | None = None) -> World:
        """Joins the others that torchrun started, if it did: its environment says who and where.

        Raises:
            MasslError: there are fewer GPUs than ranks on this host.
        """
        device = device or choose_device()
        size = int(os.environ.get("WORLD_SIZE", 1))
        if device.type == "cuda":
            torch.cuda.set_device(device)  # also alone: what asks for no device takes the current one
        if size == 1:
            return cls(device)
        if device.type == "mps":
            device = torch.device("cpu")  # there is no communication between its processes
        if not dist.is_initialized():
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
        return cls(device, dist.get_rank(), size)

    def leave(self) -> None:
        """Ends the communication, if there was any."""
        if self.linked:
            dist.destroy_process_group()

    @property
    def size_here(self) -> int:
        """How many of the ranks are on this host, as torchrun tells."""
        return min(self.size, int(os.environ.get("LOCAL_WORLD_SIZE", self.size)))

    @property
    def device_ids(self) -> list[int] | None:
        """As DistributedDataParallel wants them: this rank's GPU, or None on a CPU."""
        return [self.device.index] if self.device.type == "cuda" else None

    @property
    def linked(self) -> bool:
        """Whether ranks talk to each other by a process group, which may be of this one alone."""
        return self.size > 1 or (dist.is_available() and dist.is_initialized())

    def gather(self, tensor: Tensor) -> Tensor:
        """The tensors `[n, ...]` of all ranks, one after the other, on each of them: `[size · n, ...]`."""
        if not self.linked:
            return tensor
        gathered = tensor.new_empty((self.size * tensor.shape[0], *tensor.shape[1:]))
        # The one by its new name, which earlier versions of torch don't have.
        gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
        gather(gathered, tensor.contiguous())
        return gathered

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean over all ranks, on each of them."""
        if not self.linked:
            return tensor
        total = tensor.clone()
        dist.all_reduce(total)
        return total / self.size

    def lost_another(self, error: RuntimeError) -> bool:
        """Whether an error says that another rank has ended, or can't be reached any more."""
        return self.linked and (isinstance(error, dist.DistError) or "gloo" in str(error))

    def any(self, flag: bool) -> bool:
        """Whether any rank says so, on each of them."""
        return flag if not self.linked else bool(self.mean(torch.tensor(float(flag), device=self.device)) > 0)

    def share(self, value: Any) -> Any:
        """Rank 0's value, on each of them."""
        if not self.linked:
            return value
        values = [value]
        dist.broadcast_object_list(values, device=self.device)
        return values[0]


def launch(arguments: Sequence[str], devices: int) -> int:
    """Runs `massl ARGUMENTS` in as many processes as `devices` on this host, under torchrun's agent.

    SIGTERM and Ctrl-C go on to the processes, which checkpoint and end. Several hosts call torchrun themselves:
    `torchrun --nnodes … --nproc-per-node … -m cli train …`.

    Returns:
        The exit code: 0, or that of the first process that failed, or 130 when interrupted.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)  # our processes say what went wrong
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=devices,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    # As torchrun does: more would be more threads than cores.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // devices)))
    try:
        elastic_launch(config, sys.executable)("-m", "cli", *arguments)
    except ChildFailedError as error:
        return error.get_first_failure()[1].exitcode
    except (SignalException, KeyboardInterrupt):
        return 130
    return 0
