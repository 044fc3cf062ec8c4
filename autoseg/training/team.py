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
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from autoseg.support.errors import AutosegError

T = TypeVar("T")
# How long processes wait for the one that scores or prepares. torchrun ends all when one dies, so nobody waits in vain.
_PATIENCE = timedelta(days=2)


@dataclass(frozen=True)
class Team:
    """rank: this process's number among `size`. The first one (`leads`) writes files and speaks; all compute."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def total(self, tensor: Tensor) -> Tensor:
        """Sum over all processes; gradients go back to each of them."""
        added: Tensor = tensor if self.size == 1 else _Total.apply(tensor)
        return added

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


ALONE = Team()


@contextmanager
def joined() -> Iterator[Team]:
    """The team torchrun started this process for; ALONE without torchrun."""
    if not dist.is_available() or not dist.is_torchelastic_launched():
        yield ALONE
        return
    mine = not dist.is_initialized()
    if mine:
        # By default gloo moves what is in the machine's memory, NCCL what is on GPUs.
        dist.init_process_group(timeout=_PATIENCE)
    try:
        yield Team(dist.get_rank(), dist.get_world_size())
    finally:
        if mine:
            dist.destroy_process_group()


class WholeBatch(TorchFunctionMode):
    """While active, batch norm in training mode takes its statistics over the shares of all processes.

    torch.nn.SyncBatchNorm does so on GPUs alone, and not for layers that call the function themselves.
    """

    def __init__(self, team: Team) -> None:
        super().__init__()
        self._team = team

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        named = named or {}
        if function is F.batch_norm:
            return self._batch_norm(function, *arguments, **named)
        return function(*arguments, **named)

    def _batch_norm(
        self,
        function: Any,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        if not training:
            return function(input, running_mean, running_var, weight, bias, training, momentum, eps)  # type: ignore[no-any-return]
        with torch.autocast(input.device.type, enabled=False):
            values = input.float()
            axes = [axis for axis in range(values.ndim) if axis != 1]
            shape = [-1 if axis == 1 else 1 for axis in range(values.ndim)]
            count = self._team.total(torch.tensor([values.numel() / values.shape[1]], device=values.device))
            mean = self._team.total(values.sum(axes)) / count
            centred = values - mean.view(shape)
            variance = self._team.total((centred * centred).sum(axes)) / count
            if running_mean is not None and running_var is not None:
                with torch.no_grad():
                    running_mean.lerp_(mean.to(running_mean), momentum)
                    running_var.lerp_((variance * (count / (count - 1))).to(running_var), momentum)
            factor = torch.rsqrt(variance + eps) if weight is None else torch.rsqrt(variance + eps) * weight
            output = centred * factor.view(shape)
            output = output if bias is None else output + bias.view(shape)
            return output.to(input.dtype)


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, tensor: Tensor) -> Tensor:
        added = tensor.detach().clone()
        dist.all_reduce(added)
        return added

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        added = gradient.contiguous().clone()
        dist.all_reduce(added)
        return added
