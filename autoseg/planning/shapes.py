"""What operations give on the meta device, where only shapes and types count: by rule, for those that networks use most.

PyTorch works most of them out in Python: a millisecond each, and loading its compiler and SymPy for the first of them takes
1.3 seconds of a processor and 160 MiB. What no rule covers is left to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

Normed = tuple[Tensor, Tensor, Tensor]
_aten = torch.ops.aten
_SAME = (
    "relu", "leaky_relu", "gelu", "silu", "elu", "hardtanh", "hardswish", "hardsigmoid", "softplus", "sigmoid", "tanh", "exp",
    "log", "sqrt", "rsqrt", "abs", "neg", "sin", "cos", "erf", "clamp", "clamp_min", "clamp_max", "pow", "reciprocal",
)  # fmt: skip
_BINARY = ("add", "sub", "mul", "div", "maximum", "minimum")
_FILLING = ("normal_", "uniform_", "zero_", "fill_", "erfinv_", "bernoulli_", "copy_")


class Shapes(TorchDispatchMode):
    """While it is in force, results on the meta device are made by rule. flops: multiplications and additions of
    convolutions and matrix products that passed."""

    def __init__(self) -> None:
        super().__init__()
        self.flops: int = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # PyTorch asks this: to be shielded from the compiler is to load it.
        return False

    def __torch_dispatch__(
        self, function: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        rule = _RULES.get(function)
        result = rule(args) if rule is not None else None
        if result is None:
            result = function(*args, **named)
        if function in _FLOPS:
            self.flops += _FLOPS[function](args, result)
        return result


def _itself(args: Sequence[Any]) -> Tensor | None:
    """In place."""
    x: Tensor = args[0]
    others = [other for other in args[1:] if isinstance(other, Tensor)]
    return x if x.is_meta and _common(x, *others) == x.shape else None


def _like_first(args: Sequence[Any]) -> Tensor | None:
    """Of one tensor and numbers."""
    x, *others = args
    if any(isinstance(other, Tensor) for other in others) or not _is_plain(x):
        return None
    return _alike(x)


def _broadcast(args: Sequence[Any]) -> Tensor | None:
    """Of two tensors, one of which has the result's shape and decides how it lies in memory."""
    one, other = args[:2]
    if not isinstance(other, Tensor):
        return _like_first((one,))
    if not (_is_plain(one) and _is_plain(other)) or one.dtype != other.dtype:
        return None
    shape = _common(one, other)
    whole = one if one.shape == shape else other
    return _alike(whole) if whole.shape == shape else None


def _common(*tensors: Tensor) -> tuple[int, ...] | None:
    """The shape that all can be expanded to. PyTorch's own function for it loads SymPy."""
    try:
        return np.broadcast_shapes(*(tensor.shape for tensor in tensors))
    except ValueError:
        return None


def _joined(args: Sequence[Any]) -> Tensor | None:
    """Of tensors joined along an axis."""
    parts, axis = args[0], args[1] if len(args) > 1 else 0
    first: Tensor = parts[0]
    if not all(part.is_meta and part.dtype == first.dtype and part.is_contiguous() for part in parts):
        return None
    shapes = [list(part.shape) for part in parts]
    length = sum(shape.pop(axis) for shape in shapes if len(shape) == first.dim())
    if any(shape != shapes[0] for shape in shapes):
        return None
    whole = list(first.shape)
    whole[axis] = length
    return first.new_empty(whole)


def _repeated(args: Sequence[Any]) -> Tensor | None:
    x: Tensor = args[0]
    times: Sequence[int] = args[1]
    if not x.is_meta or len(times) < x.dim():
        return None
    shape = [1] * (len(times) - x.dim()) + [*x.shape]
    return x.new_empty([size * count for size, count in zip(shape, times, strict=True)])


def _batch_norm(args: Sequence[Any]) -> Normed | None:
    """(B, C, ...), with mean and deviation of each channel where they are those of the batch."""
    x, training = args[0], args[5]
    return _normed(x, (x.shape[1] if training else 0,), _is_last(x))


def _group_norm(args: Sequence[Any]) -> Normed | None:
    x, batch, groups = args[0], args[3], args[6]
    return _normed(x, (batch, groups), _is_last(x))


def _layer_norm(args: Sequence[Any]) -> Normed | None:
    x, axes = args[0], len(args[1])
    return _normed(x, (*x.shape[:-axes], *[1] * axes))


