"""Jobs of further seeds: their plans, their folders, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoseg import api
from autoseg.runner.jobs import JobOptions, command_of, fold_jobs, folder_of
from autoseg.runner.seeds import check_seeds, other_seeds, seed_jobs
from autoseg.schema.plan import Plan, Splits
from autoseg.schema.run import RateSearch
from autoseg.support.errors import AutosegError
from autoseg.support.files import read_artefact, write_artefact
from autoseg.support.workspace import seed_folder_name, seed_of_folder
from tests.runner.scripted import FOLDS, write_planned_dataset


def test_each_seed_has_a_plan_and_folders_of_its_own(tmp_path: Path) -> None:
    dataset = write_planned_dataset(tmp_path)
    jobs = fold_jobs(dataset, ["unet", "segformer"], None)
    more = seed_jobs(dataset, jobs, other_seeds(dataset, (2, 0, 1)), {"training.epochs": "4"}, "none")
    assert len(more) == 2 * len(jobs) and {job.trial for job in more} == {
        "unet-seed1", "unet-seed2", "segformer-seed1", "segformer-seed2",
    }  # fmt: skip
    for job in more:
        folder = folder_of(tmp_path, job).parent
        plan = read_artefact(folder / "plan.json", Plan)
        assert folder == dataset.results / job.trial and list(plan.models) == [job.model]
        assert (plan.training.seed, plan.training.epochs) == (int(job.trial[-1]), 4)
        assert "spread over seeds" in next(one.reason for one in plan.decisions if one.subject == "training.seed")
        assert read_artefact(folder / "splits.json", Splits) == read_artefact(dataset.splits, Splits)
        words = command_of(job, JobOptions(root=tmp_path, settings={"training.epochs": "4"}, pretrained="none"))
        assert words[words.index("--trial") + 1] == job.trial and "--set" not in words and "--pretrained" not in words


def test_the_searched_rate_counts_for_all_seeds(tmp_path: Path) -> None:
    dataset = write_planned_dataset(tmp_path, search_epochs=2)
    search = RateSearch(fold=0, epochs=2, identity="x", tried=(), chosen=0.0001, steps=8, seconds=1.0)
    write_artefact(dataset.model("unet") / "learning_rate.json", search)
    jobs = seed_jobs(dataset, fold_jobs(dataset, ["unet"], [0]), [1], {}, None)
    plan = read_artefact(folder_of(tmp_path, jobs[0]).parent / "plan.json", Plan)
    assert (plan.models["unet"].learning_rate, plan.training.learning_rates, plan.training.search_epochs) == (1e-4, (1e-4,), 0)


@pytest.mark.parametrize(
    ("seeds", "settings", "pretrained", "message"),
    [
        ((1, 1), {}, None, "seeds cannot be 1, 1"), ((-1,), {}, None, "seeds cannot be -1"),
        ((0, 1), {"training.seed": "3"}, None, "training.seed is set"),
        ((0, 1), {}, "weights.pth", "seeds cannot start from weights.pth"),
    ],
)  # fmt: skip
def test_what_gives_no_seeds_is_refused(seeds, settings, pretrained, message: str) -> None:
    with pytest.raises(AutosegError, match=message):
        check_seeds(seeds, settings, pretrained)
    check_seeds((), settings, pretrained)


def test_names_of_folders() -> None:
    assert seed_folder_name("timm:resnet18", 12) == "timm+resnet18-seed12"
    assert seed_of_folder("timm+resnet18-seed12") == ("timm:resnet18", 12)
    assert all(seed_of_folder(name) is None for name in ("unet", "unet-seed", "unet-seedx", "selection"))


def test_the_further_seeds_start_when_the_first_are_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from autoseg.schema.runner import GridTable, JobRow

    dataset = write_planned_dataset(tmp_path)
    calls: list[list[str]] = []

    def run_jobs(jobs, *arguments: object, **options: object) -> GridTable:
        calls.append([job.trial for job in jobs])
        failed = {("segformer", 1)}
        rows = tuple(JobRow(job=job, state="failed" if (job.model, job.fold) in failed else "done") for job in jobs)
        return GridTable(rows=rows, engine="local", host="here", pid=1, updated="now")

    monkeypatch.setattr("autoseg.runner.scheduler.run_jobs", run_jobs)
    for name in ("_plan", "_require_weights", "_prepare", "_compare", "check_training"):
        monkeypatch.setattr(f"autoseg.api.runner.{name}", lambda *arguments: None)
    table = api.run(dataset.name, seeds=(0, 1), root=tmp_path)
    first, second = calls
    assert first == [""] * 2 * FOLDS and second[: len(first)] == first
    assert sorted(second[len(first) :]) == ["segformer-seed1"] * (FOLDS - 1) + ["unet-seed1"] * FOLDS
    assert len(table.rows) == len(second)
    calls.clear()
    api.run(dataset.name, root=tmp_path)
    assert len(calls) == 1
