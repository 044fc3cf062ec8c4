"""The processes that train one network together, started by torchrun; alone, all of this does nothing.

What one process would add up over a batch (counts of Dice, statistics of batch norm, gradients) is added up over all shares
of the batch, so that more processes change the time a step takes, and not what it computes.
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
from torch.distributed.nn.functional import all_reduce

from autoseg.support.errors import AutosegError

T = TypeVar("T")
Network = TypeVar("Network", bound=nn.Module)
# How long processes wait for the one that scores or prepares. torchrun ends all when one dies, so nobody waits in vain.
_PATIENCE = timedelta(days=2)


@dataclass(frozen=True)
class DistributedContext:
    """rank: this process's number among `size`. The first one (`is_main`) writes files and speaks; all compute."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def total(self, tensor: Tensor) -> Tensor:
        """Sum over all processes; gradients go back to each of them."""
        if self.size == 1:
            return tensor
        summed: Tensor = all_reduce(tensor)
        return summed

    def any(self, here: bool) -> bool:
        """Whether it is so in any process."""
        return here if self.size == 1 else bool(self.total(torch.tensor([float(here)])).item())

    def gather(self, here: T) -> list[T]:
        """What each process has, in order of rank, in all of them."""
        everywhere: list[Any] = [here] * self.size
        if self.size > 1:
            dist.all_gather_object(everywhere, here)
        return everywhere

    def wait(self) -> None:
        """Until all have come so far."""
        if self.size > 1:
            self.any(False)

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This process's part of a batch: neighbours, as equal in number as can be."""
        least, more = divmod(len(items), self.size)
        first = self.rank * least + min(self.rank, more)
        return items[first : first + least + (self.rank < more)]

    def device(self, chosen: torch.device) -> torch.device:
        """A GPU for each process of a machine, where one did not name it."""
        if self.size == 1 or chosen.type == "cpu":
            return chosen
        if chosen.type != "cuda":
            raise AutosegError(f"several processes cannot train on {chosen}", "use --device cuda or cpu with torchrun")
        return torch.device("cuda", self.rank % torch.cuda.device_count())

    def sync_batch_norm(self, network: Network, device: torch.device) -> Network:
        """The network with `SyncBatchNorm` in place of batch norm: statistics over the shares of all processes.

        Parameters and the names of the state dict stay. PyTorch has it for CUDA alone: on a processor each process
        normalises over its own share, and running statistics are those of the first process.
        """
        if self.size == 1 or device.type != "cuda":
            return network
        # PyTorch's own conversion would drop the activation inside timm's BatchNormAct2d.
        from timm.layers.norm_act import convert_sync_batchnorm

        converted: Network = convert_sync_batchnorm(network)
        return converted


SINGLE_PROCESS = DistributedContext()


@contextmanager
def distributed_context() -> Iterator[DistributedContext]:
    """The team torchrun started this process for; ALONE without torchrun."""
    if not dist.is_available() or not dist.is_torchelastic_launched():
        yield SINGLE_PROCESS
        return
    mine = not dist.is_initialized()
    if mine:
        # By default gloo moves what is in the machine's memory, NCCL what is on GPUs.
        dist.init_process_group(timeout=_PATIENCE)
    try:
        yield DistributedContext(dist.get_rank(), dist.get_world_size())
    finally:
        if mine:
            dist.destroy_process_group()