def _normed(x: Tensor, statistics: tuple[int, ...], last: bool = False) -> Normed | None:
    """last: the layout is one that is kept, though channels come last in it."""
    if not (_is_plain(x) and (last or x.is_contiguous())):
        return None
    mean, deviation = (x.new_empty(statistics, dtype=torch.float32) for _ in range(2))
    return _alike(x), mean, deviation


def _alike(x: Tensor) -> Tensor:
    # torch.empty_like is one of the functions in Python.
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device)


def _is_plain(x: Any) -> bool:
    """A meta tensor of floating-point numbers that fills its memory without gaps or overlap."""
    if not (isinstance(x, Tensor) and x.is_meta and x.is_floating_point()):
        return False
    return x.is_contiguous() or _is_dense(x)


def _is_last(x: Tensor) -> bool:
    """Whether channels lie closest together in memory."""
    return not x.is_contiguous() and x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)


def _is_dense(x: Tensor) -> bool:
    expected = 1
    for stride, size in sorted((stride, size) for stride, size in zip(x.stride(), x.shape, strict=True) if size != 1):
        if stride != expected:
            return False
        expected *= size
    return True


def _convolved(args: Sequence[Any]) -> Tensor | None:
    """(B, C, ...) with weights (out, C / groups, ...), transposed ones (C, out / groups, ...)."""
    x, weight, _, strides, paddings, dilations, transposed, extras, groups = args
    axes = x.dim() - 2
    if not (_is_plain(x) and weight.is_contiguous() and weight.dtype == x.dtype):
        return None
    last = _is_last(x)
    if not (last or x.is_contiguous()):
        return None
    sizes = []
    given = (_each(values, axes) for values in (strides, paddings, dilations, extras))
    for size, kernel, stride, padding, dilation, extra in zip(x.shape[2:], weight.shape[2:], *given, strict=True):
        reach = dilation * (kernel - 1)
        if transposed:
            sizes.append((size - 1) * stride - 2 * padding + reach + extra + 1)
        else:
            sizes.append((size + 2 * padding - reach - 1) // stride + 1)
    channels = weight.shape[1] * groups if transposed else weight.shape[0]
    if x.shape[1] != (weight.shape[0] if transposed else weight.shape[1] * groups) or min(sizes) < 1:
        return None  # PyTorch has the words for it.
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty((x.shape[0], channels, *sizes), dtype=x.dtype, device=x.device, memory_format=layout)


def _each(values: Sequence[int], axes: int) -> Sequence[int]:
    return values if len(values) == axes else [*values] * axes


def _product(args: Sequence[Any], result: Tensor) -> int:
    """(..., N, K) times (..., K, M)."""
    return 2 * result.numel() * int(args[0].shape[-1])


def _added_product(args: Sequence[Any], result: Tensor) -> int:
    return _product(args[1:], result)


def _convolution(args: Sequence[Any], result: Tensor) -> int:
    """Each weight meets each place: of the output, or of the input where the convolution is transposed."""
    x, weight, transposed = args[0], args[1], args[6]
    places = prod((x if transposed else result).shape[2:])
    flops: int = 2 * x.shape[0] * places * weight.numel()
    return flops


def _overloads(name: str) -> list[Any]:
    packet = getattr(_aten, name, None)
    return [getattr(packet, overload) for overload in packet.overloads() if "out" not in overload] if packet else []


_RULES: dict[Any, Callable[[Sequence[Any]], Tensor | Normed | None]] = {
    **{function: _like_first for name in _SAME for function in _overloads(name)},
    **{function: _broadcast for name in _BINARY for function in _overloads(name)},
    **{function: _itself for name in (*_SAME, *_BINARY) for function in _overloads(f"{name}_")},
    **{function: _itself for name in _FILLING for function in _overloads(name)},
    _aten.cat.default: _joined,
    _aten.repeat.default: _repeated,
    _aten.convolution.default: _convolved,
    _aten.native_batch_norm.default: _batch_norm,
    _aten.native_group_norm.default: _group_norm,
    _aten.native_layer_norm.default: _layer_norm,
}
_FLOPS: dict[Any, Callable[[Sequence[Any], Any], int]] = {
    _aten.mm.default: _product,
    _aten.bmm.default: _product,
    _aten.addmm.default: _added_product,
    _aten.baddbmm.default: _added_product,
    _aten.convolution.default: _convolution,
}
