"""Real training jobs in their own processes: killed jobs give the same weights as undisturbed ones."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
import torch

from autoseg import api
from autoseg.runner import scheduler
from autoseg.runner.engine import Local
from autoseg.runner.jobs import JobOptions, fold_jobs
from autoseg.schema.runner import GridTable
from autoseg.support.errors import AutosegError
from autoseg.support.workspace import Workspace
from autoseg.training import checkpoint
from tests import generated

pytestmark = pytest.mark.slow
EPOCHS = 40
SETTINGS = {
    "training.epochs": str(EPOCHS), "training.validate_every": "10", "models.unet.variant": "16",
    "models.unet.input_size": "64x64",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _frequent_updates(monkeypatch):
    monkeypatch.setattr(scheduler, "_UPDATE_SECONDS", 0.2)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runner")
    images, masks = generated.write_folders(folder, "lesion", 10)
    api.convert_folders(images, masks, "Lesions", labels=["background", "lesion"], root=folder / "root")
    api.plan_and_preprocess(501, protocol="quick", models=["unet"], settings=SETTINGS, root=folder / "root")
    return folder / "root"


@pytest.fixture(scope="module")
def undisturbed(prepared, tmp_path_factory) -> Path:
    """Folds 0 and 1, trained at the same time."""
    root = tmp_path_factory.mktemp("undisturbed") / "root"
    shutil.copytree(prepared, root)
    table = run(root, Local(2))
    assert [(row.state, row.attempts) for row in table.rows] == [("done", 1)] * 2, table
    return root


def run(root: Path, engine, watch=lambda table: None) -> GridTable:
    jobs = fold_jobs(Workspace.at(root).dataset(501), ["unet"], [0, 1])
    return scheduler.run_jobs(jobs, JobOptions(root=root, device="cpu"), engine, watch=watch)


def same_weights(one: Path, other: Path) -> bool:
    for fold in (0, 1):
        ones, others = (
            checkpoint.read(Workspace.at(root).dataset(501).fold("unet", fold) / "last.pt")["state_dict"]
            for root in (one, other)
        )
        if not all(torch.equal(ones[name], others[name]) for name in others):
            return False
    return True


def test_killed_job_resumes_to_the_weights_of_an_undisturbed_one(prepared, undisturbed, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(prepared, root)
    killed = []

    def watch(table: GridTable) -> None:
        for row in table.rows:
            if row.state == "running" and row.epochs_done >= 1 and not killed:
                killed.append(row.job)
                os.kill(int(row.where.split()[1]), signal.SIGKILL)

    table = run(root, Local(2), watch)
    assert len(killed) == 1 and {row.job: row.attempts for row in table.rows}[killed[0]] == 2
    assert all(row.state == "done" and row.epochs_done == EPOCHS for row in table.rows)
    log = (Workspace.at(root).dataset(501).fold("unet", killed[0].fold) / "autoseg_train.log").read_text()
    assert "resuming after epoch" in log
    assert same_weights(root, undisturbed)


def test_killed_ray_node_loses_no_job(prepared, undisturbed, tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="needs the extra [ray]")
    # On a busy machine a node starts slower than Ray's default timeout.
    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "300")
    from ray.cluster_utils import Cluster

    from autoseg.runner.ray_engine import RayEngine

    root = tmp_path / "root"
    shutil.copytree(prepared, root)
    node = {"num_cpus": 1, "object_store_memory": 80 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    doomed = cluster.add_node(**node)
    removed = []

    def watch(table: GridTable) -> None:
        if all(row.state == "running" and row.epochs_done >= 1 for row in table.rows) and not removed:
            removed.append(True)
            cluster.remove_node(doomed, allow_graceful=False)

    try:
        engine = RayEngine(cluster.address)
        assert engine.slots() == 2
        table = run(root, engine, watch)
    finally:
        cluster.shutdown()
    assert removed and sorted(row.attempts for row in table.rows) == [1, 2], table
    assert all(row.state == "done" and row.epochs_done == EPOCHS for row in table.rows)
    assert same_weights(root, undisturbed)


def test_slurm_jobs_run_through_submitit(prepared, undisturbed, tmp_path):
    """With submitit's local executor; the same code submits to a real cluster."""
    pytest.importorskip("submitit", reason="needs the extra [slurm]")
    from autoseg.runner.slurm_engine import SlurmEngine

    root = tmp_path / "root"
    shutil.copytree(prepared, root)
    table = run(root, SlurmEngine(tmp_path / "jobs", cluster="local", parameters={"timeout_min": "30"}))
    assert all(row.state == "done" and row.where for row in table.rows), table
    assert same_weights(root, undisturbed)


def test_too_many_gpus_or_workers_are_refused():
    with pytest.raises(AutosegError, match=r"needs 2 GPUs, but PyTorch finds 1 on this machine\n.*--gpus-per-run"):
        Local(gpus=1, gpus_per_run=2)
    with pytest.raises(AutosegError, match=r"5 jobs at a time are too many for 4 GPUs\n.*--workers 4"):
        Local(workers=5, gpus=4, gpus_per_run=1)
    assert Local(gpus=4, gpus_per_run=2).slots() == 2


@pytest.mark.parametrize(
    ("inherited", "expected"),
    [(None, ["0,1", "2,3"]), ("4,5,6,7", ["4,5", "6,7"]), ("GPU-8f3a, GPU-11, 3,2", ["GPU-8f3a,GPU-11", "3,2"])],
)
def test_jobs_share_the_gpus_this_process_was_given(monkeypatch, inherited, expected):
    """A job of a cluster often gets some GPUs of a machine only; number 0 may be another user's."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if inherited is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", inherited)
    engine = Local(gpus=4, gpus_per_run=2)
    assert [engine._environment(slot)["CUDA_VISIBLE_DEVICES"] for slot in (0, 1)] == expected
