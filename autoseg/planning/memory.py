"""How much memory a training step of any network takes, found without computing anything.

The network runs forward on the meta device: tensors have shapes and types but no values. Hooks on the tensors autograd saves
count each storage once: the sum is what a real forward pass keeps for its backward pass. What the meta device leaves out,
`Rehearsal` adds: the types autocast would choose, and attention that does not keep its matrix.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from autoseg.planning.rehearsal import Rehearsal
from autoseg.planning.shapes import Shapes
from autoseg.support.extensions import OPTIMIZERS

# Tensors an optimiser keeps for each weight; those of other packages say so themselves (`states`).
_STATES = {"adamw": 2, "sgd": 1}
_MOST_COMMON = 2
# Full-size float32 maps a loss keeps for each output: logits, probabilities, targets.
_LOSS_MAPS = 3


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Bytes, but for the batch. activations: what a training forward pass saves for the backward pass.

    fixed: the part of them that does not grow with the batch (autocast's half-precision copies of the weights). largest:
    the largest single storage that grows. parameters: weights and buffers. trainable: the weights that get gradients.
    """

    batch: int
    activations: int
    fixed: int
    largest: int
    parameters: int
    trainable: int

    def at_batch(self, batch: int) -> Measurement:
        """The same network with another batch: what grows, grows evenly."""
        growth = batch / self.batch
        activations = self.fixed + round((self.activations - self.fixed) * growth)
        return replace(self, batch=batch, activations=activations, largest=round(self.largest * growth))


def measure(network: nn.Module, input_shape: tuple[int, int, int, int], precision: str = "fp32") -> Measurement:
    """Measure a network (on any device, the meta device included) for a batch of `input_shape` (B, C, H, W).

    precision: "fp32", or "bf16"/"fp16" for autocast. The network is left as it was.
    """
    was_training = network.training
    weights = [*network.parameters()]
    try:
        saved = _saved(network.train(), input_shape, precision)
    finally:
        network.train(was_training)
    return Measurement(
        batch=input_shape[0],
        activations=sum(size for size, _ in saved),
        fixed=sum(size for size, fixed in saved if fixed),
        largest=max((size for size, fixed in saved if not fixed), default=0),
        parameters=sum(_bytes(tensor) for tensor in [*weights, *network.buffers()]),
        trainable=sum(_bytes(weight) for weight in weights if weight.requires_grad),
    )


def count_flops(network: nn.Module, input_shape: tuple[int, int, int, int]) -> int:
    """Multiplications and additions of a forward pass in evaluation mode, on the meta device."""
    was_training, seen = network.training, Shapes()
    network.eval()
    try:
        with torch.no_grad(), torch.device("meta"), _without_values(network, False), seen:
            network(torch.zeros(input_shape))
    finally:
        network.train(was_training)
    return seen.flops


def training_memory(measured: Measurement, loss_pixels: int, optimizer: str = "adamw") -> int:
    """Bytes that a training step takes: activations, the loss's maps, weights, gradients, optimiser state, and room for
    two more tensors of the largest kind, which the backward pass needs while it works.

    loss_pixels: logits of the batch, B * K * H * W.
    """
    states = _STATES[optimizer] if optimizer in _STATES else getattr(OPTIMIZERS.get(optimizer), "states", _MOST_COMMON)
    state = measured.trainable * (1 + states)
    return measured.activations + 2 * measured.largest + 4 * _LOSS_MAPS * loss_pixels + measured.parameters + state


def _saved(network: nn.Module, input_shape: tuple[int, ...], precision: str) -> list[tuple[int, bool]]:
    """Each storage saved for the backward pass, weights left out: bytes, and whether it is a copy of a weight."""
    shapes = {tuple(sorted(weight.shape)) for weight in network.parameters()}
    # The storages are kept, so that no later one can take the address of one that was counted.
    found: dict[int, tuple[torch.UntypedStorage, bool]] = {}
    with torch.device("meta"), _without_values(network) as tensors:
        own = {tensor.untyped_storage()._cdata for tensor in tensors}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in own and storage._cdata not in found:
                half = tensor.dtype in (torch.bfloat16, torch.float16)
                found[storage._cdata] = storage, half and tuple(sorted(tensor.shape)) in shapes
            return tensor

        autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision != "fp32")
        with saved_tensors_hooks(keep, lambda tensor: tensor), autocast, Rehearsal(), Shapes():
            output = network(torch.zeros(input_shape))
        del output
        return [(storage.nbytes(), copied) for storage, copied in found.values()]


@contextmanager
def _without_values(network: nn.Module, learned: bool = True) -> Iterator[list[Tensor]]:
    """Puts new tensors in the place of all weights and buffers, made on the device in force; then the old back.

    learned: whether the weights still ask for gradients. torch.func.functional_call is meant for this, but leaves its
    tensors behind in networks that hold a module twice.
    """
    held = [holder for module in network.modules() for holder in (module._parameters, module._buffers)]
    before = [(holder, name, tensor) for holder in held for name, tensor in holder.items() if tensor is not None]
    made: dict[int, Tensor] = {}
    try:
        for holder, name, tensor in before:
            if id(tensor) not in made:
                made[id(tensor)] = _empty_like(tensor, learned)
            holder[name] = made[id(tensor)]  # type: ignore[assignment]
        yield list(made.values())
    finally:
        for holder, name, tensor in before:
            holder[name] = tensor  # type: ignore[assignment]


def _empty_like(tensor: Tensor, learned: bool) -> Tensor:
    empty = torch.empty(tensor.shape, dtype=tensor.dtype)
    return nn.Parameter(empty, tensor.requires_grad and learned) if isinstance(tensor, nn.Parameter) else empty


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
