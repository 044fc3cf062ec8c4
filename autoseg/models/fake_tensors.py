"""Networks on fake tensors: they have shape, type, layout and device, but no values. The device need not be in the machine.

    with torch.device("meta"):
        network = models.build("unet", input_size=(256, 256))
    with fake_tensors(network, "cuda"), fake_autocast("cuda", torch.float16):
        output = network(torch.zeros(2, 3, 256, 256, device="cuda"))

Build networks on the meta device first: many constructors ask for values (`.item()`), which fake tensors refuse. Loss and
optimiser are the usual ones. A backward pass is too, but on "cuda" it needs the GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor, FakeTensorMode

# The first version seen to record operations on fake CUDA tensors without a GPU; 2.7 ends the process.
_NEEDS_NO_GPU = "2.14"


def can_be_fake(device: str | torch.device) -> bool:
    """Whether this PyTorch records operations on fake tensors of `device`. Where it does not, it ends the process."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_available() or (torch.backends.cuda.is_built() and torch.__version__ >= _NEEDS_NO_GPU)
    return kind in ("cpu", "meta") or (kind == "mps" and torch.backends.mps.is_available())


@contextmanager
def fake_tensors(network: nn.Module, device: str | torch.device) -> Iterator[list[Tensor]]:
    """A context in which `network` has fake parameters and buffers on `device`, and all new tensors are fake.

    network: on any device, the meta device included. It gets its own tensors back at the end, untouched. Yields the fake
    tensors, each once; those of parameters are leaves that ask for gradients where the parameters do. New tensors lie on the
    device that the code names, as usual: mixing two devices is an error, as with values. What depends on values (`.item()`,
    a boolean index) raises an error of PyTorch. Raises ValueError where this PyTorch would end the process (`can_be_fake`).
    """
    if not can_be_fake(device):
        raise ValueError(f"this PyTorch has no fake tensors on {device} here")
    # Tensors that a network holds in no parameter or buffer are not fake yet.
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    place = torch.device(device)
    with _swapped(network, lambda meta: FakeTensor(mode, meta, place)) as fakes, mode:
        yield fakes


@contextmanager
def meta_tensors(network: nn.Module) -> Iterator[list[Tensor]]:
    """A context in which `network` has parameters and buffers on the meta device, without gradients. Yields them, each once.

    Faster than fake tensors, and enough where neither devices nor autocast matter.
    """
    with _swapped(network, lambda meta: meta.requires_grad_(False)) as metas:
        yield metas


@contextmanager
def fake_autocast(device: str, dtype: torch.dtype) -> Iterator[None]:
    """`torch.autocast` for a device that may be missing: `torch.autocast` itself is then disabled."""
    with torch.autocast(device, dtype=dtype, enabled=False):
        torch.set_autocast_enabled(device, True)
        yield


@contextmanager
def _swapped(network: nn.Module, make_copy: Callable[[Tensor], Tensor]) -> Iterator[list[Tensor]]:
    """Replaces each parameter and buffer by `make_copy` of its copy on the meta device; restores them at the end.

    `torch.func.functional_call` is meant for this, but it leaves its tensors behind in networks that hold a module twice.
    """
    tables = [table for module in network.modules() for table in (module._parameters, module._buffers)]
    originals = [(table, name, tensor) for table in tables for name, tensor in table.items() if tensor is not None]
    copies: dict[int, Tensor] = {}
    try:
        for table, name, tensor in originals:
            if id(tensor) not in copies:
                copies[id(tensor)] = make_copy(_meta_like(tensor))
            table[name] = copies[id(tensor)]  # type: ignore[assignment]
        yield list(copies.values())
    finally:
        for table, name, tensor in originals:
            table[name] = tensor  # type: ignore[assignment]


def _meta_like(tensor: Tensor) -> Tensor:
    meta = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
    return meta.requires_grad_(tensor.requires_grad)
