from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from autoseg.models.base import ModelOutput
from autoseg.schema.dataset import LabelScheme
from autoseg.support.errors import AutosegError
from autoseg.support.extensions import LOSSES
from autoseg.training.distributed import DistributedContext
from autoseg.training.losses import Loss, resize_nearest

CLASSES = LabelScheme(names=("background", "a", "b"), members=((0,), (1,), (2,)))
IGNORING = LabelScheme(names=("background", "a", "b"), members=((0,), (1,), (2,)), ignore=3)
TWO = LabelScheme(names=("background", "a"), members=((0,), (1,)))
REGIONS = LabelScheme(names=("all", "core"), members=((1, 2), (2,)), regions=True, paint=(1, 2))
RANDOM = torch.Generator().manual_seed(0)
LOGITS = torch.randn(2, 3, 8, 9, generator=RANDOM)
LABELS = torch.randint(0, 3, (2, 8, 9), generator=RANDOM).to(torch.uint8)


def of(name: str, scheme: LabelScheme, logits: torch.Tensor, labels: torch.Tensor) -> float:
    return float(Loss(name, scheme)(ModelOutput(logits), labels))


def one_minus_dice(probabilities: torch.Tensor, targets: torch.Tensor) -> float:
    overlap = (probabilities * targets).sum((0, 2, 3))
    return float((1 - 2 * overlap / (probabilities.sum((0, 2, 3)) + targets.sum((0, 2, 3)))).mean())


def test_cross_entropy_equals_torch():
    assert of("ce", CLASSES, LOGITS, LABELS) == pytest.approx(float(F.cross_entropy(LOGITS, LABELS.long())))


@pytest.mark.parametrize("scheme", [CLASSES, IGNORING])
def test_deterministic_cross_entropy_is_the_same_without_nll_loss(scheme, monkeypatch):
    """On CUDA nll_loss refuses deterministic algorithms."""
    labels = LABELS.clone()
    if scheme.ignore is not None:
        labels[:, :3] = scheme.ignore
    expected = of("ce", scheme, LOGITS, labels)
    monkeypatch.setattr(F, "nll_loss", lambda *arguments, **options: pytest.fail("nll_loss"))
    torch.use_deterministic_algorithms(True)
    try:
        assert of("ce", scheme, LOGITS, labels) == pytest.approx(expected, rel=1e-6)
    finally:
        torch.use_deterministic_algorithms(False)


def test_dice_is_batch_dice_of_the_foreground():
    targets = F.one_hot(LABELS.long(), 3).permute(0, 3, 1, 2).float()[:, 1:]
    added = of("dice_ce", CLASSES, LOGITS, LABELS) - of("ce", CLASSES, LOGITS, LABELS)
    assert added == pytest.approx(one_minus_dice(LOGITS.softmax(1)[:, 1:], targets), abs=1e-5)


def test_regions_use_binary_cross_entropy():
    targets = torch.stack([(LABELS >= 1), (LABELS == 2)], dim=1).float()
    logits = LOGITS[:, :2]
    entropy = float(F.binary_cross_entropy_with_logits(logits, targets))
    assert of("bce", REGIONS, logits, LABELS) == pytest.approx(entropy)
    assert of("dice_bce", REGIONS, logits, LABELS) - entropy == pytest.approx(
        one_minus_dice(logits.sigmoid(), targets), abs=1e-5
    )


def test_softmax_loss_is_refused_for_regions():
    with pytest.raises(AutosegError, match="training.loss=dice_bce"):
        Loss("dice_ce", REGIONS)


def test_sigmoid_loss_equals_softmax_loss_for_two_classes():
    labels = (LABELS > 0).to(torch.uint8)
    assert of("dice_bce", TWO, LOGITS[:, :2], labels) == of("dice_ce", TWO, LOGITS[:, :2], labels)


def test_sigmoid_loss_has_one_sigmoid_per_class_for_more_classes():
    targets = F.one_hot(LABELS.long(), 3).permute(0, 3, 1, 2).float()
    assert of("bce", CLASSES, LOGITS, LABELS) == pytest.approx(float(F.binary_cross_entropy_with_logits(LOGITS, targets)))


@pytest.mark.parametrize("name", ["ce", "bce", "dice_ce", "dice_bce"])
def test_ignored_pixels_do_not_count(name):
    """The loss of the left half alone is that of the whole image with the right half ignored, whatever stands there."""
    labels = LABELS.clone()
    labels[..., 4:] = 3
    logits = LOGITS.clone().requires_grad_()
    loss = Loss(name, IGNORING)(ModelOutput(logits), labels)
    assert loss.item() == pytest.approx(of(name, CLASSES, LOGITS[..., :4], LABELS[..., :4]), rel=1e-5)
    loss.backward()
    assert (logits.grad[..., 4:] == 0).all() and (logits.grad[..., :4] != 0).all()


@pytest.mark.parametrize("name", ["dice_ce", "dice_bce"])
def test_batch_with_only_ignored_pixels_has_finite_loss_of_zero(name):
    logits = LOGITS.clone().requires_grad_()
    loss = Loss(name, IGNORING)(ModelOutput(logits), torch.full_like(LABELS, 3))
    loss.backward()
    assert loss.item() == 0 and torch.isfinite(logits.grad).all()


