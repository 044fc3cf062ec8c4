from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from autoseg.schema.run import RunRecord
from autoseg.support.errors import AutosegError
from autoseg.support.registry import Registry
from autoseg.training.loggers import RunLoggers, check_loggers
from autoseg.training.train_fold import train_fold
from tests.training import tiny

RECORD = RunRecord(
    dataset="Dataset501_Paper",
    model="unet",
    variant="16",
    fold=0,
    protocol="quick",
    identity="a" * 64,
    seed=0,
    device="cpu",
    precision="fp32",
    status="running",
    epochs_planned=10,
)


def rows(first: int, last: int) -> list[dict[str, float]]:
    return [{"epoch": epoch, "loss": 1 / epoch, "micro_dice": epoch / 10} for epoch in range(first, last + 1)]


def send(name: str, folder: Path, first: int, last: int) -> None:
    opened = RunLoggers([name], folder, RECORD, first - 1)
    for row in rows(first, last):
        opened.add(row)
    opened.close()


def with_loggers(monkeypatch: pytest.MonkeyPatch, **loggers: Any) -> None:
    monkeypatch.setattr("autoseg.training.loggers.LOGGERS", Registry("logger", "autoseg.loggers.of.a.test", loggers))


def folder_in(root: Path) -> Path:
    folder = root / "results" / "Dataset501_Paper" / "unet" / "fold_0"
    folder.mkdir(parents=True)
    return folder


def test_tensorboard_shows_a_resumed_run_as_one(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = folder_in(tmp_path)
    send("tensorboard", folder, 1, 5)
    send("tensorboard", folder, 4, 8)
    events = EventAccumulator(str(folder / "tensorboard")).Reload().Scalars("micro_dice")
    assert [(event.step, round(event.value, 5)) for event in events] == [(epoch, epoch / 10) for epoch in range(1, 9)]


def test_mlflow_finds_the_resumed_run(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="needs the extra [mlflow]")
    pytest.importorskip("sqlalchemy", reason="needs all of mlflow, for a database of its own")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = folder_in(tmp_path)
    send("mlflow", folder, 1, 3)
    send("mlflow", folder, 4, 6)
    client = mlflow.tracking.MlflowClient(f"sqlite:///{tmp_path / 'results' / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("Dataset501_Paper").experiment_id])
    assert [metric.step for metric in client.get_metric_history(run.info.run_id, "micro_dice")] == [1, 2, 3, 4, 5, 6]
    assert run.data.params["model"] == "unet"


def test_weights_and_biases_works_without_a_network(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="needs the extra [wandb]")
    monkeypatch.setenv("WANDB_MODE", "offline")
    folder = folder_in(tmp_path)
    send("wandb", folder, 1, 3)
    assert list((folder / "wandb").glob("offline-run-*/*.wandb"))


def test_failing_logger_does_not_end_the_training(tmp_path, monkeypatch, caplog):
    on_epoch_end = []

    class Failing:
        def __init__(self, folder: Path, record: RunRecord, epochs_done: int) -> None:
            self.record = record

        def add(self, row: dict[str, float]) -> None:
            on_epoch_end.append(row["epoch"])
            if len(on_epoch_end) == 2:
                raise ConnectionError("the line is dead")

        def close(self) -> None:
            on_epoch_end.append("closed")

    with_loggers(monkeypatch, failing=Failing)
    monkeypatch.setattr("autoseg.training.plot.draw", lambda *arguments: None)
    dataset, plan, splits = tiny.prepare(tmp_path)
    record = train_fold(dataset, plan, splits, tiny.NAME, 0, device="cpu", log_to=["failing"])
    assert record.status == "finished" and on_epoch_end == [1, 2]
    assert "logger failing is disabled: ConnectionError: the line is dead" in caplog.text


def test_unusable_logger_is_an_error_before_training(tmp_path, monkeypatch):
    with pytest.raises(AutosegError, match=r"no logger 'csv'\n.*tensorboard, mlflow, wandb"):
        RunLoggers(["csv"], tmp_path, RECORD, 0)

    def missing(folder: Path, record: RunRecord, epochs_done: int) -> None:
        raise ImportError("no module")

    def refusing(folder: Path, record: RunRecord, epochs_done: int) -> None:
        raise PermissionError("no key")

    with_loggers(monkeypatch, missing=missing, refusing=refusing)
    with pytest.raises(AutosegError, match=r"missing is not installed: no module\n.*pip install 'autoseg\[missing\]'"):
        RunLoggers(["missing"], tmp_path, RECORD, 0)
    with pytest.raises(AutosegError, match="refusing cannot be used: no key"):
        RunLoggers(["refusing"], tmp_path, RECORD, 0)


def test_a_library_that_is_missing_is_found_before_anything_starts(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(AutosegError, match=r"(?s)mlflow is not installed.*pip install 'autoseg\[mlflow\]'"):
        check_loggers(["mlflow"])
    with pytest.raises(AutosegError, match="there is no logger 'mlfow'"):
        check_loggers(["mlfow"])
