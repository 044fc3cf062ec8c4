"""The auxiliary head of InternImage and TransNeXt gives the official output."""

from __future__ import annotations

import numpy as np
import torch

from tests.golden import rules
from tests.golden.test_golden import FOLDER, golden_network


def test_auxiliary_logits() -> None:
    network, record, _ = golden_network("internimage")
    network.train()
    for module in network.children():
        module.eval()
    with torch.no_grad():
        ((logits, weight),) = network.segment(torch.from_numpy(rules.golden_input(tuple(record["input"])))).auxiliary
    theirs = np.load(FOLDER / "internimage_auxiliary.npz")["logits"]
    assert weight == 0.4
    assert np.linalg.norm(logits.numpy() - theirs) < record["tolerance"] * np.linalg.norm(theirs)
