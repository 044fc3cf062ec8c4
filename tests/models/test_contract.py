"""What every registered network promises, held for each of them and each variant."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from autoseg import models
from autoseg.models.contract import ModelOutput, ModelSpec

NAMES = models.names()
VARIANTS = [(name, variant.name) for name in NAMES for variant in models.spec(name).variants]
# Input channels, classes, and sizes that no divisor divides.
SHAPES = [(1, 2, (65, 97)), (3, 4, (70, 101)), (5, 6, (97, 64))]


def smallest(name: str) -> str:
    spec = models.spec(name)
    return min(spec.variants, key=lambda v: v.parameters).name


def loss_of(output: ModelOutput, labels: torch.Tensor) -> torch.Tensor:
    """Cross entropy over three classes with auxiliary outputs, or the network's own loss."""
    if output.own_loss is not None:
        target = F.one_hot(labels, 3).movedim(-1, 1).float()
        return output.own_loss(target, torch.ones(len(labels), 1, *labels.shape[1:]))
    loss = F.cross_entropy(output.logits, labels)
    for auxiliary, weight in output.auxiliary:
        small = F.interpolate(labels[:, None].float(), auxiliary.shape[-2:]).long()[:, 0]
        loss = loss + weight * F.cross_entropy(auxiliary, small)
    return loss


@pytest.mark.parametrize("name", NAMES)
def test_spec_speaks_for_its_own_name(name: str) -> None:
    spec = models.spec(name)
    assert isinstance(spec, ModelSpec)
    assert spec.name == name
    assert spec.citation and spec.title
    sizes = [v.parameters for v in spec.variants if not v.note]
    assert sizes == sorted(sizes), "variants go from small to large"


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_parameters_are_as_the_spec_says(name: str, variant: str) -> None:
    with torch.device("meta"):
        network = models.build(name, variant)
    counted = sum(p.numel() for p in network.parameters())
    assert abs(counted - models.spec(name).variant(variant).parameters) <= 0.01 * counted


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("channels", "classes", "size"), SHAPES)
def test_shapes_on_the_meta_device(name: str, channels: int, classes: int, size: tuple[int, int]) -> None:
    """Where the planner measures: nothing is computed there, so nothing may depend on values."""
    with torch.device("meta"):
        network = models.build(name, smallest(name), channels, classes).train()
        output = network(torch.zeros(2, channels, *size))
    assert isinstance(output, ModelOutput)
    assert output.logits.shape == (2, classes, *size)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("channels", "classes", "size"), [SHAPES[0], SHAPES[2]])
def test_same_image_same_logits_alone_or_in_a_batch(name: str, channels: int, classes: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network = models.build(name, smallest(name), channels, classes).eval()
    batch = torch.randn(2, channels, *size)
    with torch.no_grad():
        together, alone = network(batch), network(batch[:1])
    assert together.shape == (2, classes, *size)
    assert torch.isfinite(together).all()
    torch.testing.assert_close(together[:1], alone, rtol=1e-3, atol=1e-3 * float(alone.std()))


@pytest.mark.parametrize("name", NAMES)
def test_channels_last_changes_no_more_than_rounding(name: str) -> None:
    """A training may choose it; validation then sees ordinary tensors, also of odd sizes."""
    torch.manual_seed(0)
    network = models.build(name, smallest(name), 3, 3).eval()
    images = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        usual = network(images)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for given in (images, images.contiguous(memory_format=torch.channels_last)):
            torch.testing.assert_close(network(given), usual, rtol=1e-3, atol=1e-3 * float(usual.std()))
    images = torch.randn(2, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    loss_of(network.train()(images), torch.randint(0, 3, (2, 64, 64))).backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", NAMES)
def test_one_step_has_finite_gradients_and_changes_the_output(name: str) -> None:
    torch.manual_seed(0)
    network = models.build(name, smallest(name), 3, 3).train()
    images, labels = torch.randn(2, 3, 64, 64), torch.randint(0, 3, (2, 64, 64))
    output = network(images)
    loss = loss_of(output, labels)
    loss.backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert gradients and all(torch.isfinite(g).all() for g in gradients)
    unused = {n for n, p in network.named_parameters() if p.requires_grad and p.grad is None}
    assert unused == set(network.unused_parameters), "parameters without a gradient must be the ones known as unused"


def test_unknown_names_teach_the_right_ones() -> None:
    with pytest.raises(models.registry.AutosegError, match="did you mean nnunet"):
        models.build("nnunett")
    with pytest.raises(models.registry.AutosegError, match="choose one of"):
        models.build("nnunet", variant="enormous")
