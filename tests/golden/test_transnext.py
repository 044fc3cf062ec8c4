"""TransNeXt at other sizes than that of its position biases: interpolated and computed."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from autoseg import models
from tests.golden import rules
from tests.golden.test_golden import FOLDER, golden_tensors

STRIDE = 2


@pytest.mark.parametrize(
    ("key", "training_size", "extrapolate", "width"),
    [
        ("logits_imgsize512", 512, False, 256),
        ("logits_256x192_interp", 256, False, 192),
        ("logits_256x192_extrap", 256, True, 192),
    ],
)
def test_other_sizes(key: str, training_size: int, extrapolate: bool, width: int) -> None:
    record = json.loads((FOLDER / "transnext.json").read_text())
    network = models.build(
        "transnext", "tiny", 3, record["classes"], (training_size, training_size), extrapolate=extrapolate
    )
    models.load_published(network, golden_tensors(record))
    image = torch.from_numpy(rules.golden_input(tuple(record["input"])))[..., :width]
    with torch.no_grad():
        ours = network.eval().segment(image).logits[..., ::STRIDE, ::STRIDE].numpy()
    theirs = np.load(FOLDER / "transnext_sizes.npz")[key]
    assert ours.shape == theirs.shape
    assert np.linalg.norm(ours - theirs) < record["tolerance"] * np.linalg.norm(theirs)
