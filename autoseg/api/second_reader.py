"""A second reader for cases with low confidence."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from autoseg.api.checks import check_runs
from autoseg.api.omnimodel import Omnimodel, read_jobs
from autoseg.api.options import DatasetId, Folds, Models, PathLike, fold_numbers, model_names, output_folder
from autoseg.api.prediction import predict
from autoseg.schema.second_reader import POLICIES, Policy, ReaderStudy, Reading, SecondReading
from autoseg.support.errors import AutosegError
from autoseg.support.files import read_artefact, write_artefact
from autoseg.support.os_errors import os_errors_as_autoseg_errors
from autoseg.support.workspace import Root, Workspace

if TYPE_CHECKING:
    from autoseg.io.deidentify import Names
    from autoseg.prediction.files import PredictionReport
    from autoseg.prediction.inputs import PredictionJob
    from autoseg.schema.dataset import LabelScheme

logger = logging.getLogger(__name__)

RECORD, FIRST, SECOND = "second_reader.json", "first_reader", "second_reader"


def predict_with_second_reader(
    images: PathLike | Sequence[PathLike],
    output: PathLike,
    dataset: DatasetId,
    model: Models,
    second: PathLike | Omnimodel,
    folds: Folds | None = None,
    *,
    min_expected_dice: float = 0.8,
    policy: Policy = "flag",
    confirm: Callable[[str], bool] | None = None,
    tta: bool | None = None,
    recursive: bool = False,
    names: Names = "auto",
    device: str = "auto",
    root: Root = None,
) -> PredictionReport:
    """Predict images, and ask a second reader about the cases whose expected Dice is low.

    Both readers' masks are in first_reader/ and second_reader/; second_reader.json gives the reader of each mask and the
    reason. A case that the second reader cannot read keeps the first mask.

    Args:
        images: an image file, several, or a folder of images.
        output: folder for the masks.
        dataset: id or name of the dataset the model was trained on.
        model: name of a trained model, several to average, or "best" for the choice of `find_best`.
        second: name of another trained model, the path of a bundle, or an `Omnimodel`.
        folds: numbers of the first reader's folds to average (default: all that are trained).
        min_expected_dice: the second reader reads cases whose expected Dice is below this, 0 to 1.
        policy: "flag" keeps the first mask and warns, "replace" takes the second, "union" takes pixels of either,
            "consensus" takes pixels where both agree.
        confirm: see `ask_omnimodel`.
        tta: average the first reader over mirrored views, or not; None: as the plan says.
        recursive: take images of subfolders too.
        names: "auto" replaces file names that could identify a patient, "keep" none, "hide" all.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        root: folder of raw/, preprocessed/ and results/ (default: AUTOSEG_ROOT, else ./autoseg_data).

    Returns:
        The masks with areas, confidence and warnings, and the failed images with the reason.

    Raises:
        AutosegError: policy or min_expected_dice is invalid, nothing is trained, or a reader cannot be asked.
    """
    from autoseg.io.raw_dataset import read_description
    from autoseg.prediction.inputs import find_jobs
    from autoseg.prediction.second_reader import doubtful_cases

    if policy not in POLICIES:
        raise AutosegError(f"there is no policy {policy!r}", f"choose one of {', '.join(POLICIES)}")
    if not 0 <= min_expected_dice <= 1:
        raise AutosegError(f"an expected Dice lies between 0 and 1, not at {min_expected_dice:g}", "for example 0.8")
    inputs = Path(images) if isinstance(images, str | Path) else [Path(path) for path in images]
    target = Path(output)
    report = predict(
        images, target, dataset, model, folds, tta=tta, recursive=recursive, names=names, dicom_masks="nii", device=device,
        root=root,
    )  # fmt: skip
    spec = read_description(Workspace.at(root).dataset(dataset).description)
    second_read = set(doubtful_cases(report.record.cases, min_expected_dice))
    all_jobs = find_jobs(inputs, len(spec.channel_names), recursive, target, names, "nii")
    jobs = [job for job in all_jobs if job.name in second_read]
    logger.info(
        f"{len(jobs)} of {len(report.cases)} masks are below {min_expected_dice:g}: {_name(second)} reads them again"
    )
    failed = (
        _run_second_reader(jobs, target, dataset=dataset, second=second, confirm=confirm, device=device, root=root)
        if jobs
        else {}
    )
    return _combine_readings(
        report, target, second_read={job.name for job in jobs}, failed=failed, scheme=spec.label_scheme(), policy=policy,
        threshold=min_expected_dice, second=_name(second),
    )  # fmt: skip


def study_readers(
    dataset: DatasetId,
    *,
    models: Models | None = None,
    folds: Folds | None = None,
    first: str | None = None,
    second: str | None = None,
    min_expected_dice: float = 0.8,
    share: float = 0.05,
    also: Mapping[str, PathLike] | None = None,
    output: PathLike | None = None,
    root: Root = None,
) -> ReaderStudy:
    """Measure how well confidence ranks held-out cases, and the gain of a second reader on hard ones.

    Args:
        dataset: id or name of the dataset.
        models: only these models (default: all that are finished).
        folds: only these folds (default: all that are finished).
        first: name of the first reader (default: the model with the best Dice).
        second: name of the second reader (default: the next best).
        min_expected_dice: the second reader reads cases whose expected Dice is below this, 0 to 1.
        share: fraction of the cases that count as hard, and as easy.
        also: name -> folder of scored masks of another program, such as a zero-shot model.
        output: folder for risk_coverage.json (default: results/<dataset>/comparison).
        root: folder of raw/, preprocessed/ and results/ (default: AUTOSEG_ROOT, else ./autoseg_data).

    Returns:
        The area under the risk-coverage curve (AURC) of each confidence, and the scores of each policy.

    Raises:
        AutosegError: there are fewer than two readers, or the first has no confidence.
    """
    from autoseg.comparison.results import load_results
    from autoseg.comparison.second_reader_study import study

    data = Workspace.at(root).dataset(dataset)
    folder = output_folder(output) or data.results / "comparison"
    mask_folders = {name: Path(path) for name, path in (also or {}).items()}
    dataset_results = load_results(data, model_names(models), fold_numbers(folds), mask_folders)
    check_runs(data, [run.folder for model in dataset_results.models.values() for run in model.folds.values()])
    result = study(dataset_results, first, second, min_expected_dice, share)
    write_artefact(folder / "risk_coverage.json", result)
    return result


def _name(second: str | Path | Omnimodel) -> str:
    return second.reader if isinstance(second, Omnimodel) else Path(second).name


def _run_second_reader(
    jobs: Sequence[PredictionJob],
    target: Path,
    dataset: str | int,
    second: str | Path | Omnimodel,
    confirm: Callable[[str], bool] | None,
    device: str,
    root: Root,
) -> dict[str, str]:
    """Write the second reader's masks to target/second_reader. Returns failed cases -> reason."""
    from autoseg.prediction.files import predict_jobs
    from autoseg.prediction.loading import load_predictor
    from autoseg.prediction.pipeline import OutputOptions

    folder = target / SECOND
    if not isinstance(second, Omnimodel):
        bundle = second if Path(second).is_file() else None
        which, model = (None, None) if bundle else (dataset, str(second))
        predictor = load_predictor(which, model, bundle=bundle, device=device, root=root)
        return predict_jobs(predictor, jobs, folder, OutputOptions()).failed
    configured = replace(second, boxes_from=second.boxes_from or target)
    return read_jobs(jobs, folder, dataset=dataset, omnimodel=configured, confirm=confirm, device=device, root=root).failed


