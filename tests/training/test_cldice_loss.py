from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.morphology import skeletonize

from autoseg.models.base import ModelOutput
from autoseg.schema.dataset import LabelScheme
from autoseg.training.cldice_loss import soft_cldice_loss, soft_skeleton
from autoseg.training.losses import Loss

TWO = LabelScheme(names=("background", "vessel"), members=((0,), (1,)), ignore=2)
ALL = torch.ones(1, 40, 40, dtype=torch.bool)


def bar(thickness: int) -> torch.Tensor:
    mask = torch.zeros(1, 1, 40, 40)
    mask[..., 18 : 18 + thickness, 4:36] = 1
    return mask


@pytest.mark.parametrize("thickness", [1, 3, 7])
def test_skeleton_of_a_bar_is_its_centre_line(thickness):
    line = soft_skeleton(bar(thickness))[0, 0]
    rows = line[:, 20].nonzero().flatten().tolist()
    assert rows == [18 + thickness // 2]
    assert set(line.unique().tolist()) <= {0.0, 1.0}
    # The skeleton another library finds lies on it, up to the ends.
    other = skeletonize(bar(thickness)[0, 0].numpy() > 0)
    assert (line.numpy()[other] > 0).mean() > 0.7 and np.abs(other.sum() - line.sum().item()) < 12


def loss_of(prediction: torch.Tensor, target: torch.Tensor, pixels: torch.Tensor = ALL) -> float:
    return float(soft_cldice_loss(prediction, target.bool(), pixels))


def test_gap_costs_more_than_the_same_number_of_edge_pixels():
    target = bar(5)
    gap, thin = target.clone(), target.clone()
    gap[..., 18:23, 18:24] = 0
    thin[..., 18:19, 5:35] = 0
    assert gap.sum() == thin.sum()
    # A row less moves the middle of what is left by half a pixel, and leaves no hole in it.
    assert loss_of(target, target) == pytest.approx(0, abs=1e-6)
    assert loss_of(gap, target) > 3 * loss_of(thin, target)


def test_absent_outputs_and_ignored_pixels_do_not_count():
    target = bar(3).repeat(1, 2, 1, 1)
    target[:, 1] = 0
    prediction = torch.full_like(target, 0.3)
    prediction[:, :1] = bar(3)
    assert loss_of(prediction, target) == pytest.approx(0, abs=1e-6)
    assert loss_of(prediction, torch.zeros_like(target)) == 0
    left = ALL.clone()
    left[..., 20:] = False
    spoiled = prediction.clone()
    spoiled[..., 22:] = 1
    assert loss_of(spoiled, target, left) == loss_of(prediction, target, left)


def test_loss_adds_weighted_cldice_and_has_gradients():
    labels = bar(3)[:, 0].long()
    logits = torch.randn(1, 2, 40, 40, generator=torch.Generator().manual_seed(0)).requires_grad_()
    coarse = ModelOutput(logits, ((logits[..., ::2, ::2], 0.5),))
    plain, added = (Loss("dice_ce", TWO, weight)(coarse, labels) for weight in (0.0, 0.4))
    term = soft_cldice_loss(logits.softmax(1)[:, 1:], (labels == 1).unsqueeze(1), ALL)
    assert (added - plain).item() == pytest.approx(0.4 * term.item(), rel=1e-4)
    added.backward()
    assert torch.isfinite(logits.grad).all() and (logits.grad != 0).any()
