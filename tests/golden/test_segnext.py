"""SegNeXt's golden output depends on its initial bases, which can be replaced."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from tests.golden import rules
from tests.golden.test_golden import FOLDER, golden_network


def test_the_output_depends_on_the_initial_bases() -> None:
    network, record, _ = golden_network("segnext")
    image = torch.from_numpy(rules.golden_input(tuple(record["input"])))
    theirs = np.load(FOLDER / "segnext.npz")["logits"]
    bases = network.get_buffer("hamburger.decompose.bases")
    errors = []
    for seed in (1, 1234):
        random_bases = np.random.default_rng(seed).random(tuple(bases.shape)).astype(np.float32)
        bases.copy_(F.normalize(torch.from_numpy(random_bases), dim=1))
        with torch.no_grad():
            ours = network(image)[..., :: record["stride"], :: record["stride"]].numpy()
        errors.append(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
    other, golden = errors
    assert golden < record["tolerance"] < other
