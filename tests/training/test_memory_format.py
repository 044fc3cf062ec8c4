from __future__ import annotations

import signal
from dataclasses import replace

import pytest
import torch

from autoseg.models import registry
from autoseg.schema.plan import Plan
from autoseg.schema.run import RunRecord
from autoseg.support.errors import SeveralProblems
from autoseg.support.files import read_artefact
from autoseg.training import checkpoint
from autoseg.training.checkpoint import load_network
from autoseg.training.memory_format import choose
from autoseg.training.train_fold import train_fold
from tests.training import tiny
from tests.training.test_train_fold import folder_of, same_weights
from tests.training.tiny import NAME, with_model

CPU, CUDA, MPS = map(torch.device, ("cpu", "cuda", "mps"))
FASTER_ON_CPU = replace(tiny.SPEC, channels_last_on_cpu=True)


@pytest.mark.parametrize(
    ("spec", "device", "chosen"),
    [
        (tiny.SPEC, CUDA, "channels_last"),
        (replace(tiny.SPEC, channels_last_on_cuda=False), CUDA, "contiguous"),
        (registry.spec("nnunet"), CUDA, "contiguous"),
        (registry.spec("unet"), CUDA, "channels_last"),
        (tiny.SPEC, CPU, "contiguous"),
        (FASTER_ON_CPU, CPU, "channels_last"),
        (FASTER_ON_CPU, MPS, "contiguous"),
    ],
)
def test_format_depends_on_device_and_model(spec, device, chosen):
    assert choose(spec, device)[0] == chosen


def test_results_hold_the_format_and_its_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(tiny, "SPEC", FASTER_ON_CPU)
    assert tiny.train(tmp_path, "auto").memory_format == "channels_last"
    plan = read_artefact(folder_of(tmp_path) / "plan.json", Plan)
    assert plan.models[NAME].memory_format == "channels_last"
    (decision,) = [decision for decision in plan.decisions if decision.subject == f"models.{NAME}.memory_format"]
    assert decision.value == "channels_last" and "faster for this network" in decision.reason


def test_resumed_run_keeps_its_format_and_is_bit_identical(tmp_path):
    """Killed in the third epoch, resumed by a plan that leaves the format to the rule, which would take the other one."""
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    assert tiny.in_a_process(unbroken, memory_format="channels_last")[0] == 0
    assert tiny.in_a_process(killed, signal.SIGKILL, 7, memory_format="channels_last")[0] == -9
    code, output = tiny.in_a_process(killed, memory_format="auto")
    assert code == 0 and "resuming after epoch" in output and "channels_last" in output, output
    folder = folder_of(killed)
    assert same_weights(folder, folder_of(unbroken))
    assert read_artefact(folder / "run.json", RunRecord).memory_format == "channels_last"
    plan = read_artefact(folder / "plan.json", Plan)
    assert plan.models[NAME].memory_format == "channels_last" and "started with" in plan.decisions[-1].reason
    weight = checkpoint.read(folder / "best.pt")["state_dict"]["body.0.weight"]
    assert weight.is_contiguous() and load_network(folder).network.body[0].weight.is_contiguous()  # type: ignore[index,union-attr]


def test_another_format_is_refused_and_old_checkpoints_resume(tmp_path):
    dataset, plan, splits = tiny.prepare(tmp_path)
    train_fold(dataset, plan, splits, NAME, 0, device="cpu")
    with pytest.raises(SeveralProblems, match="(?s)memory_format: contiguous -> channels_last.*--restart"):
        train_fold(dataset, with_model(plan, memory_format="channels_last"), splits, NAME, 0, device="cpu")
    path = folder_of(tmp_path) / "last.pt"
    state = checkpoint.read(path)
    del state["memory_format"]
    torch.save(state, path)
    (folder_of(tmp_path) / "run.json").unlink()
    record = train_fold(dataset, with_model(plan, memory_format="auto"), splits, NAME, 0, device="cpu")
    assert record.status == "finished" and record.memory_format == "contiguous"
