from __future__ import annotations

from unittest.mock import create_autospec

import pytest
import torch

from autoseg.data.loader import Batch
from autoseg.inference import precision as precision_rules
from autoseg.schema.dataset import LabelScheme
from autoseg.schema.plan import ModelPlan, Normalisation, Training
from autoseg.training.losses import Loss
from autoseg.training.optim import make_optimizer
from autoseg.training.step import Step, make_scaler, step_seed
from tests.training.tiny import Tiny

SCHEME = LabelScheme(names=("background", "a"), members=((0,), (1,)))
TRAINING = Training(epochs=1, loss="ce", learning_rates=(1e-2,))
BLOCKS = torch.rand(4, 4, 4, generator=torch.Generator().manual_seed(0)) > 0.5
LABELS = BLOCKS.repeat_interleave(4, 1).repeat_interleave(4, 2).to(torch.uint8)
BATCH = Batch((LABELS * 90).unsqueeze(1), LABELS, None, ("a", "b", "c", "d"))


def step(
    accumulate: int = 1,
    clip: float = 1.0,
    precision: str = "fp32",
    network: torch.nn.Module | None = None,
    compiled: bool = False,
) -> Step:
    torch.manual_seed(0)
    network = (network or Tiny(1, 2, 8)).train()
    plan = ModelPlan(
        model="tiny",
        variant="one",
        input_size=(16, 16),
        batch_size=4,
        accumulate=accumulate,
        precision=precision,
        pretrained="none",
        learning_rate=1e-2,
        warmup_epochs=0,  # type: ignore[arg-type]
        normalisation=Normalisation(scheme="constant", mean=(45.0,), std=(45.0,)),
        preprocessing="k",
        parameters=0,
        flops=0,
        memory=0,
    )
    optimizer = make_optimizer(network, TRAINING, 1e-2)
    return Step(network, optimizer, Loss("ce", SCHEME), plan, clip, torch.device("cpu"), compiled=compiled)  # type: ignore[arg-type]


def weights(step_: Step) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in step_.network.state_dict().items()}


def equal(ones: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(ones[name], others[name]) for name in ones)


def test_steps_lower_the_loss():
    step_ = step()
    losses = [step_(BATCH, 1e-2, seed) for seed in range(30)]
    assert losses[-1] < 0.7 * losses[0]


def test_same_seed_gives_the_same_step():
    ones = step()
    others = step()
    torch.rand(100)
    assert ones(BATCH, 1e-2, 5) == others(BATCH, 1e-2, 5)
    assert equal(weights(ones), weights(others))
    others = step()
    others(BATCH, 1e-2, 6)
    assert not equal(weights(ones), weights(others)), "dropout depends on the seed"


def test_micro_batches_add_up_to_the_batch():
    """Without layers that look at the whole batch or at chance, accumulating changes nothing but the order of sums."""

    class Plain(Tiny):
        def segment(self, x):
            self.stem[1].eval(), self.body[1].eval(), self.body[3].eval()
            return super().segment(x)

    torch.manual_seed(0)
    first = Plain(1, 2, 8)
    second, third = Plain(1, 2, 8), Plain(1, 2, 8)
    second.load_state_dict(first.state_dict())
    third.load_state_dict(first.state_dict())
    whole, halves, uneven = step(1, network=first), step(2, network=second), step(3, network=third)
    values = [step_(BATCH, 1e-2, 0) for step_ in (whole, halves, uneven)]
    assert values[1:] == pytest.approx([values[0]] * 2, rel=1e-5)
    for step_ in (halves, uneven):
        for name, parameter in step_.network.named_parameters():
            torch.testing.assert_close(parameter.grad, dict(whole.network.named_parameters())[name].grad, rtol=1e-4, atol=1e-6)


