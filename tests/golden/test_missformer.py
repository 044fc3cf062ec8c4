"""MISSFormer for any size equals the published network at the published size."""

from __future__ import annotations

import json

import numpy as np
import torch

from autoseg import models
from tests.golden import rules
from tests.golden.test_golden import FOLDER, golden_tensors


def test_missformer_free_gives_the_official_output_at_the_official_size() -> None:
    record = json.loads((FOLDER / "missformer.json").read_text())
    network = models.build("missformer", "free", 3, record["classes"])
    report = models.load_published(network, golden_tensors(record))
    assert not report.missing
    assert set(report.dropped) == set(record["unused"])
    with torch.no_grad():
        logits = network.eval()(torch.from_numpy(rules.golden_input(tuple(record["input"]))))
    theirs = np.load(FOLDER / "missformer.npz")["logits"]
    stride = record["stride"]
    error = np.abs(logits[..., ::stride, ::stride].numpy() - theirs).max() / record["std"]
    assert error < record["tolerance"], f"{error:.2e}"


def test_missformer_free_does_not_resize_its_input() -> None:
    network = models.build("missformer", "free").eval()
    shapes: list[tuple[int, ...]] = []
    network.encoder[3].register_forward_hook(lambda module, args, output: shapes.append(tuple(output.shape)))
    with torch.no_grad():
        logits = network(torch.zeros(1, 3, 60, 130))
    assert shapes == [(1, 512, 2, 5)]
    assert logits.shape == (1, 2, 60, 130)
