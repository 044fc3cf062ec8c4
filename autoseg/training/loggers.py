"""Loggers: experiment trackers such as TensorBoard, MLflow, Weights & Biases. Off by default.

A logger is a function or class `logger(folder, record, epochs_done)`, looked up by name (`LOGGERS`, entry points
"autoseg.loggers"). folder: of the run (Path). record: the run's `RunRecord`. epochs_done: number of epochs logged
before, 0 for a new run; later rows may have been logged before the run was interrupted. It returns an object with `add(row)`,
called after each epoch with the columns of metrics.csv (epoch from 1, loss, learning_rate, micro_dice in 0..1, seconds, ...),
and `close()`. With several processes only the main one logs.

metrics.csv is always written; loggers get the same rows. A logger that fails is disabled with a warning and training continues.
The libraries read keys and addresses from the environment; autoseg does not store them.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from autoseg.schema.run import RunRecord
from autoseg.support.errors import AutosegError
from autoseg.support.extensions import LOGGERS
from autoseg.training.csv_logger import Row

logger = logging.getLogger(__name__)


class RunLogger(Protocol):
    """Gets each epoch's row (see `csv_logger.MetricsLog`)."""

    def add(self, row: Row) -> None: ...

    def close(self) -> None: ...


def check_loggers(names: Sequence[str]) -> None:
    """Raise AutosegError for a name that is unknown, or whose library is not installed. Nothing is imported or started."""
    LOGGERS.check(*names)
    for name in names:
        if name not in LOGGERS.added() and importlib.util.find_spec(name) is None:
            raise AutosegError(f"{name} is not installed", _remedy(name))


def _remedy(name: str) -> str:
    return f"install what {LOGGERS.source(name)} needs" if name in LOGGERS.added() else f"pip install 'autoseg[{name}]'"


class RunLoggers:
    """All loggers of a run. epochs_done: rows of later epochs are replaced if the logger can.

    Raises AutosegError for an unknown name, a library that is not installed, or a service that cannot be used.
    """

    def __init__(self, names: Sequence[str], folder: Path, record: RunRecord, epochs_done: int) -> None:
        self._loggers: dict[str, RunLogger] = {}
        for name in names:
            make_logger = LOGGERS.get(name)
            try:
                self._loggers[name] = make_logger(folder, record, epochs_done)
            except ImportError as error:
                self.close()
                raise AutosegError(f"{name} is not installed: {error}", _remedy(name)) from error
            except Exception as error:
                # Third-party libraries raise anything if they cannot reach a service or log in.
                self.close()
                raise AutosegError(f"{name} cannot be used: {error}", f"set it up, or leave out --log-to {name}") from error

    def add(self, row: Row) -> None:
        self._call_all("add", row)

    def close(self) -> None:
        self._call_all("close")

    def _call_all(self, method: str, *arguments: Any) -> None:
        for name, run_logger in list(self._loggers.items()):
            try:
                getattr(run_logger, method)(*arguments)
            except Exception as error:
                logger.warning(f"logger {name} is disabled: {type(error).__name__}: {error}")
                del self._loggers[name]


class TensorBoard:
    def __init__(self, folder: Path, record: RunRecord, epochs_done: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=epochs_done + 1)

    def add(self, row: Row) -> None:
        for name, value in _values(row).items():
            self._writer.add_scalar(name, value, int(row["epoch"]))
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class Mlflow:
    """The experiment is the dataset. A resumed run is found by its identity."""

    def __init__(self, folder: Path, record: RunRecord, epochs_done: int) -> None:
        import mlflow
        from mlflow.tracking import MlflowClient

        # Without a server: a database in the results folder.
        local_uri = f"sqlite:///{folder.parents[2] / 'mlflow.db'}"
        self._client: Any = MlflowClient(None if mlflow.is_tracking_uri_set() else local_uri)
        existing = self._client.get_experiment_by_name(record.dataset)
        experiment = existing.experiment_id if existing else self._client.create_experiment(record.dataset)
        runs = self._client.search_runs([experiment], f"tags.autoseg_identity = '{record.identity}'")
        if runs:
            self._run = runs[0].info.run_id
            return
        run = self._client.create_run(experiment, run_name=_name(record), tags={"autoseg_identity": record.identity})
        self._run = run.info.run_id
        for name, value in _settings(record).items():
            self._client.log_param(self._run, name, value)

    def add(self, row: Row) -> None:
        for name, value in _values(row).items():
            self._client.log_metric(self._run, name.replace(" ", "_"), value, step=int(row["epoch"]))

    def close(self) -> None:
        self._client.set_terminated(self._run)


class WeightsAndBiases:
    def __init__(self, folder: Path, record: RunRecord, epochs_done: int) -> None:
        import wandb

        # Numbers only: no console output, code, host or user is sent.
        settings = wandb.Settings(console="off", disable_git=True, save_code=False, silent=True)
        self._run: Any = wandb.init(
            project="autoseg", name=_name(record), id=record.identity[:32], resume="allow", dir=str(folder),
            config=_settings(record), settings=settings,
        )  # fmt: skip

    def add(self, row: Row) -> None:
        self._run.log(_values(row), step=int(row["epoch"]))

    def close(self) -> None:
        self._run.finish()


def _values(row: Row) -> Row:
    return {name: value for name, value in row.items() if name != "epoch"}


def _name(record: RunRecord) -> str:
    return f"{record.dataset}/{record.model}/fold_{record.fold}"


def _settings(record: RunRecord) -> dict[str, Any]:
    names = (
        "dataset", "model", "variant", "fold", "protocol", "seed", "precision", "epochs_planned", "learning_rate", "batch_size",
    )  # fmt: skip
    return {name: getattr(record, name) for name in names}
