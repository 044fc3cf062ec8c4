"""Shared code of all commands: error messages, exit codes, common arguments."""

from __future__ import annotations

import argparse
import functools
import gc
import io
import logging
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from autoseg.support.errors import AutosegError, UnsavedResult
from autoseg.support.extensions import AUGMENTATIONS, LOGGERS, LOSSES, OPTIMIZERS, SCHEDULES
from autoseg.support.log import configure_logging
from autoseg.support.pixel_limit import DEFAULT, pixel_limit, set_max_pixels
from autoseg.support.pixel_limit import max_pixels as current_max_pixels
from autoseg.support.registry import Registry

Main = Callable[[Sequence[str] | None], int]
USER_ERROR, INTERRUPTED = 2, 130


def command(body: Main) -> Main:
    """Decorator of a command: configures logging, prints AutosegError without a traceback, exit code 2 for user errors."""
    return _command(body, "")


def resumable(how: str) -> Callable[[Main], Main]:
    """The same for a command that can be interrupted. how: what Ctrl-C prints."""
    return functools.partial(_command, interrupted=f": {how}")


def _command(body: Main, interrupted: str) -> Main:
    @functools.wraps(body)
    def main(arguments: Sequence[str] | None = None) -> int:
        # Spinning threads slow a busy machine tenfold. Must be set before torch is imported.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        # autoseg has its own threads for images; OpenCV needs none. Must be set before cv2 is imported.
        os.environ.setdefault("OPENCV_FOR_THREADS_NUM", "1")
        # Warnings of torch about its use in other packages; the user of a command cannot fix them.
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.")
        # pydicom's warnings repeat the values of tags, and these may name a patient.
        warnings.filterwarnings("ignore", category=UserWarning, module=r"pydicom\.")
        logging.getLogger("pydicom").setLevel(logging.ERROR)
        # Nor can the user fix highdicom's warnings about empty segments and missing attributes.
        logging.getLogger("highdicom").setLevel(logging.ERROR)
        # What tifffile finds wrong in a file is in our own message, if it matters.
        logging.getLogger("tifffile").setLevel(logging.CRITICAL)
        own = is_own_process(arguments)
        if own:
            # Imports create many permanent objects; repeated garbage collections would take a tenth of the start-up time.
            gc.set_threshold(10_000, 10, 10)
        for stream in (sys.stdout, sys.stderr):
            if own and isinstance(stream, io.TextIOWrapper):
                # Names of files may hold what the terminal's encoding cannot show.
                stream.reconfigure(errors="backslashreplace")
        configure_logging()
        with pixel_limit(None):  # --max-pixels holds for this command only.
            return _exit_code(body, arguments, interrupted)

    return main


def is_own_process(arguments: Sequence[str] | None) -> bool:
    """Whether the command is the main program of this process. A program that calls it passes arguments."""
    return arguments is None


def configure_glibc_malloc(arguments: Sequence[str] | None, limit: int | None = 128 << 20) -> None:
    """See `autoseg.support.malloc`; only in the command's own process."""
    from autoseg.support import malloc

    if is_own_process(arguments):
        malloc.configure_glibc_malloc(limit)


