"""Loggers: other places that may show how a run goes, such as TensorBoard, MLflow, Weights & Biases. Off unless named.

A logger is a function or class `logger(folder, record, epochs_done)`, looked up by name (`LOGGERS`, entry points
"autoseg.loggers"). folder: of the run (Path). record: the run's `RunRecord`. epochs_done: how many epochs were logged before,
0 for a new run; rows beyond it may have been logged too, by a part of the run that is now done again. It returns an object with
`add(row)`, called after each epoch with numbers by name (the columns of metrics.csv: epoch from 1, loss, learning_rate, dice as
a share, seconds, ...), and `close()`. In a training of several processes only the first one logs.

metrics.csv is always written; a logger gets the same rows. One that fails on the way is left out with a warning: watching must
not end a training. Keys and addresses come from the environment, as these libraries read it, and are written nowhere.
"""

from __future__ import annotations

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
    """Gets each epoch's row (see `log_file.MetricsLog`)."""

    def add(self, row: Row) -> None: ...

    def close(self) -> None: ...


class RunLoggers:
    """All sinks of a run. epochs_done: rows beyond it, of a part of the run that is done again, are replaced where possible.

    Raises AutosegError for an unknown name, a library that is not installed, or a service that refuses.
    """

    def __init__(self, names: Sequence[str], folder: Path, record: RunRecord, epochs_done: int) -> None:
        self._sinks: dict[str, RunLogger] = {}
        for name in names:
            begin = LOGGERS.get(name)
            try:
                self._sinks[name] = begin(folder, record, epochs_done)
            except ImportError as error:
                self.close()
                own = name not in LOGGERS.added()
                remedy = f"pip install 'autoseg[{name}]'" if own else f"install what {LOGGERS.source(name)} needs"
                raise AutosegError(f"{name} is not installed: {error}", remedy) from error
            except Exception as error:
                # Whatever a library of others raises for a service it cannot reach or log in to.
                self.close()
                raise AutosegError(f"{name} cannot be used: {error}", f"set it up, or leave out --log-to {name}") from error

    def add(self, row: Row) -> None:
        self._each("add", row)

    def close(self) -> None:
        self._each("close")

    def _each(self, what: str, *arguments: Any) -> None:
        for name, sink in list(self._sinks.items()):
            try:
                getattr(sink, what)(*arguments)
            except Exception as error:
                logger.warning(f"{name} is given up: {type(error).__name__}: {error}")
                del self._sinks[name]


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
    """Experiment: the dataset. A run that goes on is found again by its identity."""

    def __init__(self, folder: Path, record: RunRecord, epochs_done: int) -> None:
        import mlflow
        from mlflow.tracking import MlflowClient

        # Where the user names no server: a database beside the results.
        here = f"sqlite:///{folder.parents[2] / 'mlflow.db'}"
        self._client: Any = MlflowClient(None if mlflow.is_tracking_uri_set() else here)
        known = self._client.get_experiment_by_name(record.dataset)
        experiment = known.experiment_id if known else self._client.create_experiment(record.dataset)
        found = self._client.search_runs([experiment], f"tags.autoseg_identity = '{record.identity}'")
        if found:
            self._run = found[0].info.run_id
            return
        made = self._client.create_run(experiment, run_name=_name(record), tags={"autoseg_identity": record.identity})
        self._run = made.info.run_id
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

        # Numbers only: no console output, code, host or user goes along.
        quiet = wandb.Settings(console="off", disable_git=True, save_code=False, silent=True)
        self._run: Any = wandb.init(
            project="autoseg", name=_name(record), id=record.identity[:32], resume="allow", dir=str(folder),
            config=_settings(record), settings=quiet,
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
    kept = (
        "dataset", "model", "variant", "fold", "protocol", "seed", "precision", "epochs_planned", "learning_rate", "batch_size",
    )  # fmt: skip
    return {name: getattr(record, name) for name in kept}