def test_gradients_are_clipped_to_the_given_norm():
    lengths = {}
    for clip in (1e-3, 0.0):
        step_ = step(clip=clip)
        step_(BATCH, 1e-2, 0)
        lengths[clip] = float(torch.stack([p.grad.norm() for p in step_.network.parameters()]).norm())
    assert lengths[1e-3] == pytest.approx(1e-3, rel=1e-3)
    assert lengths[0.0] > 0.01


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_step_with_nan_changes_nothing(where):
    step_ = step()
    step_(BATCH, 1e-2, 0)
    before = weights(step_)
    moments = {id(p): dict(state) for p, state in step_.optimizer.state.items()}
    if where == "loss":
        spoiled = Batch(torch.full((4, 1, 16, 16), float("nan")), LABELS, None, BATCH.cases)
        assert step_(spoiled, 1e-2, 1) is None
    else:
        handle = step_.network.stem[0].weight.register_hook(lambda gradient: gradient * float("inf"))
        assert step_(BATCH, 1e-2, 1) is None
        handle.remove()
    assert equal(before, weights(step_))
    assert all(torch.equal(moments[id(p)]["exp_avg"], state["exp_avg"]) for p, state in step_.optimizer.state.items())
    assert step_(BATCH, 1e-2, 2) is not None


def test_half_precision_keeps_weights_and_loss_in_float32(monkeypatch):
    monkeypatch.setattr("autoseg.inference.precision.processor_has_bf16", lambda: True)
    dtypes = []
    step_ = step(precision="bf16")
    step_.network.head.register_forward_hook(lambda module, inputs, output: dtypes.append(output.dtype))
    full = step()
    assert step_(BATCH, 1e-2, 0) == pytest.approx(full(BATCH, 1e-2, 0), rel=0.02)
    assert dtypes == [torch.bfloat16]
    assert all(parameter.dtype == torch.float32 for parameter in step_.network.parameters())


def test_seeds_differ_from_step_to_step():
    seeds = {step_seed(seed, epoch, number) for seed in (0, 1) for epoch in range(5) for number in range(20)}
    assert len(seeds) == 200


def scaled(step_: Step) -> Step:
    """With the loss scaling of fp16, as on a GPU."""
    step_.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    return step_


def test_an_overflow_under_loss_scaling_is_a_skipped_step_and_lowers_the_scale():
    step_ = scaled(step())
    before = weights(step_)
    handle = step_.network.stem[0].weight.register_hook(lambda gradient: gradient * float("inf"))
    assert step_(BATCH, 1e-2, 0) is None
    assert equal(before, weights(step_)) and step_.scaler.get_scale() == 2.0**15
    handle.remove()
    assert step_(BATCH, 1e-2, 1) is not None and not equal(before, weights(step_))


@pytest.mark.parametrize(
    ("precision", "device", "kernel", "chosen"),
    [
        ("fp16", "cuda", True, torch.float16),
        ("fp16", "mps", True, torch.float16),
        ("fp16", "mps", False, None),
        ("fp16", "cpu", True, None),
        ("fp32", "cuda", True, None),
    ],
)
def test_half_precision_is_trained_with_loss_scaling_or_not_at_all(monkeypatch, precision, device, kernel, chosen):
    """kernel: whether this PyTorch can unscale gradients on the device. MPS has it since 2.8."""
    monkeypatch.setattr(precision_rules, "_can_unscale", lambda device: kernel)
    assert precision_rules.trainable(precision, torch.device(device)) == chosen
    # A scaler for CUDA switches itself off where there is no GPU.
    scaler = create_autospec(torch.amp.GradScaler)
    monkeypatch.setattr(torch.amp, "GradScaler", scaler)
    make_scaler(precision, torch.device(device))
    scaler.assert_called_once_with(device, enabled=chosen == torch.float16)


def test_this_pytorch_can_unscale_gradients_on_a_processor():
    assert precision_rules._can_unscale(torch.device("cpu"))
    assert not precision_rules._can_unscale(torch.device("vulkan"))


def test_a_compiled_step_computes_the_same_and_keeps_the_names(monkeypatch):
    """The compiler itself is left out: a graph that is traced and run as it is."""
    compile_module = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module: compile_module(module, backend="eager"))
    plain, compiled = step(), step(compiled=True)
    assert compiled(BATCH, 1e-2, 5) == pytest.approx(plain(BATCH, 1e-2, 5), rel=1e-5)
    assert list(weights(compiled)) == list(weights(plain))
    for name, tensor in weights(plain).items():
        torch.testing.assert_close(weights(compiled)[name], tensor, rtol=1e-4, atol=1e-5)
