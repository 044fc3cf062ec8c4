"""Makes the meta device behave like a processor or GPU where it matters for memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_HALF = torch.bfloat16
# What autocast runs in half precision. (Its list names the functions below these; these are the ones Python can call.)
_IN_HALF = {
    F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d, F.linear, F.prelu,
    F.multi_head_attention_forward, torch.conv1d, torch.conv2d, torch.conv3d, torch.conv_transpose1d, torch.conv_transpose2d,
    torch.conv_transpose3d, torch.einsum, torch.prelu,
    *(getattr(holder, name) for holder in (torch, Tensor) for name in ("matmul", "mm", "bmm", "baddbmm", "addmm", "addbmm")),
    Tensor.__matmul__, Tensor.__rmatmul__,
}  # fmt: skip
# What autocast runs in single precision.
_IN_SINGLE = {F.grid_sample, torch.grid_sampler, torch.prod, Tensor.prod, torch.cdist}


class Rehearsal(TorchFunctionMode):
    """While it is in force, functions on meta tensors give the types they would give under autocast, and scaled dot-product
    attention saves what the fused kernels save: its inputs, its result, one number a row.

    Whether autocast is on is asked of the processor's ("cpu"), so that a network can switch it off for a part of itself.
    As autocast does, weights are cast once and their copies kept.
    """

    def __init__(self) -> None:
        super().__init__()
        self._copies: dict[int, Tensor] = {}

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        if function is F.scaled_dot_product_attention:
            return self._attention(*args, **named)
        if function in _IN_HALF and _autocast_is_on():
            args, named = self._cast(args, self._to_half), self._cast(named, self._to_half)
        elif function in _IN_SINGLE and _autocast_is_on():
            args, named = self._cast(args, _to_single), self._cast(named, _to_single)
        return function(*args, **named)

    def _attention(self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **named: Any) -> Tensor:
        if _autocast_is_on():
            query, key, value = self._to_half(query), self._to_half(key), self._to_half(value)
        result: Tensor = _FusedAttention.apply(query, key, value)
        return result

    def _cast(self, values: Any, cast: Callable[[Tensor], Tensor]) -> Any:
        if isinstance(values, Tensor):
            return cast(values)
        if isinstance(values, dict):
            return {key: self._cast(value, cast) for key, value in values.items()}
        if isinstance(values, list | tuple):
            return type(values)(self._cast(value, cast) for value in values)
        return values

    def _to_half(self, tensor: Tensor) -> Tensor:
        if tensor.dtype != torch.float32:
            return tensor
        if not (tensor.is_leaf and tensor.requires_grad):
            return tensor.to(_HALF)
        if id(tensor) not in self._copies:
            self._copies[id(tensor)] = tensor.to(_HALF)
        return self._copies[id(tensor)]


def _autocast_is_on() -> bool:
    try:
        return torch.is_autocast_enabled("cpu")
    except TypeError:
        # Before torch 2.4 there was a function for each device.
        return bool(torch.is_autocast_cpu_enabled())


def _to_single(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype == _HALF else tensor


class _FusedAttention(torch.autograd.Function):
    """(B, heads, N, D) each. Only shapes and saved tensors are right: nothing is computed."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:  # type: ignore[override]
        batch = torch.broadcast_shapes(query.shape[:-2], key.shape[:-2])
        # Heads lie beside each other in memory, so that joining them afterwards copies nothing.
        result = query.new_empty((*batch[:-1], query.shape[-2], batch[-1], value.shape[-1])).transpose(-2, -3)
        rows = torch.empty((*batch, query.shape[-2]), device=query.device)
        ctx.save_for_backward(query, key, value, result, rows)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        query, key, value, _, _ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
