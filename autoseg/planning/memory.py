"""How much memory a training step of any network takes, found without computing anything.

The network runs forward on fake tensors: they have shapes, types and a device, but no values. Hooks on the tensors autograd
saves count each storage once: the sum is what a real forward pass keeps for its backward pass. Autocast is the real one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from autoseg.models.fake_tensors import can_be_fake, fake_autocast, fake_tensors, meta_tensors
from autoseg.support.extensions import OPTIMIZERS

# Tensors an optimiser keeps for each weight; those of other packages say so themselves (`states`).
_STATES = {"adamw": 2, "sgd": 1}
_MOST_COMMON = 2
_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
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


def measure(
    network: nn.Module, input_shape: tuple[int, int, int, int], precision: str = "fp32", device: str = "cpu"
) -> Measurement:
    """Measure a network (on any device, the meta device included) for a batch of `input_shape` (B, C, H, W).

    precision: "fp32", or "bf16"/"fp16" for autocast. device: that of the training, "cpu", "cuda" or "mps". "mps" is measured
    as a CPU, and so is "cuda" where PyTorch cannot have fake tensors on it (`can_be_fake`). The network is left as it was.
    """
    was_training = network.training
    weights = [*network.parameters()]
    place = device if device == "cuda" and can_be_fake(device) else "cpu"
    try:
        saved = _saved(network.train(), input_shape, precision, place)
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
    """Multiplications and additions of convolutions and matrix products, in a forward pass in evaluation mode."""
    # Imported here, because it may load Triton.
    from torch.utils.flop_counter import FlopCounterMode

    was_training, counter = network.training, FlopCounterMode(display=False)
    network.eval()
    try:
        with torch.no_grad(), meta_tensors(network), torch.device("meta"), counter:
            network(torch.zeros(input_shape))
    finally:
        network.train(was_training)
    return int(counter.get_total_flops())


def training_memory(measured: Measurement, loss_pixels: int, optimizer: str = "adamw") -> int:
    """Bytes that a training step takes: activations, the loss's maps, weights, gradients, optimiser state, and room for
    two more tensors of the largest kind, which the backward pass needs while it works.

    loss_pixels: logits of the batch, B * K * H * W.
    """
    states = _STATES[optimizer] if optimizer in _STATES else getattr(OPTIMIZERS.get(optimizer), "states", _MOST_COMMON)
    state = measured.trainable * (1 + states)
    return measured.activations + 2 * measured.largest + 4 * _LOSS_MAPS * loss_pixels + measured.parameters + state


def _saved(network: nn.Module, input_shape: tuple[int, ...], precision: str, device: str) -> list[tuple[int, bool]]:
    """Bytes of each storage saved for the backward pass, without weights, and whether it is a copy of a weight."""
    shapes = {tuple(sorted(weight.shape)) for weight in network.parameters()}
    # Keeps the storages alive, so that no later one can get the address of a counted one.
    saved_storages: dict[int, tuple[torch.UntypedStorage, bool]] = {}
    autocast = nullcontext() if precision == "fp32" else fake_autocast(device, _HALF[precision])
    with fake_tensors(network, device) as tensors:
        own = {tensor.untyped_storage()._cdata for tensor in tensors}

        def count(tensor: Tensor) -> None:
            storage = tensor.untyped_storage()
            if storage._cdata not in own and storage._cdata not in saved_storages:
                half = tensor.dtype in (torch.bfloat16, torch.float16)
                saved_storages[storage._cdata] = storage, half and tuple(sorted(tensor.shape)) in shapes

        # A hook that returned the tensor would make a reference cycle through the graph, which would never be freed.
        with saved_tensors_hooks(count, _no_backward), autocast, _FusedAttention():
            output = network(torch.zeros(input_shape, device=device))
        del output
        return [(storage.nbytes(), copied) for storage, copied in saved_storages.values()]


def _no_backward(_: None) -> Tensor:
    raise RuntimeError("a network that is measured has no backward pass")


class _FusedAttention(TorchFunctionMode):
    """While it is in force, scaled dot-product attention saves what the fused kernels save: inputs, result, one number a row.

    Fake tensors of a device that is not there get the attention that keeps its whole matrix, or an error.
    """

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if function is F.scaled_dot_product_attention:
            return _attention(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))


def _attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *_: Any, **__: Any) -> Tensor:
    """(B, heads, N, D) each."""
    device = query.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else query.dtype
    # The kernels add the mask to the products, so that it has their type.
    mask = None if attn_mask is None else attn_mask.to(dtype)
    result: Tensor = _Attention.apply(query.to(dtype), key.to(dtype), value.to(dtype), mask)
    return result


class _Attention(torch.autograd.Function):
    """Only shapes and saved tensors are right: nothing is computed."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:  # type: ignore[override]
        batch = torch.broadcast_shapes(query.shape[:-2], key.shape[:-2])
        # Heads are interleaved in memory, so that joining them afterwards copies nothing.
        result = query.new_empty((*batch[:-1], query.shape[-2], batch[-1], value.shape[-1])).transpose(-2, -3)
        rows = torch.empty((*batch, query.shape[-2]), device=query.device)
        ctx.save_for_backward(query, key, value, mask, result, rows)
        return result


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
