"""autoseg_predict: masks for new images."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autoseg.cli import _readers, _tables, entry
from autoseg.support.errors import AutosegError

if TYPE_CHECKING:
    from autoseg.io.deidentify import Names
    from autoseg.prediction.files import PredictionReport

_SOME_FAILED = 1
_SHOWN = 20


@entry.resumable("the same command with --continue resumes")
def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    options.models = entry.listed(options.models or ())
    if sum(one is not None for one in (options.bundle, options.nnunet, options.dataset)) != 1:
        raise AutosegError(
            "the networks are not clear", "use one of -d DATASET -m MODEL, --bundle FILE.zip, and --nnunet FOLDER"
        )
    if options.dataset is not None and not options.models:
        raise AutosegError("no model given", "-m MODEL, -m A B for the mean of several, or -m best")
    from autoseg import api

    reader = _readers.zero_shot(options)
    if reader is not None:
        report = api.ask_omnimodel(
            options.input, options.output, options.dataset, _readers.omnimodel(options, reader),
            confirm=_readers.confirm(options), recursive=options.recursive, names=_names(options), device=options.device,
            root=options.root,
        )  # fmt: skip
        print(report)
        return _SOME_FAILED if report.failed else 0
    if options.second_reader:
        report = _readers.predict_with_second_reader(options, _names(options))
        print(f"{report}\nreader of each mask, and the reason: {report.folder / 'second_reader.json'}")
        return _SOME_FAILED if report.failed else 0
    entry.configure_glibc_malloc(arguments)
    report = api.predict(
        options.input,
        options.output,
        options.dataset,
        options.models,
        entry.folds(options.folds),
        bundle=options.bundle,
        nnunet=options.nnunet,
        probabilities=options.probabilities,
        overlays=options.overlays or options.references is not None,
        references=options.references,
        tta=options.tta,
        recursive=options.recursive,
        overwrite=not options.resume,
        strict=options.strict,
        names=_names(options),
        dicom_masks=options.dicom_masks,
        visible=options.visible,
        device=options.device,
        root=options.root,
    )
    print(report)
    if options.overlays:
        print(f"pictures with the contours: {report.folder / 'overlays'}")
    if options.review_list:
        _review_list(report)
    entry.show_next(f"autoseg_evaluate {shlex.quote(str(report.folder))} REFERENCES, if there are any")
    return _SOME_FAILED if report.failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = entry.parser(
        "autoseg_predict",
        "Write a mask for each image, in the image's size and geometry, with its confidence.",
        "exit code 1: some images could not be predicted, the others were\n"
        "example: autoseg_predict -i new_images -o masks -d 501 -m segformer",
    )
    parser.add_argument("-i", "--input", required=True, nargs="+", type=Path, metavar="IN", help="images, or a folder of them")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="OUT", help="folder for the masks")
    parser.add_argument("-d", "--dataset", metavar="DATASET", help="the dataset the model was trained on")
    parser.add_argument(
        "-m", "--models", "--model", nargs="+", metavar="MODEL", help="models to average; best: what autoseg_find_best chose"
    )
    parser.add_argument("-f", "--folds", nargs="+", default=["all"], metavar="FOLD", help="folds to average (default: all)")
    parser.add_argument("--bundle", type=Path, metavar="FILE", help="a file of autoseg_export, instead of -d and -m")
    parser.add_argument(
        "--nnunet", type=Path, metavar="FOLDER", help="nnU-Net v2's results folder of a 2d model, instead of -d and -m"
    )
    parser.add_argument("--probabilities", action="store_true", help="also write class probabilities (.npz)")
    parser.add_argument("--overlays", action="store_true", help="also write pictures with the contours")
    parser.add_argument("--visible", action="store_true", help="masks that viewers show in colours; values stay class numbers")
    parser.add_argument("--references", type=Path, metavar="DIR", help="reference masks to draw into the overlays")
    parser.add_argument("--recursive", action="store_true", help="subfolders too")
    parser.add_argument(
        "--tta", action=argparse.BooleanOptionalAction, help="average over mirrored views, slower and a little better, or not "
        "(default: as the plan says)",
    )  # fmt: skip
    parser.add_argument("--review-list", action="store_true", help="list the masks to check first; also writes review.csv")
    parser.add_argument("--continue", dest="resume", action="store_true", help="resume an interrupted prediction")
    parser.add_argument("--strict", action="store_true", help="stop at the first image that cannot be predicted")
    parser.add_argument(
        "--dicom-masks", choices=("seg", "png", "nii"), help="mask format for DICOM images (default: seg if possible)"
    )
    names = parser.add_mutually_exclusive_group()
    names.add_argument("--keep-names", action="store_true", help="keep file names, and patient tags in DICOM-SEG")
    names.add_argument("--hide-names", action="store_true", help="neutral names for all files, not only identifying ones")
    entry.add_device(parser)
    _readers.add_arguments(parser)
    return parser


def _names(options: argparse.Namespace) -> Names:
    return "keep" if options.keep_names else "hide" if options.hide_names else "auto"


def _review_list(report: PredictionReport) -> None:
    from autoseg.prediction.review_list import confidence_columns, confidence_heading, review_order, write_review_list

    path = write_review_list(report.record.cases, report.folder)
    rows = [(case.case, *confidence_columns(case), "; ".join(case.warnings)) for case in review_order(report.record.cases)]
    headings = ("case", confidence_heading(report.record.cases), "expected Dice", "agreement", "warnings")
    _tables.show_table("To check first", headings, rows[:_SHOWN])
    for note in sorted({case.confidence.note for case in report.record.cases if case.confidence} - {""}):
        _tables.show_text(f"the score ranks masks; it is {note}")
    if report.record.calibration is not None:
        _tables.show_text(str(report.record.calibration))
    print(f"all {len(rows)} cases are in {path}")