def _earlier_readings(target: Path) -> dict[str, Reading]:
    """Readings of an earlier call, of cases whose masks are in the same folder."""
    path = target / RECORD
    if not path.is_file():
        return {}
    return {reading.case: reading for reading in read_artefact(path, SecondReading, f"delete {path}").cases}


def _combine_readings(
    report: PredictionReport,
    target: Path,
    second_read: set[str],
    failed: dict[str, str],
    scheme: LabelScheme,
    policy: Policy,
    threshold: float,
    second: str,
) -> PredictionReport:
    """Combine the masks, and record the reader of each."""
    import numpy as np

    from autoseg.io import read_label, write_label
    from autoseg.prediction.files import PredictionReport as Report
    from autoseg.prediction.progress_log import RECORD as PREDICTION
    from autoseg.prediction.second_reader import agreement, combine, confidence_of

    readings, cases = [], []
    earlier = _earlier_readings(target)
    for case in report.record.cases:
        confidence = confidence_of(case)
        if case.case in report.record.skipped and case.case in earlier:
            readings.append(earlier[case.case])
            cases.append(case)
            continue
        if case.case not in second_read:
            readings.append(
                Reading(
                    case=case.case,
                    reader="first",
                    confidence=confidence,
                    agreement=math.nan,
                    reason=f"{confidence:.2f} is not below {threshold:g}",
                )
            )
            cases.append(case)
            continue
        low = f"{confidence:.2f} is below {threshold:g}"
        if case.case in failed or not (target / SECOND / case.output).is_file():
            reason = f"{low}, but {second} gave no mask: {failed.get(case.case, 'no file')}"
            readings.append(Reading(case=case.case, reader="first", confidence=confidence, agreement=math.nan, reason=reason))
            cases.append(replace(case, warnings=(*case.warnings, f"please check: {reason}")))
            continue
        first_path = target / FIRST / case.output
        with os_errors_as_autoseg_errors(first_path):
            first_path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(target / case.output, first_path)
        one, other = read_label(first_path), read_label(target / SECOND / case.output)
        dice = agreement(one.array, other.array, scheme)
        labels = combine(one.array, other.array, policy)
        write_label(target / case.output, labels, like=one)
        pixels = {name: int(np.isin(labels, member).sum()) for name, member in scheme.foreground.items()}
        reader = {"flag": "first", "replace": "second"}.get(policy, "both")
        reason = f"{low}; {second} read it too, and the Dice between the masks is {dice:.2f}; {policy}"
        readings.append(Reading(case=case.case, reader=reader, confidence=confidence, agreement=dice, reason=reason))
        cases.append(replace(case, pixels=pixels, warnings=(*case.warnings, f"read twice: {reason}")))
    confidences = [case.confidence for case in report.record.cases if case.confidence is not None]
    calibrated = bool(confidences) and not any(math.isnan(one.expected_dice) for one in confidences)
    first = " + ".join(report.record.models)
    write_artefact(
        target / RECORD,
        SecondReading(
            first=first, second=second, policy=policy, threshold=threshold, calibrated=calibrated, cases=tuple(readings)
        ),
    )
    record = replace(report.record, cases=tuple(cases))
    write_artefact(target / PREDICTION, record)
    return Report(target, record)
