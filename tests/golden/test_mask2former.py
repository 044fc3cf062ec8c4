"""Mask2Former's queries before the first and after the last layer, against the official ones."""

from __future__ import annotations

import numpy as np
import torch

from autoseg.models.generalist.mask2former import Mask2Former
from tests.golden import rules
from tests.golden.test_golden import FOLDER, golden_network

QUERIES, PIXELS = 4, 4


def test_classes_and_masks_of_the_queries() -> None:
    network, record, _ = golden_network("mask2former")
    assert isinstance(network, Mask2Former)
    with torch.no_grad():
        first, *between, last = network.predict(torch.from_numpy(rules.golden_input(tuple(record["input"]))))
    assert len(between) == 8
    with np.load(FOLDER / "mask2former_queries.npz") as golden:
        for key, ours in (
            ("aux0_pred_logits", first.classes),
            ("pred_logits", last.classes),
            ("aux0_pred_masks", first.masks[:, ::QUERIES, ::PIXELS, ::PIXELS]),
            ("pred_masks", last.masks[:, ::QUERIES, ::PIXELS, ::PIXELS]),
        ):
            theirs = golden[key]
            error = np.linalg.norm(ours.numpy() - theirs) / np.linalg.norm(theirs)
            assert error < record["tolerance"], f"{key} {error:.2e}"
