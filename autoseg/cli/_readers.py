"""Options of autoseg_predict for zero-shot models and second readers."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from autoseg.schema.omnimodel import READERS, SERVICES
from autoseg.schema.second_reader import POLICIES
from autoseg.support.errors import AutosegError

if TYPE_CHECKING:
    from autoseg.api import Omnimodel
    from autoseg.io.deidentify import Names
    from autoseg.prediction.files import PredictionReport
    from autoseg.schema.omnimodel import Reader


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of second readers and zero-shot models."""
    second = parser.add_argument_group("second reader")
    second.add_argument(
        "--second-reader", metavar="MODEL", help="reads the doubtful cases again: a model, a bundle or a zero-shot model"
    )
    second.add_argument(
        "--min-expected-dice", type=float, default=0.8, metavar="DICE",
        help="below this expected Dice a case is doubtful (default: 0.8)",
    )  # fmt: skip
    second.add_argument(
        "--policy", choices=POLICIES, default="flag", help="how to combine two masks (default: flag, keep the first and warn)"
    )
    group = parser.add_argument_group("zero-shot models", f"for -m or --second-reader: {', '.join(READERS)}")
    group.add_argument("--send-images-to", metavar="NAME", choices=SERVICES, help="allow sending images to this service only")
    group.add_argument("--omnimodel", default="", metavar="NAME", help="model name of the service")
    group.add_argument("--endpoint", default="", metavar="URL", help="address of image_edit, or of a substitute for gemini")
    group.add_argument(
        "--threshold", choices=("fixed", "otsu"), default="fixed", help="threshold of the answer (default: fixed, 0.5)"
    )
    group.add_argument("--rate", type=float, default=10.0, metavar="N", help="requests a minute, 0: no limit (default: 10)")
    group.add_argument("--timeout", type=float, default=60.0, metavar="S", help="timeout of a request in seconds (default: 60)")
    group.add_argument("--attempts", type=int, default=4, metavar="N", help="requests for one question (default: 4)")
    group.add_argument("--ask-again", action="store_true", help="ask again if the cached answer has no picture")
    group.add_argument("--yes", action="store_true", help="send without a question")
    group.add_argument("--weights", type=Path, metavar="DIR", help="sam's folder (default: ROOT/weights/sam)")
    group.add_argument("--boxes-from", type=Path, metavar="DIR", help="masks; sam gets the boxes of their objects")


def omnimodel(options: argparse.Namespace, reader: Reader) -> Omnimodel:
    """The `api.Omnimodel` for the options."""
    from autoseg.api import Omnimodel as Config

    return Config(
        reader=reader, model=options.omnimodel, send_images_to=options.send_images_to, endpoint=options.endpoint,
        threshold=options.threshold, rate=options.rate, timeout=options.timeout, attempts=options.attempts,
        again=options.ask_again, weights=options.weights, boxes_from=options.boxes_from,
    )  # fmt: skip


def zero_shot(options: argparse.Namespace) -> Reader | None:
    """The zero-shot reader among -m, if any. Raises AutosegError if other models are given too."""
    readers = [reader for reader in READERS if reader in (options.models or ())]
    if readers and len(options.models) > 1:
        raise AutosegError(f"{readers[0]} cannot be averaged with other models", "use it alone, or as --second-reader")
    return readers[0] if readers else None


def predict_with_second_reader(options: argparse.Namespace, names: Names) -> PredictionReport:
    """Predict with a second reader. Raises AutosegError for options that do not work with one."""
    from autoseg import api
    from autoseg.cli.entry import folds

    unsupported = ("bundle", "probabilities", "overlays", "references", "resume", "strict", "dicom_masks")
    conflicts = [
        f"--{'continue' if name == 'resume' else name.replace('_', '-')}" for name in unsupported if getattr(options, name)
    ]
    if conflicts:
        raise AutosegError(f"{', '.join(conflicts)} cannot be used with a second reader", "leave it out")
    second = options.second_reader
    return api.predict_with_second_reader(
        options.input, options.output, options.dataset, options.models,
        omnimodel(options, second) if second in READERS else second, folds(options.folds),
        min_expected_dice=options.min_expected_dice,
        policy=options.policy, confirm=confirm(options), tta=options.tta, recursive=options.recursive, names=names,
        device=options.device, root=options.root,
    )  # fmt: skip


def confirm(options: argparse.Namespace) -> Callable[[str], bool] | None:
    """A function that asks the user at the terminal; None with --yes."""
    return None if options.yes else _ask


def _ask(question: str) -> bool:
    if not sys.stdin.isatty():
        raise AutosegError(f"{question} No terminal to answer", "add --yes")
    return input(f"{question} [y/N] ").strip().casefold() in ("y", "yes")