def test_absent_classes_have_no_dice():
    labels = LABELS.clamp(max=1)
    targets = (labels == 1).float().unsqueeze(1)
    added = of("dice_ce", CLASSES, LOGITS, labels) - of("ce", CLASSES, LOGITS, labels)
    assert added == pytest.approx(one_minus_dice(LOGITS.softmax(1)[:, 1:2], targets), abs=1e-5)
    empty = torch.zeros_like(LABELS)
    assert of("dice_ce", CLASSES, LOGITS, empty) == of("ce", CLASSES, LOGITS, empty)


def test_auxiliary_logits_are_weighted_at_their_own_size():
    small = torch.randn(2, 3, 4, 3, generator=RANDOM)
    loss = Loss("dice_ce", CLASSES)
    total = float(loss(ModelOutput(LOGITS, ((small, 0.4), (LOGITS, 0.1))), LABELS))
    parts = [
        float(loss(ModelOutput(LOGITS), LABELS)),
        float(loss(ModelOutput(small), resize_nearest(LABELS, small.shape[-2:]))),
    ]
    assert total == pytest.approx(1.1 * parts[0] + 0.4 * parts[1], rel=1e-5)


def test_auxiliary_logits_can_be_left_out():
    small = torch.randn(2, 3, 4, 3, generator=RANDOM, requires_grad=True)
    main = LOGITS.clone().requires_grad_()
    loss = Loss("dice_ce", CLASSES, auxiliary=False)(ModelOutput(main, ((small, 0.4),)), LABELS)
    loss.backward()
    assert float(loss.detach()) == float(Loss("dice_ce", CLASSES)(ModelOutput(LOGITS), LABELS)) and small.grad is None


def test_resized_labels_take_the_value_at_the_pixel_centre():
    labels = torch.arange(36).view(1, 6, 6)
    assert resize_nearest(labels, torch.Size((2, 2))).tolist() == [[[7, 10], [25, 28]]]
    assert resize_nearest(labels, torch.Size((12, 12)))[0, ::2, ::2].equal(labels[0])


def test_own_loss_of_a_network_replaces_the_loss_of_the_plan():
    labels = LABELS.clone()
    labels[0, 0, 0] = 3
    calls = []

    def own(target: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        calls.append((target, valid))
        return torch.tensor(5.0)

    assert float(Loss("dice_ce", IGNORING)(ModelOutput(LOGITS, own_loss=own), labels)) == 5
    target, valid = calls[0]
    assert target.shape == (2, 3, 8, 9) and valid.shape == (2, 1, 8, 9)
    assert target[0, :, 0, 0].sum() == 0 and valid.sum() == valid.numel() - 1
    assert torch.equal(target[:, 1], (labels == 1).float())


def test_loss_is_float32_under_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = LOGITS.to(torch.bfloat16).requires_grad_()
        loss = Loss("dice_ce", CLASSES)(ModelOutput(logits), LABELS)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(of("dice_ce", CLASSES, logits.detach().float(), LABELS), rel=1e-6)


class Two(DistributedContext):
    """Two processes with as many images each."""

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        return 2 * tensor


@pytest.fixture
def add():
    added = []

    def loss(name, function, **attributes):
        for attribute, value in attributes.items():
            setattr(function, attribute, value)
        LOSSES.add(name, function)
        added.append(name)

    yield loss
    for name in added:
        LOSSES.remove(name)


def test_loss_of_a_package_gets_logits_and_target(add):
    labels = LABELS.clone()
    labels[0, 0, 0] = 3
    calls = []

    def own_loss_function(logits, target):
        calls.append((logits, target))
        return logits.mean()

    add("mine", own_loss_function)
    small = torch.zeros(2, 3, 4, 3, dtype=torch.float16)
    assert of("mine", IGNORING, LOGITS.half(), labels) == pytest.approx(float(LOGITS.half().float().mean()))
    Loss("mine", IGNORING)(ModelOutput(LOGITS, ((small, 0.5),)), labels)
    logits, target = calls[0]
    assert logits.dtype == torch.float32 and logits.shape == (2, 3, 8, 9)
    assert target.one_hot.shape == (2, 3, 8, 9) and target.valid.sum() == labels.numel() - 1
    assert not target.valid[0, 0, 0] and target.one_hot[0, :, 0, 0].sum() == 0
    assert calls[2][0].shape == (2, 3, 4, 3) and calls[2][1].labels.shape == (2, 4, 3), "auxiliary logits, labels of their size"


def test_processes_average_means_and_add_sums(add):
    add("mean", lambda logits, target: logits.sum() * 0 + 3)
    add("own", lambda logits, target: logits.sum() * 0 + 3, sums_over_processes=True)
    assert [float(Loss(name, CLASSES, team=Two(0, 2))(ModelOutput(LOGITS), LABELS)) for name in ("mean", "own")] == [1.5, 3]


def test_activation_decides_whether_regions_are_allowed(add):
    for name, activation in (("soft", "softmax"), ("each", "sigmoid"), ("any", "")):
        add(name, lambda logits, target: logits.mean(), **({"activation": activation} if activation else {}))
    with pytest.raises(AutosegError, match="the loss soft is for classes that exclude each other"):
        Loss("soft", REGIONS)
    assert [Loss(name, REGIONS).activation for name in ("each", "any")] == ["sigmoid", "sigmoid"]
    assert [Loss(name, CLASSES).activation for name in ("soft", "each", "any")] == ["softmax", "sigmoid", "softmax"]


def test_non_scalar_loss_is_refused_with_its_source(add):
    add("maps", lambda logits, target: logits)
    with pytest.raises(AutosegError, match=r"the loss maps of this program returns a tensor of shape \(2, 3, 8, 9\)"):
        of("maps", CLASSES, LOGITS, LABELS)
