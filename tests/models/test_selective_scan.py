"""The scan in segments equals the recurrence in values and gradients; its memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from autoseg.models.fake_tensors import can_be_fake
from autoseg.models.layers import selective_scan as module
from autoseg.models.layers.selective_scan import scan_by_kernel, selective_scan, sequential_scan

NAMES = ("x", "step", "A", "B", "C", "skip", "bias")
BROAD, NARROW = {"groups": 4, "width": 96, "state": 16}, {"groups": 2, "width": 3, "state": 4}


def arguments(length: int, batch: int = 2, groups: int = 2, width: int = 3, state: int = 4) -> list[Tensor]:
    source = torch.Generator().manual_seed(length)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=source)

    rows = (length, batch, groups)
    return [
        normal(*rows, width), 0.5 * normal(*rows, width), -torch.exp(normal(groups, state, width)),
        normal(*rows, state), normal(*rows, state), normal(groups, width), 0.5 * normal(groups, width) - 2.0,
    ]


def with_gradients(scan: Any, tensors: list[Tensor]) -> dict[str, Tensor]:
    leaves = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    y = scan(*leaves)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(7)).to(y.dtype)
    y.backward(weights)
    return {"y": y.detach()} | {name: leaf.grad for name, leaf in zip(NAMES, leaves, strict=True)}


def check(length: int, batch: int, shape: dict[str, int]) -> None:
    tensors = arguments(length, batch, **shape)
    ours = with_gradients(selective_scan, tensors)
    exact = with_gradients(sequential_scan, [tensor.double() for tensor in tensors])
    for name, value in ours.items():
        assert value.dtype == torch.float32
        error, size = float((value - exact[name]).abs().max()), float(exact[name].abs().max())
        assert error <= 1e-4 * size, f"{name}: error {error:.1e} where values reach {size:.1e}"


@pytest.mark.parametrize("length", [1, 2, 49, 97, 1024, 4099])
def test_narrow_states_equal_the_recurrence_in_double_precision(length: int) -> None:
    check(length, 2, NARROW)


@pytest.mark.parametrize("length", [1, 49, 700])
def test_broad_states_equal_the_recurrence_in_double_precision(length: int) -> None:
    check(length, 2, BROAD)


@pytest.mark.parametrize("segment", [1, 100, 5_000, 2**30])
@pytest.mark.parametrize("shape", [BROAD, NARROW], ids=["broad", "narrow"])
def test_segments_of_every_length_give_the_same(
    monkeypatch: pytest.MonkeyPatch, shape: dict[str, int], segment: int
) -> None:
    monkeypatch.setattr(module, "_SEGMENT_VALUES", segment)
    monkeypatch.setattr(module, "_MIN_ROWS", 1)
    check(200, 3, shape)


def test_rows_one_by_one_as_on_a_gpu_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SEQUENTIAL_FOREACH", ())
    check(200, 2, NARROW)


def test_the_number_of_threads_is_not_changed() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with_gradients(selective_scan, arguments(500, 3, **BROAD))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_inference_mode_gives_the_same() -> None:
    tensors = arguments(400, 4, **BROAD)
    expected = selective_scan(*tensors)
    with torch.inference_mode():
        assert torch.equal(selective_scan(*tensors), expected)


@pytest.mark.slow
def test_a_very_long_sequence() -> None:
    check(65_536, 1, {"groups": 1, "width": 2, "state": 4})


def test_gradientsequal_finite_differences() -> None:
    """Independent of the recurrence's gradient: small steps along random directions."""
    tensors = arguments(60, 1, **NARROW)
    gradients = with_gradients(selective_scan, tensors)
    weights = torch.randn(gradients["y"].shape, generator=torch.Generator().manual_seed(7))
    for i, name in enumerate(NAMES):
        direction = torch.randn(tensors[i].shape, generator=torch.Generator().manual_seed(i))
        ends = []
        for sign in (1, -1):
            moved = [tensor.double() for tensor in tensors]
            moved[i] = moved[i] + sign * 1e-5 * direction
            ends.append((sequential_scan(*moved) * weights).sum())
        slope = float(ends[0] - ends[1]) / 2e-5
        assert float((gradients[name] * direction).sum()) == pytest.approx(slope, rel=1e-3, abs=1e-3), name


