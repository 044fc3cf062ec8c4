"""Real runs in processes of their own, some of which are killed: what they leave is what undisturbed ones leave."""

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
def _looking_often(monkeypatch):
    monkeypatch.setattr(scheduler, "_LOOK", 0.2)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("grid")
    images, masks = generated.write_folders(folder, "lesion", 10)
    api.convert_folders(images, masks, "Lesions", labels=["background", "lesion"], root=folder / "root")
    api.plan_and_preprocess(501, protocol="quick", models=["unet"], settings=SETTINGS, root=folder / "root")
    return folder / "root"


@pytest.fixture(scope="module")
def undisturbed(prepared, tmp_path_factory) -> Path:
    """Folds 0 and 1, side by side."""
    root = tmp_path_factory.mktemp("undisturbed") / "root"
    shutil.copytree(prepared, root)
    found = run(root, Local(2))
    assert [(row.state, row.attempts) for row in found.rows] == [("done", 1)] * 2, found
    return root


def run(root: Path, engine, watch=lambda table: None) -> GridTable:
    jobs = fold_jobs(Workspace.at(root).dataset(501), ["unet"], [0, 1])
    return scheduler.run_grid(jobs, JobOptions(root=root, device="cpu"), engine, watch=watch)


def same_weights(one: Path, other: Path) -> bool:
    for fold in (0, 1):
        ones, others = (
            checkpoint.read(Workspace.at(root).dataset(501).fold("unet", fold) / "last.pt")["state_dict"]
            for root in (one, other)
        )
        if not all(torch.equal(ones[name], others[name]) for name in others):
            return False
    return True


def test_a_killed_process_goes_on_and_ends_with_the_weights_of_an_undisturbed_one(prepared, undisturbed, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(prepared, root)
    killed = []

    def watch(table: GridTable) -> None:
        for row in table.rows:
            if row.state == "running" and row.epochs_done >= 1 and not killed:
                killed.append(row.job)
                os.kill(int(row.where.split()[1]), signal.SIGKILL)

    found = run(root, Local(2), watch)
    assert len(killed) == 1 and {row.job: row.attempts for row in found.rows}[killed[0]] == 2
    assert all(row.state == "done" and row.epochs_done == EPOCHS for row in found.rows)
    log = (Workspace.at(root).dataset(501).fold("unet", killed[0].fold) / "autoseg_train.log").read_text()
    assert "going on after epoch" in log
    assert same_weights(root, undisturbed)


def test_a_ray_node_killed_in_the_middle_loses_nothing(prepared, undisturbed, tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="needs the extra [ray]")
    # A busy machine takes longer to start a node than Ray is ready to wait.
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
        found = run(root, engine, watch)
    finally:
        cluster.shutdown()
    assert removed and sorted(row.attempts for row in found.rows) == [1, 2], found
    assert all(row.state == "done" and row.epochs_done == EPOCHS for row in found.rows)
    assert same_weights(root, undisturbed)


def test_slurm_jobs_run_through_submitit(prepared, undisturbed, tmp_path):
    """Through submitit's local executor: the same code sends jobs to a real cluster."""
    pytest.importorskip("submitit", reason="needs the extra [slurm]")
    from autoseg.runner.slurm_engine import SlurmEngine

    root = tmp_path / "root"
    shutil.copytree(prepared, root)
    found = run(root, SlurmEngine(tmp_path / "jobs", cluster="local", parameters={"timeout_min": "30"}))
    assert all(row.state == "done" and row.where for row in found.rows), found
    assert same_weights(root, undisturbed)


def test_more_gpus_or_workers_than_there_are_are_refused():
    with pytest.raises(AutosegError, match=r"have 2 GPUs, but PyTorch sees 1 here\n.*--gpus-per-run"):
        Local(gpus=1, gpus_per_run=2)
    with pytest.raises(AutosegError, match=r"5 runs side by side are too many for 4 GPUs\n.*--workers 4"):
        Local(workers=5, gpus=4, gpus_per_run=1)
    assert Local(gpus=4, gpus_per_run=2).slots() == 2
    assert [Local(gpus=4, gpus_per_run=2)._variables(slot)["CUDA_VISIBLE_DEVICES"] for slot in (0, 1)] == ["0,1", "2,3"]
