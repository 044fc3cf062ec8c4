"""Every model and its real loss on fake CUDA tensors: a tensor made on another device is found without a GPU.

Forward pass and loss only: the backward pass of fake CUDA tensors needs a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from autoseg.models import registry
from autoseg.models.base import ModelOutput, SegmentationNetwork
from autoseg.models.fake_tensors import can_be_fake, fake_autocast, fake_tensors
from autoseg.models.layers import set_loss
from autoseg.models.specialist.unet import UNet
from autoseg.preprocessing.normalise import normalise
from autoseg.schema.dataset import LabelScheme
from autoseg.schema.plan import Normalisation
from autoseg.training import losses
from autoseg.training.deterministic import deterministic_algorithms
from autoseg.training.losses import LOSSES, Loss

pytestmark = pytest.mark.skipif(
    not can_be_fake("cuda"), reason="without a GPU this PyTorch ends the process on fake CUDA tensors; 2.14 does not"
)
CLASSES = LabelScheme(names=("background", "a", "b"), members=((0,), (1,), (2,)), ignore=255)
REGIONS = LabelScheme(names=("whole", "core"), members=((1, 2), (2,)), paint=(1, 2), regions=True)
SIDE, BATCH = 64, 2
# Operations whose forward or backward pass has no deterministic form on CUDA in some release of PyTorch since 2.7, by the list
# in the documentation of `use_deterministic_algorithms`.
NOT_DETERMINISTIC = {
    "_adaptive_avg_pool2d", "adaptive_max_pool2d", "bincount", "cumsum", "cumsum_", "fractional_max_pool2d", "grid_sampler_2d",
    "histc", "kthvalue", "max_unpool2d", "median", "nll_loss2d_forward", "nll_loss_forward", "put_", "reflection_pad2d",
    "replication_pad2d", "scatter_reduce", "upsample_bicubic2d", "upsample_bilinear2d", "upsample_linear1d",
}  # fmt: skip
# As documentation/training.md says.
WITHOUT_DETERMINISTIC_FORM = {
    "internimage": {"grid_sampler_2d"},
    "mask2former": {"grid_sampler_2d", "nll_loss2d_forward"},
    # Its position embeddings are resampled in every pass. PyTorch 2.15 has a form that repeats.
    "sam2_hiera": {"upsample_bicubic2d"} if torch.__version__ < "2.15" else set(),
}


# timm computes the rotary positions of a size on the processor, and copies the result to the device.
POSITIONS_ON_THE_PROCESSOR = {"dinov3_vit"}


class Operations(TorchDispatchMode):
    """Names of the operations that run in it. elsewhere: of those with a result that is not on CUDA.

    PyTorch takes such tensors as indices, and copies them each time. Single numbers may be anywhere, and so may literals
    (`lift_fresh`), which begin on the processor whatever their device.
    """

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.elsewhere: set[str] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result, name = function(*args, **(kwargs or {})), function.overloadpacket.__name__
        self.names.add(name)
        tensors = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        self.elsewhere |= {name for tensor in tensors if tensor.ndim and tensor.device.type != "cuda"} - {"lift_fresh"}
        return result


@pytest.fixture(autouse=True)
def _matching_without_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Queries are matched by the values of the costs, on the processor, and generators of CUDA need a GPU."""

    def match(predictions: Any, target: Tensor, valid: Tensor, extent: Any, points: int, generator: Any) -> list[Any]:
        for prediction in predictions:
            costs = set_loss._costs(prediction, target, valid, extent, points, generator)
            assert costs.device == target.device
        indices = torch.tensor([(image, 3 * image, 1) for image in range(BATCH)], device=target.device)
        return [set_loss.Matches(*indices.unbind(dim=1))] * len(predictions)

    monkeypatch.setattr(set_loss, "match", match)
    monkeypatch.setattr(set_loss, "_generator", lambda device: None)


def forward_and_loss(network: SegmentationNetwork, side: int, scheme: LabelScheme, *functions: Loss, half: bool = True) -> None:
    """The forward pass with autocast, and each loss, on CUDA. Raises an error of PyTorch where devices are mixed."""
    with fake_autocast("cuda", torch.bfloat16) if half else nullcontext():
        output = network(torch.zeros(BATCH, 3, side, side, device="cuda"))
    assert output.logits.shape == (BATCH, scheme.outputs, side, side)
    assert {tensor.device.type for tensor in tensors_of(output)} == {"cuda"}
    labels = torch.zeros(BATCH, side, side, dtype=torch.uint8, device="cuda")
    for function in functions:
        loss = function(output, labels)
        assert loss.device.type == "cuda" and loss.dtype == torch.float32 and loss.shape == ()


def tensors_of(output: ModelOutput) -> Iterator[Tensor]:
    yield output.logits
    yield from (logits for logits, _ in output.auxiliary)


