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
    from autoseg.prediction.deidentify import Names
    from autoseg.prediction.files import PredictionReport
    from autoseg.schema.omnimodel import Reader


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The group of options."""
    second = parser.add_argument_group("second reader")
    second.add_argument(
        "--second-reader", metavar="MODEL", help="also reads what is not trusted: a model, a bundle's file or a zero-shot model"
    )
    second.add_argument("--trust", type=float, default=0.8, metavar="DICE", help="expected Dice that needs none (default: 0.8)")
    second.add_argument(
        "--policy", choices=POLICIES, default="flag", help="what becomes of two masks (default: flag, the first stays)"
    )
    group = parser.add_argument_group("zero-shot models", f"as MODEL or as second reader: {', '.join(READERS)}")
    group.add_argument(
        "--send-images-to", metavar="NAME", choices=SERVICES, help="allow images to leave this machine, for this service only"
    )
    group.add_argument("--omnimodel", default="", metavar="NAME", help="the service's own name of the model")
    group.add_argument("--endpoint", default="", metavar="URL", help="where image_edit (or a stand-in for gemini) answers")
    group.add_argument("--threshold", choices=("fixed", "otsu"), default="fixed", help="picture to mask (default: fixed, 0.5)")
    group.add_argument("--rate", type=float, default=10.0, metavar="N", help="requests a minute, 0: no limit (default: 10)")
    group.add_argument("--timeout", type=float, default=60.0, metavar="S", help="seconds of one request (default: 60)")
    group.add_argument("--attempts", type=int, default=4, metavar="N", help="requests of one question (default: 4)")
    group.add_argument("--ask-again", action="store_true", help="where an earlier answer held no picture")
    group.add_argument("--yes", action="store_true", help="send without asking")
    group.add_argument("--weights", type=Path, metavar="DIR", help="sam's folder (default: ROOT/weights/sam)")
    group.add_argument("--boxes-from", type=Path, metavar="DIR", help="masks whose objects give sam its boxes")


def omnimodel(options: argparse.Namespace, reader: Reader) -> Omnimodel:
    """api.Omnimodel of the options."""
    from autoseg.api import Omnimodel as Asked

    return Asked(
        reader=reader, model=options.omnimodel, send_images_to=options.send_images_to, endpoint=options.endpoint,
        threshold=options.threshold, rate=options.rate, timeout=options.timeout, attempts=options.attempts,
        again=options.ask_again, weights=options.weights, boxes_from=options.boxes_from,
    )  # fmt: skip


def zero_shot(options: argparse.Namespace) -> Reader | None:
    """The zero-shot reader among -m, if any. Raises AutosegError where it is not alone."""
    found = [reader for reader in READERS if reader in (options.models or ())]
    if found and len(options.models) > 1:
        raise AutosegError(f"{found[0]} cannot be averaged with others", "ask it alone, or as --second-reader")
    return found[0] if found else None


def with_second(options: argparse.Namespace, names: Names) -> PredictionReport:
    """Predict with a second reader. Raises AutosegError where other options do not go with one."""
    from autoseg import api
    from autoseg.cli.entry import folds

    unfit = ("bundle", "probabilities", "overlays", "references", "resume", "strict", "dicom_masks")
    given = [f"--{'continue' if name == 'resume' else name.replace('_', '-')}" for name in unfit if getattr(options, name)]
    if given:
        raise AutosegError(f"{', '.join(given)} cannot be used with a second reader", "leave it out")
    second = options.second_reader
    return api.predict_with_second_reader(
        options.input, options.output, options.dataset, options.models,
        omnimodel(options, second) if second in READERS else second, folds(options.folds), trust=options.trust,
        policy=options.policy, confirm=confirm(options), tta=options.tta, recursive=options.recursive, names=names,
        device=options.device, root=options.root,
    )  # fmt: skip


def confirm(options: argparse.Namespace) -> Callable[[str], bool] | None:
    """Ask the person at the terminal, unless --yes."""
    return None if options.yes else _ask


def _ask(question: str) -> bool:
    if not sys.stdin.isatty():
        raise AutosegError(f"{question} Nobody is there to answer", "give --yes")
    return input(f"{question} [y/N] ").strip().casefold() in ("y", "yes")
