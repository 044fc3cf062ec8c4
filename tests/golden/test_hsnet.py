"""Each of HSNet's four predictions against the official one: in their sum the coarsest dominates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from autoseg.models.specialist.hsnet import HSNet
from tests.golden import rules
from tests.golden.test_golden import golden_network

STRIDE = 8


@pytest.fixture(scope="module")
def predictions() -> list[np.ndarray]:
    network, record, _ = golden_network("hsnet")
    assert isinstance(network, HSNet)
    with torch.no_grad():
        outputs = network.predictions(torch.from_numpy(rules.golden_input(tuple(record["input"]))))
    return [output[..., ::STRIDE, ::STRIDE].numpy() for output in outputs]


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_hsnet_prediction_of_each_scale(predictions: list[np.ndarray], scale: int) -> None:
    with np.load(Path(__file__).with_name("hsnet_predictions.npz")) as golden:
        theirs, std = golden[f"p{scale}"], float(golden[f"p{scale}_std"])
    ours = predictions[scale - 1]
    assert ours.shape == theirs.shape
    error = np.abs(ours - theirs).max() / std
    assert error < 1e-4, f"max/std {error:.2e}"
