"""The race against nnU-Net: jobs, resuming, folds, schedule, cores, without nnU-Net."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.race import run, sets
from benchmarks.race.arms import ARMS, AUTOSEG, NNUNET, Arm
from benchmarks.race.jobs import Store, plan_jobs
from benchmarks.race.ours import inner_folds
from benchmarks.race.side import fit, fit_again, fit_batch
from benchmarks.suite import environment
from tests import generated
from tests.benchmarks.race_records import job
from tests.test_architecture import REPOSITORY

CASES = 20
MODULE = "tests.benchmarks.race_arm"


# --- jobs and their file


def test_leading_arms_get_all_seeds_and_arms_to_compare_are_neighbours() -> None:
    jobs = plan_jobs({"a": 5, "b": 2}, ["nnunet", "autoseg", "plain"], [20, 5], [0, 1, 4], [3, 4], "cpu")
    # Set a has three of the folds, b two; two leading arms with two seeds, one other arm with one; two budgets.
    assert len(jobs) == len({one.name for one in jobs}) == (3 + 2) * (2 * 2 + 1) * 2
    assert [one.minutes for one in jobs] == sorted(one.minutes for one in jobs)
    assert {one.seed for one in jobs if one.arm == "plain"} == {3}
    assert [(one.set, one.fold, one.arm) for one in jobs[:4]] == [
        ("a", 0, "nnunet"), ("a", 0, "autoseg"), ("a", 0, "plain"), ("b", 0, "nnunet"),
    ]  # fmt: skip


def test_store_survives_a_kill_in_the_middle_of_a_line(tmp_path: Path) -> None:
    store = Store(tmp_path / "deep" / "scores.jsonl")
    jobs = [job(fold=fold) for fold in range(3)]
    assert store.left(jobs) == jobs
    store.add(jobs[0], cases={})
    with (tmp_path / "deep" / "scores.jsonl").open("a") as stream:
        stream.write('{"job":{"set":"hea')
    assert store.left(jobs) == jobs[1:]
    store.add(jobs[1], error="no memory")
    assert store.left(jobs) == jobs[1:] and len(store.records()) == 2
    store.add(jobs[1], cases={})
    assert store.left(jobs) == jobs[2:]
    assert [("error" in one, "cases" in one) for one in store.records()] == [(False, True)] * 2


# --- sets


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    generated.write_folders(folder / "heart", "heart", CASES)
    return folder


@pytest.fixture
def patients_known(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = generated.SPECIFICATION["heart"]
    monkeypatch.setitem(sets.SPECIFICATIONS, "heart", {"labels": list(kind.labels), "groups": kind.groups})


@pytest.mark.usefixtures("patients_known")
def test_a_set_is_made_once_with_folds_that_keep_patients_apart(data: Path, tmp_path: Path) -> None:
    made = sets.prepare(data, "heart", 48, tmp_path)
    content = made.content()
    assert content["labels"] == {"right_ventricle": 1, "myocardium": 2, "left_ventricle": 3}
    held_out = [case for fold in content["folds"] for case in fold["val"]]
    assert len(content["folds"]) == 5 and len(held_out) == len(set(held_out)) == CASES
    for fold in content["folds"]:
        sides = [{content["patients"][case] for case in fold[side]} for side in ("train", "val")]
        assert not sides[0] & sides[1]
    assert len({(case.partition("_")[0], patient) for case, patient in content["patients"].items()}) == CASES // 2
    image = cv2.imread(str(made.raw / "imagesTr" / f"{held_out[0]}_0000.png"), cv2.IMREAD_UNCHANGED)
    mask = cv2.imread(str(made.raw / "labelsTr" / f"{held_out[0]}.png"), cv2.IMREAD_UNCHANGED)
    assert image is not None and mask is not None
    assert image.dtype == np.uint16 and max(image.shape) == 48 and image.shape == mask.shape
    before = made.file.stat().st_mtime_ns
    assert sets.prepare(data, "heart", 48, tmp_path) == made and made.file.stat().st_mtime_ns == before
    # Killed before the folds were written.
    made.file.unlink()
    assert sets.prepare(data, "heart", 48, tmp_path).content() == content


def test_a_small_mask_has_the_class_that_covers_most_of_each_pixel() -> None:
    mask = np.zeros((4, 8), np.uint8)
    mask[:, 1:4] = 7  # Half of the first block, all of the second.
    mask[0, 0] = 7
    mask[2:, 4:] = 3
    mask[2, 4] = 0
    assert sets.shrink_mask(mask, sets.smaller(mask.shape, 4)).tolist() == [[7, 7, 0, 0], [0, 7, 3, 3]]
    assert sets.smaller((100, 50), 128) == (50, 100) and sets.smaller((1000, 3), 128) == (1, 128)


def test_the_choice_between_models_never_sees_the_jobs_held_out_cases() -> None:
    names = [f"case{number}" for number in range(10)]
    folds = [{"train": [n for n in names if n not in names[k::5]], "val": names[k::5]} for k in range(5)]
    for fold in range(5):
        (inner,) = inner_folds(folds, fold)
        assert set(inner["val"]) == set(folds[(fold + 1) % 5]["val"])
        assert set(inner["train"]) | set(inner["val"]) == set(folds[fold]["train"])
        assert not set(inner["train"]) & set(inner["val"])


# --- schedule


@pytest.mark.parametrize("budget", [300, 1211, 3600])
@pytest.mark.parametrize("step", [0.02, 0.5, 3.0, 20.0])
@pytest.mark.parametrize("slower", [0.8, 1.0, 1.5])
def test_the_schedule_fits_the_time_although_steps_take_longer_than_measured(budget: int, step: float, slower: float) -> None:
    epochs, iterations = fit(budget, step)
    each, used, done = iterations * step * slower, 0.0, 0
    while done < epochs:
        used, done = used + each, done + 1
        epochs = fit_again(done, used, budget - used)
    if epochs < 1000:
        assert abs(used - budget) <= max(0.51 * each, 0.001)
    assert iterations <= 250 and epochs <= 1000 and used <= budget + 0.51 * each


def test_a_budget_below_one_step_is_one_step() -> None:
    assert fit(0.1, 3.0) == fit(-4.0, 3.0) == (1, 1) and fit_again(1, 3.0, -7.0) == 1


def test_a_batch_is_made_smaller_only_where_few_steps_fit() -> None:
    assert [fit_batch(seconds, 0.5, 96) for seconds in (60, 300, 1200, 36_000)] == [2, 3, 12, 96]
    assert fit_batch(1200, 0.5, 5) == 5 and fit_batch(1200, 0.5, 1) == fit_batch(-3, 0.5, 1) == 1


def test_epochs_are_fitted_again_to_the_nearest() -> None:
    assert [fit_again(10, 50.0, left) for left in (50.0, 21.0, 24.0, 2.0, 0.0)] == [20, 14, 15, 10, 10]


# --- from end to end, with arms that train nothing


@pytest.fixture
def arms(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Three arms: exact, shifted by two pixels, and one that fails while the file is there."""
    broken = tmp_path / "broken"
    broken.touch()
    monkeypatch.setitem(ARMS, "autoseg", Arm("exact", AUTOSEG, MODULE, {"shift": 0}, leading=True))
    monkeypatch.setitem(ARMS, "nnunet", Arm("shifted", NNUNET, MODULE, {"shift": 2}, leading=True))
    monkeypatch.setitem(ARMS, "plain", Arm("broken", AUTOSEG, MODULE, {"shift": 1, "fail_if": str(broken)}))
    monkeypatch.setattr("benchmarks.suite.environment.version", lambda python, distribution: "1")
    return broken


