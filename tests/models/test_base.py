"""The contract of networks (`autoseg.planning.model_checks`): autoseg's own keep it, and a network that breaks it fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg import api, models
from autoseg.cli.check_model import main
from autoseg.models.base import ModelOutput, ModelSpec, SegmentationNetwork, Variant
from autoseg.planning.model_checks import CHECKS, Candidate, Check, check_model, find_fault
from autoseg.support.extensions import MODELS

NAMES = models.names()
OTHERS = [
    (name, variant.name)
    for name in NAMES
    for variant in models.spec(name).variants
    if variant.name != min(models.spec(name).variants, key=lambda v: v.parameters).name
]
EMPTY = {check.title: check for check in CHECKS if check.title.startswith(("as many parameters", "memory"))}


def smallest(name: str) -> str:
    return min(models.spec(name).variants, key=lambda v: v.parameters).name


@pytest.fixture(scope="module", params=NAMES)
def candidate(request: pytest.FixtureRequest) -> Candidate:
    return Candidate(request.param, smallest(request.param))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.title)
def test_the_smallest_variant_passes(candidate: Candidate, check: Check) -> None:
    assert find_fault(check, candidate) == ""


@pytest.mark.parametrize("check", EMPTY.values(), ids=lambda check: check.title)
@pytest.mark.parametrize(("name", "variant"), OTHERS)
def test_every_other_variant_passes_without_values(name: str, variant: str, check: Check) -> None:
    assert find_fault(check, Candidate(name, variant)) == ""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "variant"), OTHERS)
def test_every_other_variant_passes_all(name: str, variant: str) -> None:
    candidate = Candidate(name, variant)
    checks = [check for check in CHECKS if check.title not in EMPTY]
    assert [fault for check in checks if (fault := find_fault(check, candidate))] == []


@pytest.mark.parametrize("name", NAMES)
def test_channels_last_changes_no_more_than_rounding(name: str) -> None:
    """Training may use it; validation then gets ordinary tensors, also of odd sizes."""
    torch.manual_seed(0)
    network = models.build(name, smallest(name), 3, 3).eval()
    images = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        expected = network(images)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for layout in (images, images.contiguous(memory_format=torch.channels_last)):
            torch.testing.assert_close(network(layout), expected, rtol=1e-3, atol=1e-3 * float(expected.std()))
    images = torch.randn(2, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    output = network.train()(images)
    labels = torch.randint(0, 3, (2, 64, 64))
    assert (output.own_loss is not None) == models.spec(name).own_loss
    if output.own_loss is not None:
        output.own_loss(F.one_hot(labels, 3).movedim(-1, 1).float(), torch.ones(2, 1, 64, 64)).backward()
    else:
        F.cross_entropy(output.logits, labels).backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


class Good(SegmentationNetwork):
    divisor = 4

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(in_channels, 8, 4, 4), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Conv2d(8, num_classes, 1)

    def segment(self, x: Tensor) -> ModelOutput:
        return ModelOutput(self.head(self.body(x)))


class FailsOnReal(Good):
    """Like an attention kernel for half precision only: correct shapes, but values cannot be computed."""

    def segment(self, x: Tensor) -> ModelOutput:
        if x.device.type == "meta" or isinstance(x, torch._subclasses.FakeTensor):
            return super().segment(x)
        raise RuntimeError("no kernel for float32\nmore lines")


class NoSkip(Good):
    def forward(self, x: Tensor) -> Any:
        return self.segment(x).logits


class Noisy(Good):
    def segment(self, x: Tensor) -> ModelOutput:
        return super().segment(x + torch.randn_like(x))


class BatchStatistics(Good):
    def segment(self, x: Tensor) -> ModelOutput:
        return super().segment(x - x.mean())


class WithUnusedParameter(Good):
    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__(in_channels, num_classes)
        self.idle = nn.Linear(2, 2)


class WithoutBuffer(Good):
    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__(in_channels, num_classes)
        self.hidden = [torch.randn(8, 1, 1)]

    def segment(self, x: Tensor) -> ModelOutput:
        return ModelOutput(self.head(self.body(x) + self.hidden[0].to(x.device)))


class ValueDependent(Good):
    def segment(self, x: Tensor) -> ModelOutput:
        return super().segment(x * 2 if x.mean().item() > 0 else x)


class OneAuxiliary(Good):
    def segment(self, x: Tensor) -> ModelOutput:
        logits = super().segment(x).logits
        return ModelOutput(logits, ((logits[:, :1], 0.5),))


class ThreeChannels(Good):
    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__(3, num_classes)


PARAMETERS = 3 * 8 * 16 + 8 + 16 + 8 * 2 + 2
SPEC = ModelSpec(
    name="mine", title="Mine", family="specialist", citation="none", variants=(Variant("one", PARAMETERS),),
    default_variant="one", divisor=4, cam_layer="body",
)  # fmt: skip


@pytest.fixture
def register() -> Iterator[Callable[..., None]]:
    """Registers a network as the model "mine"."""

    def add(network: type[Good], **spec: Any) -> None:
        def build(variant: str, in_channels: int, num_classes: int, input_size: Any = None) -> Good:
            return network(in_channels, num_classes)

        MODELS.add("mine", SimpleNamespace(SPEC=SPEC if not spec else ModelSpec(**{**vars(SPEC), **spec}), build=build))  # type: ignore[arg-type]

    yield add
    MODELS.remove("mine")


@pytest.mark.parametrize(
    ("network", "title", "message"),
    [
        (FailsOnReal, "in evaluation mode", "RuntimeError: no kernel for float32"),
        (NoSkip, "in evaluation mode", "logits of shape (2, 3, 16, 16) instead of (2, 3, 64, 64)"),
        (NoSkip, "in training mode", "a Tensor instead of a ModelOutput"),
        (ThreeChannels, "1, 3 and 5 channels", "RuntimeError"),
        (Noisy, "the same logits again", "two passes over one input differ"),
        (BatchStatistics, "the same logits again", "an image alone and in a batch differ"),
        (OneAuxiliary, "in training mode", "auxiliary logits of shape (2, 1, 16, 16) instead of (2, 3, h, w)"),
        (WithUnusedParameter, "a finite gradient", "no gradient reaches idle.bias, idle.weight"),
        (
            WithUnusedParameter,
            "as many parameters",
            f"the spec says {PARAMETERS:,} for 3 channels and 2 classes, there are {PARAMETERS + 6:,}",
        ),
        (WithoutBuffer, "weights that can be saved", "not in the state_dict"),
        (ValueDependent, "memory and operations", ""),
    ],
)
def test_a_broken_contract_is_found(register: Callable[..., None], network: type[Good], title: str, message: str) -> None:
    register(network)
    faults = {result.check.title: result.fault for result in check_model("mine")}
    (fault,) = [fault for name, fault in faults.items() if name.startswith(title)]
    assert fault and message in fault
    assert any(not fault for fault in faults.values()), "other checks pass"


@pytest.mark.parametrize(("cam_layer", "message"), [("", "cam_layer is ''"), ("body.9", "layers are, for example, body")])
def test_a_missing_layer_for_heat_maps_is_found(register: Callable[..., None], cam_layer: str, message: str) -> None:
    register(Good, cam_layer=cam_layer)
    faults = [result.fault for result in check_model("mine") if result.fault]
    assert len(faults) == 1 and message in faults[0]


def test_the_command_prints_a_line_for_each_check(register: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    register(Good)
    assert main(["mine"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(CHECKS) + 1 and all(line.startswith("ok    mine one: ") for line in lines[:-1])


def test_the_python_interface_gives_a_table(register: Callable[..., None]) -> None:
    register(WithUnusedParameter)
    seen: list[api.ModelCheck] = []
    table = api.check_model("mine", on_result=seen.append)
    assert seen == table and [row.check for row in table] == [check.title for check in CHECKS]
    failed = [row for row in table if not row.passed]
    assert len(failed) == 2 and all(row.fault and row.remedy for row in failed)
    assert all(not row.fault and row.variant == "one" for row in table if row.passed)
    with pytest.raises(api.AutosegError, match="did you mean mine"):
        api.check_model("mines")


def test_the_command_says_what_to_do(register: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    register(WithUnusedParameter)
    assert main(["mine"]) == 1
    output = capsys.readouterr().out
    assert "FAIL  mine one: a finite gradient" in output and "-> use the parameter, remove it, or name it in unused" in output
    assert output.endswith("2 checks failed\n")


def test_the_command_exits_with_2_for_an_unknown_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["unett"]) == 2
    assert "did you mean unet" in capsys.readouterr().err


def test_unknown_names_suggest_known_ones() -> None:
    with pytest.raises(models.registry.AutosegError, match="did you mean nnunet"):
        models.build("nnunett")
    with pytest.raises(models.registry.AutosegError, match="choose one of"):
        models.build("nnunet", variant="enormous")
