"""Two processes under torchrun, talking through gloo, train the network one process trains."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from autoseg.schema.plan import ModelPlan, Normalisation
from autoseg.schema.run import RunRecord
from autoseg.support.errors import AutosegError
from autoseg.support.files import read_artefact
from autoseg.training import checkpoint
from autoseg.training.distributed import SINGLE_PROCESS, DistributedContext
from autoseg.training.step import local_indices, micro_batches
from tests.training import tiny

REPOSITORY = Path(__file__).parents[2]
EPOCHS, STEPS = 8, 2


def run(root: Path, processes: int, stop_before: int = 0) -> subprocess.CompletedProcess[str]:
    if not (root / "raw").exists():
        tiny.prepare(root)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    launcher = torchrun if processes > 1 else []
    script = ["-m", "tests.training.distributed_worker", str(root), str(stop_before)]
    return subprocess.run([sys.executable, *launcher, *script], cwd=REPOSITORY, capture_output=True, text=True, check=False)


def outcome(root: Path) -> tuple[RunRecord, dict[str, torch.Tensor], list[list[str]]]:
    folder = root / "results" / "Dataset701_Discs" / tiny.NAME / "fold_0"
    rows = [line.split(",")[:6] for line in (folder / "metrics.csv").read_text().splitlines()[1:]]
    return read_artefact(folder / "run.json", RunRecord), checkpoint.read(folder / "last.pt")["state_dict"], rows


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    root = tmp_path_factory.mktemp("one")
    done = run(root, 1)
    assert done.returncode == 0, done.stderr
    return outcome(root)


def same(ones, others) -> None:
    (record, weights, rows), (expected_record, expected_weights, expected_rows) = ones, others
    assert record.memory_format == expected_record.memory_format == "channels_last"
    assert (record.status, record.steps, record.best_epoch) == ("finished", EPOCHS * STEPS, expected_record.best_epoch)
    # AdamW brings rounding of small gradients to full size: 1e-6 of a weight in four steps becomes 1e-3 in sixteen.
    for epoch, (row, line) in enumerate(zip(rows, expected_rows, strict=True)):
        near = 2e-5 if epoch < 2 else 2e-3
        assert [float(value) for value in row] == pytest.approx([float(value) for value in line], abs=near)
    for name, tensor in expected_weights.items():
        torch.testing.assert_close(
            weights[name], tensor, rtol=5e-3, atol=5e-3, msg=lambda message, name=name: f"{name}: {message}"
        )


@pytest.mark.slow
def test_two_processes_give_the_same_network_as_one(one, tmp_path):
    """With soft Dice and clDice over the batch, unequal shards and two micro-batches."""
    done = run(tmp_path, 2)
    assert done.returncode == 0, done.stderr
    assert one[0].processes == 1 and one[0].class_mean_dice > 0.4 and outcome(tmp_path)[0].processes == 2
    same(outcome(tmp_path), one)
    assert done.stderr.count("epoch 8/8") == 1, "one of them speaks"
    assert "2 processes" in done.stderr


@pytest.mark.slow
def test_a_signal_stops_all_processes_at_the_same_step_and_one_process_can_resume(one, tmp_path):
    done = run(tmp_path, 2, stop_before=3)
    assert done.returncode != 0
    record = outcome(tmp_path)[0]
    assert record.status == "stopped" and record.epochs_done == 1
    again = run(tmp_path, 1)
    assert again.returncode == 0 and "resuming after epoch 1" in again.stderr, again.stderr
    same(outcome(tmp_path), one)


def planned(batch: int, accumulate: int) -> ModelPlan:
    return ModelPlan(
        model="unet",
        variant="16",
        input_size=(8, 8),
        batch_size=batch,
        accumulate=accumulate,
        precision="fp32",
        pretrained="none",
        learning_rate=1.0,
        warmup_epochs=0,
        normalisation=Normalisation(scheme="image"),
        preprocessing="k",
        parameters=0,
        flops=0,
        memory=0,
    )


@pytest.mark.parametrize(("batch", "accumulate", "size"), [(8, 1, 3), (5, 2, 2), (7, 3, 1), (8, 2, 4)])
def test_shards_of_all_processes_make_up_each_micro_batch(batch, accumulate, size):
    plan = planned(batch, accumulate)
    indices = [local_indices(plan, DistributedContext(rank, size)) for rank in range(size)]
    for number, part in enumerate(micro_batches(plan)):
        assert [sample for rank_indices in indices for sample in rank_indices[number]] == list(part)
        lengths = [len(rank_indices[number]) for rank_indices in indices]
        assert max(lengths) - min(lengths) <= 1 and min(lengths) > 0
    assert [sample for part in micro_batches(plan) for sample in part] == list(range(batch))


def test_more_processes_than_images_are_refused_with_the_remedy():
    with pytest.raises(AutosegError, match=r"a batch of 2 images cannot be split over 3 processes.*\n.*accumulate=1"):
        local_indices(planned(8, 4), DistributedContext(0, 3))


def test_a_single_process_shares_nothing():
    tensor = torch.ones(2)
    assert (
        SINGLE_PROCESS.all_reduce(tensor) is tensor
        and SINGLE_PROCESS.all_gather("a") == ["a"]
        and SINGLE_PROCESS.any(True)
        and not SINGLE_PROCESS.any(False)
    )
    assert SINGLE_PROCESS.device(torch.device("cuda")) == torch.device("cuda")


@pytest.mark.parametrize(("local", "gpus", "number"), [("1", 4, 1), ("3", 4, 3), ("1", 1, 0)])
def test_a_process_takes_the_gpu_of_its_number_on_its_machine(monkeypatch, local, gpus, number):
    """Process 6 of 8 on two machines; with one GPU in sight per process it is that one."""
    monkeypatch.setenv("LOCAL_RANK", local)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert DistributedContext(6, 8).device(torch.device("cuda")) == torch.device("cuda", number)


def test_sync_batch_norm_keeps_parameters_names_and_activations():
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), BatchNormAct2d(4), nn.GroupNorm(2, 4)]
    network = nn.Sequential(*layers)
    weights, images = dict(network.named_parameters()), torch.randn(2, 3, 8, 8)
    expected_record = network.eval()(images)
    assert SINGLE_PROCESS.sync_batch_norm(network, torch.device("cuda"))[1] is layers[1]
    assert DistributedContext(0, 2).sync_batch_norm(network, torch.device("cpu"))[1] is layers[1]
    synced = DistributedContext(0, 2).sync_batch_norm(network, torch.device("cuda"))
    assert [isinstance(layer, nn.SyncBatchNorm) for layer in synced] == [False, True, True, False]
    assert all(weights[name] is parameter for name, parameter in synced.named_parameters())
    # In evaluation mode it works on processors too: nothing was lost, the activation included.
    torch.testing.assert_close(synced.eval()(images), expected_record)
