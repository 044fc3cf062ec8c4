"""All four heads of Swin-UMamba against the official ones: mean and maximum error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from autoseg.models.specialist.swin_umamba import SwinUMamba
from tests.golden import rules
from tests.golden.test_golden import golden_network

FOLDER = Path(__file__).parent
# Stride of the stored pixels of each head's output, per axis.
STRIDES = (4, 4, 2, 1)


@pytest.fixture(scope="module")
def levels() -> list[np.ndarray]:
    network, record, _ = golden_network("swin_umamba")
    assert isinstance(network, SwinUMamba)
    with torch.no_grad():
        outputs = network.levels(torch.from_numpy(rules.golden_input(tuple(record["input"]))))
    return [output[..., ::stride, ::stride].numpy() for output, stride in zip(outputs, STRIDES, strict=True)]


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_swin_umamba_head_of_each_level(levels: list[np.ndarray], level: int) -> None:
    if level:
        with np.load(FOLDER / "swin_umamba_levels.npz") as golden:
            theirs, std = golden[f"level{level}"], float(golden[f"level{level}_std"])
    else:
        with np.load(FOLDER / "swin_umamba.npz") as golden:
            theirs = golden["logits"]
            std = float(theirs.std())
    assert levels[level].shape == theirs.shape
    difference = np.abs(levels[level] - theirs) / std
    assert np.sqrt(np.mean(difference**2)) < 1e-3
    assert difference.max() < 1e-2