def test_strong_decay_neither_overflows_nor_leaks() -> None:
    tensors = arguments(300, 1, **NARROW)
    tensors[2] = tensors[2] * 1000
    gradients = with_gradients(selective_scan, tensors)
    exact = with_gradients(sequential_scan, [tensor.double() for tensor in tensors])
    for name, value in gradients.items():
        torch.testing.assert_close(value.double(), exact[name], rtol=1e-4, atol=1e-4 * float(exact[name].abs().max()))


def test_autocast_changes_nothing() -> None:
    tensors = arguments(100, 1, **NARROW)
    expected = with_gradients(selective_scan, tensors)
    with torch.autocast("cpu", torch.bfloat16):
        gradients = with_gradients(selective_scan, tensors)
    for name, value in gradients.items():
        assert torch.equal(value, expected[name]), name


def saved_bytes(length: int, shape: dict[str, int], batch: int = 1) -> int:
    """Bytes saved for the backward pass; each storage counts once."""
    tensors = [torch.ones(tensor.shape, requires_grad=True) for tensor in arguments(length, batch, **shape)]
    storages = {}

    def count(tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        storages[storage._cdata] = (storage, storage.nbytes())

    with torch.autograd.graph.saved_tensors_hooks(count, lambda nothing: nothing):
        y = selective_scan(*tensors)
    assert y.shape == tensors[0].shape
    return sum(size for _, size in storages.values())


def test_memory_is_that_of_the_inputs_without_the_states() -> None:
    length, shape = 4096, {"groups": 4, "width": 96, "state": 16}
    inputs = sum(tensor.nbytes for tensor in arguments(length, 1, **shape))
    states = 4 * length * 4 * 96 * 16
    assert saved_bytes(length, shape) - inputs < states / 80


def test_memory_grows_evenly_with_the_batch() -> None:
    one, two, eight = (saved_bytes(500, BROAD, batch) for batch in (1, 2, 8))
    assert eight - two == 6 * (two - one)


@pytest.mark.parametrize("shape", [BROAD, NARROW], ids=["broad", "narrow"])
@pytest.mark.parametrize("length", [49, 1000])
def test_the_planner_sees_the_same_memory_on_fake_tensors(length: int, shape: dict[str, int]) -> None:
    real = saved_bytes(length, shape)
    with FakeTensorMode():
        assert saved_bytes(length, shape) == real


@pytest.mark.skipif(not can_be_fake("cuda"), reason="PyTorch has no fake CUDA tensors here")
def test_the_kernel_is_spared_fake_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a compiled function that reads values."""
    monkeypatch.setattr(module, "_installed_kernel", lambda: pytest.fail("the kernel was asked for"))
    shapes = [tensor.shape for tensor in arguments(60, 2, **NARROW)]
    with FakeTensorMode(), torch.device("cuda"):
        tensors = [torch.ones(shape) for shape in shapes]
        y = selective_scan(*tensors)
    assert y.shape == tensors[0].shape and y.is_cuda


def test_the_kernel_gets_its_own_layout() -> None:
    def kernel(
        u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor, delta_softplus: bool
    ) -> Tensor:
        """u, delta: (batch, channels, length), A: (channels, state), B, C: (batch, groups, state, length)."""
        assert delta_softplus
        delta = F.softplus(delta + delta_bias[:, None])
        channels_per_group = u.shape[1] // B.shape[1]
        B, C = B.repeat_interleave(channels_per_group, dim=1), C.repeat_interleave(channels_per_group, dim=1)
        state, outputs = torch.zeros(u.shape[0], *A.shape), []
        for t in range(u.shape[2]):
            now = delta[:, :, t, None]
            state = torch.exp(now * A) * state + now * B[..., t] * u[:, :, t, None]
            outputs.append((state * C[..., t]).sum(dim=-1))
        return torch.stack(outputs, dim=-1) + D[:, None] * u

    tensors = arguments(20, 2, 3, 5, 4)
    torch.testing.assert_close(scan_by_kernel(kernel, *tensors), sequential_scan(*tensors), rtol=1e-4, atol=1e-4)
