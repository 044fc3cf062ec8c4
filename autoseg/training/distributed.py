"""Training one network with several processes (torchrun). With a single process, all of this does nothing.

Each process has a shard of the batch. Sums over the batch (counts of Dice, statistics of batch norm, gradients) run over all
shards. So the number of processes changes the time of a step, not its result.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn import functional as dist_functional

from autoseg.support.errors import AutosegError

T = TypeVar("T")
Network = TypeVar("Network", bound=nn.Module)
# How long processes wait for the main one while it scores or preprocesses. torchrun ends all when one dies.
_TIMEOUT = timedelta(days=2)


@dataclass(frozen=True)
class DistributedContext:
    """rank: number of this process, 0 to size - 1. Process 0 (`is_main`) writes files and logs; all compute."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Sum over all processes. Gradients flow back to each of them."""
        if self.size == 1:
            return tensor
        summed: Tensor = dist_functional.all_reduce(tensor)
        return summed

    def any(self, condition: bool) -> bool:
        """Whether the condition is true in any process."""
        return condition if self.size == 1 else bool(self.all_reduce(torch.tensor([float(condition)])).item())

    def all_gather(self, item: T) -> list[T]:
        """The items of all processes, in order of rank."""
        items: list[Any] = [item] * self.size
        if self.size > 1:
            dist.all_gather_object(items, item)
        return items

    def barrier(self) -> None:
        """Wait until all processes have reached this call."""
        if self.size > 1:
            self.any(False)

    def shard(self, items: Sequence[T]) -> Sequence[T]:
        """This process's contiguous part of the items. Sizes differ by at most one."""
        quotient, remainder = divmod(len(items), self.size)
        first = self.rank * quotient + min(self.rank, remainder)
        return items[first : first + quotient + (self.rank < remainder)]

    def device(self, chosen: torch.device) -> torch.device:
        """The device of this process: one GPU each for CUDA."""
        if self.size == 1 or chosen.type == "cpu":
            return chosen
        if chosen.type != "cuda":
            raise AutosegError(f"several processes cannot train on {chosen}", "use --device cuda or cpu with torchrun")
        # The number on this machine, not among all: machines need not have equal numbers of processes. Where the launcher
        # gave each process one GPU of its own to see, there is only number 0.
        return torch.device("cuda", dist.get_node_local_rank(self.rank) % torch.cuda.device_count())

    def sync_batch_norm(self, network: Network, device: torch.device) -> Network:
        """The network with `SyncBatchNorm` in place of batch norm: statistics over the shards of all processes.

        Parameters and names of the state dict stay the same. PyTorch has SyncBatchNorm for CUDA only: on a CPU each
        process normalises over its own shard, and the running statistics of process 0 are saved.
        """
        if self.size == 1 or device.type != "cuda":
            return network
        # PyTorch's own conversion drops the activation inside timm's BatchNormAct2d.
        from timm.layers.norm_act import convert_sync_batchnorm

        converted: Network = convert_sync_batchnorm(network)
        return converted


SINGLE_PROCESS = DistributedContext()


@contextmanager
def distributed_context() -> Iterator[DistributedContext]:
    """The processes started by torchrun; `SINGLE_PROCESS` without torchrun."""
    if not dist.is_available() or not dist.is_torchelastic_launched():
        yield SINGLE_PROCESS
        return
    initialised_here = not dist.is_initialized()
    if initialised_here:
        # The default backend is gloo for CPU tensors and NCCL for CUDA tensors.
        dist.init_process_group(timeout=_TIMEOUT)
    try:
        yield DistributedContext(dist.get_rank(), dist.get_world_size())
    finally:
        if initialised_here:
            dist.destroy_process_group()
