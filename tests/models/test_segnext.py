"""SegNeXt's decomposition: its initial bases, and float32."""

from __future__ import annotations

import pytest
import torch

from autoseg import models
from autoseg.models.generalist.segnext import Decomposition


def logits(network: models.SegmentationNetwork, image: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return network.eval()(image)


def test_predictions_do_not_depend_on_the_random_state() -> None:
    image = torch.randn(1, 3, 64, 64)
    first, second = models.build("segnext", "t"), models.build("segnext", "t")
    second.load_state_dict(first.state_dict())
    torch.manual_seed(1)
    expected = logits(first, image)
    torch.manual_seed(2)
    assert torch.equal(expected, logits(second, image))


def test_fresh_bases_change_every_prediction_as_published() -> None:
    network = models.build("segnext", "t", fresh_bases=True)
    image = torch.randn(1, 3, 64, 64)
    assert not torch.equal(logits(network, image), logits(network, image))


def test_training_draws_bases_for_each_image() -> None:
    decomposition = Decomposition(32, 4, fresh_bases=False).train()
    one = torch.rand(1, 32, 8, 8)
    first, second = decomposition(one.expand(2, -1, -1, -1))
    assert not torch.allclose(first, second)


@pytest.mark.parametrize("training", [False, True])
def test_autocast_does_not_reach_the_decomposition(training: bool) -> None:
    decomposition = Decomposition(32, 4, fresh_bases=False).train(training)
    x = torch.rand(2, 32, 8, 8)
    torch.manual_seed(0)
    plain = decomposition(x)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(decomposition(x), plain)


def test_the_decomposition_recovers_a_map_of_its_own_rank() -> None:
    torch.manual_seed(0)
    x = (torch.rand(1, 32, 4) @ torch.rand(1, 4, 64)).view(1, 32, 8, 8)
    error = (Decomposition(32, 4, fresh_bases=False).eval()(x) - x).norm() / x.norm()
    mean = (x.mean() - x).norm() / x.norm()
    assert error < 0.5 * mean