@pytest.mark.usefixtures("patients_known")
def test_a_race_goes_on_where_it_stopped(arms: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "root"
    words = [
        "--data",
        str(data),
        "--sets",
        "heart:48",
        "--folds",
        "0,2",
        "--seeds",
        "5",
        "--minutes",
        "0.2",
        "--root",
        str(root),
    ]
    run.main([*words, "--arms", "autoseg"])
    first = (root / "scores.jsonl").read_text()
    assert len(first.splitlines()) == 2 and "| exact | 1.000 (1.000 to 1.000) | 0.0 | 1.000 |" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2 trainings failed"):
        run.main([*words, "--arms", "autoseg,nnunet,plain"])
    told = capsys.readouterr()
    assert "4 trainings are left" in told.err and "no memory left" in told.err
    assert "Failed, and missing above: heart48-0.2min-cpu-seed5-fold0-plain" in told.out
    assert (root / "scores.jsonl").read_text().startswith(first)
    arms.unlink()
    run.main([*words, "--arms", "autoseg,nnunet,plain"])
    told = capsys.readouterr()
    assert "2 trainings are left" in told.err and "Failed" not in told.out
    stored = [json.loads(line) for line in (root / "scores.jsonl").read_text().splitlines()]
    assert all(one["seconds_given"] == pytest.approx(12) for one in stored if "cases" in one)
    folds = json.loads((root / "sets" / "heart48.json").read_text())["folds"]
    for one in stored:
        assert "error" in one or set(one["cases"]) == set(folds[one["job"]["fold"]]["val"])
    # Masks stay, all else that the arms wrote does not.
    name = "heart48-0.2min-cpu-seed5-fold2-nnunet"
    assert {path.stem for path in (root / "predictions" / name).iterdir()} == set(folds[2]["val"])
    assert not list((root / "work").iterdir())


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
@pytest.mark.usefixtures("patients_known", "arms")
def test_two_trainings_run_side_by_side_each_on_its_own_core(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(ARMS, "autoseg", Arm("waits", AUTOSEG, MODULE, {"shift": 0, "wait": 1.0}, leading=True))
    root = tmp_path / "root"
    words = [
        "--data",
        str(data),
        "--sets",
        "heart:48",
        "--folds",
        "0,1",
        "--seeds",
        "0",
        "--minutes",
        "0.2",
        "--root",
        str(root),
    ]
    run.main([*words, "--arms", "autoseg"])
    capsys.readouterr()
    stored = [json.loads(line) for line in (root / "scores.jsonl").read_text().splitlines()]
    cores = [tuple(one["cores"]) for one in stored]
    assert len(cores) == len(set(cores)) == 2 and all(len(one) == 1 for one in cores)


@pytest.mark.usefixtures("patients_known")
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_running_trainings_and_stores_nothing_of_them(stop: int, data: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    sets.prepare(data, "heart", 48, root)
    words = ["--data", str(data), "--sets", "heart:48", "--arms", "autoseg", "--minutes", "1", "--root", str(root)]
    code = (
        "import signal; from benchmarks.race import run; from benchmarks.race.arms import ARMS, Arm\n"
        # As a shell script starts it in the background.
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        f"ARMS['autoseg'] = Arm('waits', 'autoseg', {MODULE!r}, {{'shift': 0, 'wait': 300}}, True)\n"
        f"run.main({words!r})"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=REPOSITORY, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    requests = wait_for(lambda: list((root / "work").glob("*/request.json")))
    time.sleep(0.5)
    process.send_signal(stop)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 130 and "the same command goes on" in told and "FAILED" not in told
    assert not (root / "scores.jsonl").exists()
    running = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not any(str(one).encode() in line for one in requests for line in running)


def wait_for(look: Callable[[], list[Path]], seconds: float = 60.0) -> list[Path]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError("nothing came")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "--data DIR is missing"),
        (["--data", "DATA", "--arms", "autoseg,unet3000"], "no arm unet3000"),
        (["--data", "DATA", "--sets", "heart"], "heart:256"),
        (["--data", "DATA", "--sets", "heart:x"], "heart:256"),
        (["--data", "DATA", "--sets", "lung:64"], "no folder images/"),
        (["--data", "DATA", "--sets", "heart:64", "--nnunet", "/bin/false"], "has no nnunetv2"),
        (["--data", "DATA", "--arms", "plain", "--plain", "/bin/false"], "leave out plain with --arms"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_is_trained(
    words: list[str], told: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if "/bin/false" not in words:
        monkeypatch.setattr("benchmarks.suite.environment.version", lambda python, distribution: "1")
    with pytest.raises(SystemExit) as ended:
        run.main([str(data) if word == "DATA" else word for word in words] + ["--root", str(tmp_path / "root")])
    assert ended.value.code == 2 and told in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "root" / "work").exists()


def test_an_interpreter_is_asked_for_the_package_it_needs() -> None:
    assert environment.version(sys.executable, "numpy") == np.__version__
    assert environment.version(sys.executable, "no-such-package") == environment.version("/bin/false") == ""


@pytest.mark.slow
@pytest.mark.usefixtures("patients_known")
def test_autosegs_own_arm_runs_from_end_to_end(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--data", str(data), "--sets", "heart:48", "--folds", "0", "--seeds", "0", "--minutes", "0.05"]
    run.main([*words, "--root", str(tmp_path), "--arms", "autoseg,autoseg-choice", "--workers", "1"])
    out = capsys.readouterr().out
    assert out.count(f"| {ARMS['autoseg'].title} |") == 1 and f"| {ARMS['autoseg-choice'].title} (1 x " in out