def _exit_code(body: Main, arguments: Sequence[str] | None, interrupted: str) -> int:
    try:
        set_max_pixels(current_max_pixels())
        code = body(arguments)
        sys.stdout.flush()
        return code
    except AutosegError as error:
        print(f"error: {error}", file=sys.stderr)
        root = _given_root(sys.argv[1:] if arguments is None else arguments)
        if root is not None and "autoseg_" in error.remedy:
            print(f"     with --root {shlex.quote(root)}, as in this command", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        if is_own_process(arguments):
            # The command ends already: another Ctrl-C would only add a traceback.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        print(f"interrupted{interrupted}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of the output has closed the pipe, as in `autoseg_models | head`.
        _discard_output()
        return 1
    except OSError as error:
        from autoseg.support.os_errors import file_system_error

        described = file_system_error(error)
        if described is None:
            raise
        print(f"error: {described}", file=sys.stderr)
        try:
            sys.stdout.flush()
        except OSError:
            _discard_output()
        return USER_ERROR


def _given_root(arguments: Sequence[str]) -> str | None:
    """The value of --root, which commands in a message need too."""
    given = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    given.add_argument("--root")
    root: str | None = given.parse_known_args(arguments)[0].root
    return root


def _discard_output() -> None:
    """Send what is left of the output nowhere: Python would try to write it again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def unsaved(function: Callable[..., Any], *arguments: Any, **options: Any) -> Iterator[Any]:
    """The result of a function of `autoseg.api`, to be shown. If it could not be written, the block still shows it, and the
    error follows."""
    try:
        result, error = function(*arguments, **options), None
    except UnsavedResult as unsaved_result:
        result, error = unsaved_result.result, unsaved_result
    yield result
    if error is not None:
        raise error


def parser(prog: str, description: str, epilog: str = "") -> argparse.ArgumentParser:
    """A parser with --root."""
    result = argparse.ArgumentParser(prog, description=description, epilog=epilog, formatter_class=_Formatter)
    result.add_argument(
        "--root", metavar="DIR", help="folder of raw/, preprocessed/ and results/ (else AUTOSEG_ROOT, else ./autoseg_data)"
    )
    add_max_pixels(result)
    return result


def add_max_pixels(parser: argparse.ArgumentParser, **options: Any) -> None:
    """--max-pixels."""
    text = f"read images of up to N pixels, if you trust them (else AUTOSEG_MAX_PIXELS, else {DEFAULT})"
    parser.add_argument("--max-pixels", type=max_pixels, metavar="N", help=text, **options)


def add_dataset(parser: argparse.ArgumentParser) -> None:
    """The DATASET argument."""
    parser.add_argument("dataset", metavar="DATASET", help="its id (501), its name (Polyp) or both (Dataset501_Polyp)")


def add_device(parser: argparse.ArgumentParser) -> None:
    """--device."""
    parser.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda, cuda:1 or mps (default: auto)")


def max_pixels(text: str) -> int:
    """Value of --max-pixels. The limit is set when it is parsed: before OpenCV is imported, which has a limit of its own."""
    pixels = int(text.replace("_", ""))
    if pixels < 1:
        raise ValueError(text)
    set_max_pixels(pixels)
    return pixels


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Options of the runner: where jobs run, how many, and how often crashed ones are restarted."""
    parser.add_argument("--engine", default="local", choices=("local", "ray", "slurm"), help="where jobs run (default: local)")
    parser.add_argument("--workers", type=int, metavar="N", help="jobs at a time (default: 1; with GPUs all of them)")
    parser.add_argument("--gpus-per-run", type=int, default=0, metavar="N", help="GPUs of each job (default: 0)")
    parser.add_argument("--address", metavar="HOST:PORT", help="of a Ray cluster (default: RAY_ADDRESS, else start one here)")
    parser.add_argument(
        "--slurm", action="append", default=[], metavar="KEY=VALUE", help="submitit parameter, e.g. slurm_partition=gpu"
    )
    parser.add_argument("--retries", type=int, default=2, metavar="N", help="restarts of a crashed job (default: 2)")


def add_break_lock(parser: argparse.ArgumentParser) -> None:
    """--break-lock."""
    text = "take over folders locked by processes of which it is not known whether they run (other containers or machines)"
    parser.add_argument("--break-lock", action="store_true", help=text)


def add_log_to(parser: argparse.ArgumentParser) -> None:
    """--log-to."""
    parser.add_argument("--log-to", default="", metavar="A,B", help=f"also log to {one_of(LOGGERS)} (default: none)")


def add_deterministic(parser: argparse.ArgumentParser) -> None:
    """--deterministic."""
    parser.add_argument(
        "--deterministic", action="store_true",
        help="on a GPU, equal trainings give equal weights to the last bit (slower); without it they differ slightly",
    )  # fmt: skip


def add_settings(parser: argparse.ArgumentParser) -> None:
    """--set."""
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE",
        help=f"set any field of the plan: training.epochs=50; training.loss={one_of(LOSSES)}; training.optimizer="
        f"{one_of(OPTIMIZERS)}; training.schedule={one_of(SCHEDULES)}; training.augmentation.chain={one_of(AUGMENTATIONS)}",
    )  # fmt: skip


def one_of(registry: Registry[Any]) -> str:
    """Names of a registry for a help text: "a, b or c"."""
    *others, last = registry.names()
    return f"{', '.join(others)} or {last}" if others else last


def show_next(command: str, root: str | None = None) -> None:
    """Print the command that usually follows, for the same root."""
    print(f"next: {command}" + ("" if root is None else f" --root {shlex.quote(root)}"))


def names(text: str) -> list[str]:
    """A comma-separated list."""
    return [part.strip() for part in text.split(",") if part.strip()]


def listed(words: Sequence[str]) -> list[str]:
    """Words that may hold several names each: "a b", "a,b" and "a, b" are the same."""
    return [name for word in words for name in names(word)]


def settings(pairs: Sequence[str], option: str = "--set", example: str = "training.epochs=50") -> dict[str, str]:
    """Parse `key=value` pairs of an option. Raises AutosegError if '=' is missing."""
    parsed = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise AutosegError(f"{option} {pair!r} is not KEY=VALUE", f"for example {option} {example}")
        parsed[key.strip()] = value.strip()
    return parsed


def folds(words: Sequence[str]) -> list[int] | None:
    """Fold numbers, of words like "0", "1,2"; None means all."""
    words = listed(words)
    if words == ["all"]:
        return None
    if not words or not all(word.isdigit() for word in words):
        raise AutosegError(f"folds are numbers or 'all', not {' '.join(words)}", "for example -f 0 1 2")
    return [int(word) for word in words]


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32, width=100)
