"""The earlier run of a folder that is trained again (--restart).

    .fold_0.replaced   the earlier run, complete, until the new run has its first checkpoint
    .fold_0.moving     files on their way into or out of it; they belong to the fold

If the new run ends before its first checkpoint, the earlier run is put back: at once after an error, by the next start after
a kill.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autoseg.training import checkpoint, csv_logger, plot

logger = logging.getLogger(__name__)

# Files that a run writes, and all its outputs. Other files in its folder are never moved or deleted.
FILES = (
    checkpoint.BEST,
    checkpoint.LAST,
    checkpoint.PREVIOUS,
    checkpoint.RECORD,
    checkpoint.PLAN,
    checkpoint.DATASET,
    checkpoint.SPLITS,
    csv_logger.NAME,
    plot.NAME,
)
_OUTPUTS = (*FILES, "validation")


@contextmanager
def replaced(folder: Path) -> Iterator[None]:
    """Set the earlier run aside while the block starts a new one. If the block fails before `discard`, it is put back."""
    _set_aside(folder)
    try:
        yield
    except BaseException:
        recover(folder)
        raise


def is_pending(folder: Path) -> bool:
    """Whether `recover` has something to do."""
    return _moving_folder(folder).exists() or _replaced_folder(folder).exists()


def discard(folder: Path) -> None:
    """Delete the earlier run: the new one can be resumed."""
    shutil.rmtree(_replaced_folder(folder), ignore_errors=True)


def recover(folder: Path) -> None:
    """Complete what a killed process left: put an earlier run back, unless the new one has a checkpoint."""
    if _moving_folder(folder).exists():
        _move_back(folder)
    aside = _replaced_folder(folder)
    if not aside.exists():
        return
    if any((folder / name).exists() for name in (checkpoint.LAST, checkpoint.PREVIOUS)):
        discard(folder)
        return
    for name in _OUTPUTS:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    aside.rename(_moving_folder(folder))
    _move_back(folder)


def _set_aside(folder: Path) -> None:
    present = [name for name in _OUTPUTS if (folder / name).exists()]
    if not present:
        return
    moving, aside = _moving_folder(folder), _replaced_folder(folder)
    moving.mkdir()
    for name in present:
        (folder / name).rename(moving / name)
    moving.rename(aside)
    logger.info(f"the earlier run is in {aside} until the new one has its first checkpoint")


def _move_back(folder: Path) -> None:
    moving = _moving_folder(folder)
    for path in moving.iterdir():
        path.rename(folder / path.name)
    moving.rmdir()
    logger.info(f"the earlier run is back in {folder}")


def _replaced_folder(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.replaced")


def _moving_folder(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.moving")
