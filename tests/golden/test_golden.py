"""Our networks give the outputs of the official code, with weights computed from the official names.

`<name>.json`: model, variant, options, rule, classes, input shape, official parameters (name -> shape), batch-norm buffers,
tolerance, stride of the stored output, standard deviation of the full output. `<name>.npz`: the stored output.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autoseg import models
from tests.golden import rules

FOLDER = Path(__file__).parent
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))


def golden_tensors(record: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Every official parameter by its rule, and initial batch-norm statistics."""
    tensors = {}
    for name, shape in record["parameters"].items():
        if record["rule"] == "specialist":
            values = rules.specialist(name, tuple(shape))
        else:
            values = rules.generalist(name, tuple(shape), set(record["norm_weights"]), set(record["layer_scales"]))
        tensors[name] = torch.from_numpy(np.asarray(values, dtype=np.float32))
    for name, shape in record["buffers"].items():
        tensors[name] = torch.ones(shape) if name.endswith("running_var") else torch.zeros(shape)
    return tensors


def golden_network(name: str) -> tuple[models.SegmentationNetwork, dict[str, Any], models.LoadReport]:
    record = json.loads((FOLDER / f"{name}.json").read_text())
    network = models.build(
        record["model"], record["variant"], 3, record["classes"], tuple(record["input"][-2:]), **record["options"]
    )
    report = models.load_published(network, golden_tensors(record))
    return network.eval(), record, report


@pytest.mark.parametrize("name", NAMES)
def test_gives_the_official_output(name: str) -> None:
    network, record, report = golden_network(name)
    assert not report.missing, "every parameter of ours must come from an official one"
    assert not set(record["parameters"]) & set(report.dropped) - set(record["unused"]), "an official weight was dropped"
    with torch.no_grad():
        logits = network(torch.from_numpy(rules.golden_input(tuple(record["input"]))))
    stride = record["stride"]
    ours = logits[..., ::stride, ::stride].numpy()
    theirs = np.load(FOLDER / f"{name}.npz")["logits"]
    assert ours.shape == theirs.shape
    if record["measure"] == "max_over_std":
        error = np.abs(ours - theirs).max() / record["std"]
    elif record["measure"] == "rms_over_std":
        error = np.sqrt(np.mean((ours - theirs) ** 2)) / record["std"]
    else:
        error = np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
    assert error < record["tolerance"], f"{record['measure']} {error:.2e}"


@pytest.mark.parametrize("name", NAMES)
def test_parameter_count_is_the_official_one(name: str) -> None:
    record = json.loads((FOLDER / f"{name}.json").read_text())
    official = sum(int(np.prod(shape)) for shape in record["parameters"].values())
    with torch.device("meta"):
        network = models.build(
            record["model"], record["variant"], 3, record["classes"], tuple(record["input"][-2:]), **record["options"]
        )
    ours = sum(p.numel() for p in network.parameters())
    assert abs(ours - official) <= 0.01 * official
