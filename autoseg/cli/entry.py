"""What all commands share: the doorway that turns a user's mistakes into one message, and arguments with one meaning."""

from __future__ import annotations

import argparse
import functools
import gc
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from autoseg.support.errors import AutosegError
from autoseg.support.extensions import AUGMENTATIONS, LOGGERS, LOSSES, OPTIMIZERS, SCHEDULES
from autoseg.support.log import configure_logging
from autoseg.support.registry import Registry

if TYPE_CHECKING:
    from rich.table import Table

Main = Callable[[Sequence[str] | None], int]
USER_ERROR, INTERRUPTED = 2, 130
_FILE_WIDTH = 160


def command(body: Main) -> Main:
    """Run a command's body: messages on, AutosegError printed without a traceback, exit code 2 for user's mistakes."""

    @functools.wraps(body)
    def main(arguments: Sequence[str] | None = None) -> int:
        # Threads that spin while they wait slow a busy machine tenfold; this has to stand before torch is loaded.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        # Images are worked on in threads of our own; OpenCV's would only get in their way. Read when cv2 is loaded.
        os.environ.setdefault("OPENCV_FOR_THREADS_NUM", "1")
        # torch warns of its own parts that other packages use; nobody who runs a command can do anything about it.
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.")
        # Nor about highdicom's warnings of empty segments and of what secondary captures do not say.
        logging.getLogger("highdicom").setLevel(logging.ERROR)
        own = is_own_process(arguments)
        if own:
            # Imports make hundreds of thousands of objects that stay: to look through them for garbage again and again takes a
            # tenth of a command's start.
            gc.set_threshold(10_000, 10, 10)
        configure_logging()
        code = _answered(body, arguments)
        if own:
            # Before it ends Python looks through all objects once more: half a second with PyTorch loaded.
            gc.freeze()
        return code

    return main


def is_own_process(arguments: Sequence[str] | None) -> bool:
    """Whether nothing but the command runs in this process: it reads sys.argv. A program that calls it passes arguments."""
    return arguments is None


def configure_glibc_malloc(arguments: Sequence[str] | None, limit: int | None = 128 << 20) -> None:
    """See `autoseg.support.malloc`; only in the command's own process."""
    from autoseg.support import malloc

    if is_own_process(arguments):
        malloc.configure_glibc_malloc(limit)


def _answered(body: Main, arguments: Sequence[str] | None) -> int:
    try:
        return body(arguments)
    except AutosegError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away (autoseg_models | head); nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def parser(prog: str, description: str, epilog: str = "") -> argparse.ArgumentParser:
    """A parser with --root, which every command has."""
    made = argparse.ArgumentParser(prog, description=description, epilog=epilog, formatter_class=_Formatter)
    made.add_argument(
        "--root", metavar="DIR", help="folder of raw/, preprocessed/ and results/ (else AUTOSEG_ROOT, else ./autoseg_data)"
    )
    return made


def add_dataset(made: argparse.ArgumentParser) -> None:
    """The DATASET argument."""
    made.add_argument("dataset", metavar="DATASET", help="its id (501), its name (Polyp) or both (Dataset501_Polyp)")


def add_device(made: argparse.ArgumentParser) -> None:
    """--device."""
    made.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda, cuda:1 or mps (default: auto)")


def add_log_to(made: argparse.ArgumentParser) -> None:
    """--log-to."""
    made.add_argument("--log-to", default="", metavar="A,B", help=f"also log to {one_of(LOGGERS)} (default: none)")


def add_settings(made: argparse.ArgumentParser) -> None:
    """--set."""
    made.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE",
        help=f"set any field of the plan: training.epochs=50; training.loss={one_of(LOSSES)}; training.optimizer="
        f"{one_of(OPTIMIZERS)}; training.schedule={one_of(SCHEDULES)}; training.augmentation.chain={one_of(AUGMENTATIONS)}",
    )  # fmt: skip


def one_of(registry: Registry[Any]) -> str:
    """The names of a registry for a help text: "a, b or c"."""
    *others, last = registry.names()
    return f"{', '.join(others)} or {last}" if others else last


def names(text: str) -> list[str]:
    """A comma-separated list."""
    return [part.strip() for part in text.split(",") if part.strip()]


def settings(pairs: Sequence[str], option: str = "--set", example: str = "training.epochs=50") -> dict[str, str]:
    """`--set key=value` pairs, or another option's. Raises AutosegError for one without '='."""
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise AutosegError(f"{option} {pair!r} is not key=value", f"for example {option} {example}")
        found[key.strip()] = value.strip()
    return found


def folds(words: Sequence[str]) -> list[int] | None:
    """Fold numbers; None stands for all."""
    if list(words) == ["all"]:
        return None
    if not all(word.isdigit() for word in words):
        raise AutosegError(f"folds are numbers or 'all', not {' '.join(words)}", "for example -f 0 1 2")
    return [int(word) for word in words]


def show_table(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on standard output: as wide as the terminal, or wide enough to read where output goes to a file."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=_FILE_WIDTH)
    if title:
        # Not the table's own title, which would be folded to the width of the columns.
        console.print(title, markup=False, highlight=False)
    console.print(table("", headings, rows))


def table(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """The table that `show_table` prints."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    shown = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD)
    for number, heading in enumerate(headings):
        # The first column names things: it is what one looks for, and copies from.
        shown.add_column(heading, overflow="fold", no_wrap=number == 0)
    for row in rows:
        shown.add_row(*(escape(cell) for cell in row))
    return shown


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32, width=100)