def small(name: str, outputs: int = 3) -> tuple[SegmentationNetwork, int]:
    """The smallest variant in training mode, on the meta device, and the side of its input."""
    spec = registry.spec(name)
    variant = min(spec.variants, key=lambda one: one.parameters).name
    side = spec.size_inside(variant) or SIDE
    with torch.device("meta"):
        return registry.build(name, variant, 3, outputs, input_size=(side, side)).train(), side


@pytest.mark.parametrize("name", registry.usable_names())
def test_every_tensor_of_a_training_step_is_on_the_device(name: str) -> None:
    """And only with the operations that training.md names a GPU does not repeat with --deterministic."""
    network, side = small(name)
    with fake_tensors(network, "cuda"), Operations() as operations, deterministic_algorithms():
        forward_and_loss(network, side, CLASSES, Loss("dice_ce", CLASSES), half=registry.spec(name).mixed_precision)
    assert bool(operations.elsewhere) == (name in POSITIONS_ON_THE_PROCESSOR)
    assert operations.names & NOT_DETERMINISTIC == WITHOUT_DETERMINISTIC_FORM.get(name, set())


@pytest.mark.parametrize("scheme", [CLASSES, REGIONS], ids=["classes", "regions"])
def test_every_loss_is_on_the_device(scheme: LabelScheme) -> None:
    names = [name for name in LOSSES.names() if not scheme.regions or "bce" in name]
    network, side = small("unet", scheme.outputs)
    with fake_tensors(network, "cuda"), Operations() as operations:
        forward_and_loss(network, side, scheme, *(Loss(name, scheme, cldice) for name in names for cldice in (0.0, 0.5)))
    assert not operations.elsewhere


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("scheme", ["constant", "image"])
def test_what_the_network_gets_is_on_the_device(scheme: str, known: bool) -> None:
    rule = Normalisation(scheme=scheme, mean=(1.0,) * 3, std=(2.0,) * 3, lower=(0.0,) * 3, upper=(9.0,) * 3)  # type: ignore[arg-type]
    with fake_tensors(torch.nn.Identity(), "cuda"), Operations() as operations:
        images = torch.zeros(BATCH, 3, 8, 8, dtype=torch.uint8, device="cuda")
        statistics = torch.ones(BATCH, 2, 3, device="cuda") if known else None
        assert normalise(images, rule, statistics).device.type == "cuda"
    assert not operations.elsewhere


def on_the_processor(self: UNet, x: Tensor) -> ModelOutput:
    return ModelOutput(self.planted(x + torch.ones(3, 1, 1)).logits)


def attribute(self: UNet, x: Tensor) -> ModelOutput:
    # No buffer, so it does not move with the network.
    return ModelOutput(self.planted(x + self.constant).logits)


def result_on_the_processor(self: UNet, x: Tensor) -> ModelOutput:
    return ModelOutput(self.planted(x).logits.cpu())


@pytest.mark.parametrize("fault", [on_the_processor, attribute, result_on_the_processor])
@pytest.mark.parametrize("constant_on", ["cpu", "meta"])
def test_a_planted_fault_of_a_network_is_found(fault: Any, constant_on: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(UNet, "planted", UNet.segment, raising=False)
    monkeypatch.setattr(UNet, "segment", fault)
    network, side = small("unet")
    network.constant = torch.ones(3, 1, 1, device=constant_on)  # type: ignore[assignment]
    with fake_tensors(network, "cuda"), pytest.raises(Exception, match=r"(?i)cuda.*(cpu|meta)|(cpu|meta).*cuda"):
        forward_and_loss(network, side, CLASSES, Loss("dice_ce", CLASSES))


def test_a_planted_fault_of_a_loss_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    original = losses._soft_dice
    monkeypatch.setattr(losses, "_soft_dice", lambda maps, *rest: original(maps * torch.ones(maps.shape[1], 1, 1), *rest))
    network, side = small("unet")
    with fake_tensors(network, "cuda"), pytest.raises(Exception, match="cuda.*cpu"):
        forward_and_loss(network, side, CLASSES, Loss("dice_ce", CLASSES))


def test_a_planted_fault_of_the_set_loss_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    original = set_loss.uncertain_points
    monkeypatch.setattr(set_loss, "uncertain_points", lambda *arguments: original(*arguments).cpu())
    network, side = small("mask2former")
    with fake_tensors(network, "cuda"), pytest.raises(Exception, match=r"(?i)cuda.*cpu|cpu.*cuda"):
        forward_and_loss(network, side, CLASSES, Loss("dice_ce", CLASSES))


def test_indices_made_on_the_processor_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch takes them, so only their making shows."""

    def resize(labels: Tensor, size: torch.Size) -> Tensor:
        return labels[:, torch.arange(size[0])][:, :, torch.arange(size[1])]

    monkeypatch.setattr(losses, "resize_nearest", resize)
    network, side = small("nnunet")
    with fake_tensors(network, "cuda"), Operations() as operations:
        forward_and_loss(network, side, CLASSES, Loss("dice_ce", CLASSES))
    assert operations.elsewhere == {"arange"}
