from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from autoseg.models.base import ModelSpec, Variant
from autoseg.models.published_weights import PublishedWeights, direct, on_hub
from autoseg.support.extensions import MODELS
from tests.training import tiny

NAME = "small_net"
FACTS = {"trained_on": "ImageNet-1k", "licence": "MIT"}


def spec(*weights: PublishedWeights) -> ModelSpec:
    return ModelSpec(
        name=NAME, title="Small net", family="generalist", citation="", variants=(Variant("one", 0), Variant("two", 0)),
        default_variant="one", weights=weights,
    )  # fmt: skip


WEIGHTS = (
    on_hub("owner/small", revision="a" * 40, variant="one", **FACTS),
    direct("https://files.example.org/small_one.pth", variant="one", **FACTS),
    on_hub("owner/other", variant="two", trained_on="ImageNet-22k", licence="NC-1.0"),
    direct("https://files.example.org/study.pth", trained_on="ImageNet-1k", licence="BSD-3-Clause", study=True),
)


@pytest.fixture(autouse=True)
def _tiny_model() -> Iterator[None]:
    tiny.register()
    yield
    MODELS.remove(tiny.NAME)


@pytest.fixture
def small_net() -> Iterator[SimpleNamespace]:
    """A registered network of a few weights with published files. Its SPEC can be replaced."""
    module = SimpleNamespace(SPEC=spec(*WEIGHTS), build=tiny.build)
    MODELS.add(NAME, module)
    yield module
    MODELS.remove(NAME)


def small_file(path: Path, variant: str = "one", seed: int = 0) -> Path:
    """A checkpoint that fits the network."""
    torch.manual_seed(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(tiny.build(variant, 3, 2).state_dict(), path)
    return path


def with_facts(module: SimpleNamespace, number: int, **facts: object) -> PublishedWeights:
    """Change what is known of one of the network's files."""
    weights = list(module.SPEC.weights)
    weights[number] = replace(weights[number], **facts)  # type: ignore[arg-type]
    module.SPEC = spec(*weights)
    return weights[number]
