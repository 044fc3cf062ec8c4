from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.morphology import skeletonize

from autoseg.models.base import ModelOutput
from autoseg.schema.dataset import LabelScheme
from autoseg.training.cldice_loss import centreline, centreline_dice
from autoseg.training.losses import Loss

TWO = LabelScheme(names=("background", "vessel"), members=((0,), (1,)), ignore=2)
ALL = torch.ones(1, 40, 40, dtype=torch.bool)


def bar(thickness: int) -> torch.Tensor:
    mask = torch.zeros(1, 1, 40, 40)
    mask[..., 18 : 18 + thickness, 4:36] = 1
    return mask


@pytest.mark.parametrize("thickness", [1, 3, 7])
def test_a_bar_is_thinned_to_its_middle(thickness):
    line = centreline(bar(thickness))[0, 0]
    rows = line[:, 20].nonzero().flatten().tolist()
    assert rows == [18 + thickness // 2]
    assert set(line.unique().tolist()) <= {0.0, 1.0}
    # The skeleton another library finds lies on it, up to the ends.
    other = skeletonize(bar(thickness)[0, 0].numpy() > 0)
    assert (line.numpy()[other] > 0).mean() > 0.7 and np.abs(other.sum() - line.sum().item()) < 12


def loss_of(prediction: torch.Tensor, target: torch.Tensor, pixels: torch.Tensor = ALL) -> float:
    return float(centreline_dice(prediction, target.bool(), pixels))


def test_a_gap_costs_more_than_as_many_pixels_at_the_edge():
    target = bar(5)
    gap, thin = target.clone(), target.clone()
    gap[..., 18:23, 18:24] = 0
    thin[..., 18:19, 5:35] = 0
    assert gap.sum() == thin.sum()
    # A row less moves the middle of what is left by half a pixel, and leaves no hole in it.
    assert loss_of(target, target) == pytest.approx(0, abs=1e-6)
    assert loss_of(gap, target) > 3 * loss_of(thin, target)


def test_outputs_that_do_not_occur_and_ignored_pixels_count_nowhere():
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


def test_the_plans_loss_adds_it_with_its_weight_and_has_gradients():
    labels = bar(3)[:, 0].long()
    logits = torch.randn(1, 2, 40, 40, generator=torch.Generator().manual_seed(0)).requires_grad_()
    coarse = ModelOutput(logits, ((logits[..., ::2, ::2], 0.5),))
    plain, added = (Loss("dice_ce", TWO, weight)(coarse, labels) for weight in (0.0, 0.4))
    term = centreline_dice(logits.softmax(1)[:, 1:], (labels == 1).unsqueeze(1), ALL)
    assert (added - plain).item() == pytest.approx(0.4 * term.item(), rel=1e-4)
    added.backward()
    assert torch.isfinite(logits.grad).all() and (logits.grad != 0).any()
