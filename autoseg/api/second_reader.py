"""A second reader for the cases the first is not sure of."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from autoseg.api.omnimodel import Omnimodel, read_jobs
from autoseg.api.options import DatasetId, Folds, Models, PathLike, fold_numbers, model_names
from autoseg.api.prediction import predict
from autoseg.schema.second_reader import POLICIES, Policy, ReaderStudy, Reading, SecondReading
from autoseg.support.errors import AutosegError
from autoseg.support.files import write_artefact
from autoseg.support.workspace import Root, Workspace

if TYPE_CHECKING:
    from autoseg.prediction.deidentify import Names
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
    trust: float = 0.8,
    policy: Policy = "flag",
    confirm: Callable[[str], bool] | None = None,
    tta: bool = False,
    recursive: bool = False,
    names: Names = "auto",
    device: str = "auto",
    root: Root = None,
) -> PredictionReport:
    """Predict images, and ask a second reader about the cases whose expected Dice is low.

    Both readers' masks stay in first_reader/ and second_reader/; second_reader.json says who made each mask, and why. A case
    that the second reader cannot read keeps the first mask.

    Args:
        images: an image file, several, or a folder of images.
        output: folder for the masks.
        dataset: id or name of the dataset the model was trained on.
        model: name of a trained model, several to average, or "best" for what `find_best` chose.
        second: name of another trained model, the path of a bundle, or an `Omnimodel`.
        folds: numbers of the first reader's folds to average (default: all that are trained).
        trust: expected Dice, 0 to 1, below which the second reader is asked.
        policy: "flag" keeps the first mask and warns, "replace" takes the second, "union" takes what either marks,
            "consensus" what both mark alike.
        confirm: see `ask_omnimodel`.
        tta: average the first reader over mirrored views.
        recursive: take images of subfolders too.
        names: "auto" replaces file names that could identify a patient, "keep" none, "hide" all.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        root: folder of raw/, preprocessed/ and results/ (default: AUTOSEG_ROOT, else ./autoseg_data).

    Returns:
        Each mask with areas, confidence and warnings, and which images failed, and why.

    Raises:
        AutosegError: the policy or trust is wrong, nothing is trained, or a reader cannot be asked.
    """
    from autoseg.io.raw_dataset import read_description
    from autoseg.prediction.inputs import find_jobs
    from autoseg.prediction.second_reader import doubtful

    if policy not in POLICIES:
        raise AutosegError(f"there is no policy {policy!r}", f"choose one of {', '.join(POLICIES)}")
    if not 0 <= trust <= 1:
        raise AutosegError(f"a trust of {trust:g} is no expected Dice", "give a number from 0 to 1, such as 0.8")
    inputs = Path(images) if isinstance(images, str | Path) else [Path(path) for path in images]
    target = Path(output)
    report = predict(
        images, target, dataset, model, folds, tta=tta, recursive=recursive, names=names, dicom_masks="nii", device=device,
        root=root,
    )  # fmt: skip
    spec = read_description(Workspace.at(root).dataset(dataset).description)
    asked = set(doubtful(report.record.cases, trust))
    jobs = [job for job in find_jobs(inputs, len(spec.channel_names), recursive, target, names, "nii") if job.name in asked]
    logger.info(f"{len(jobs)} of {len(report.cases)} masks are below {trust:g} and go to the second reader, {_name(second)}")
    failed = (
        _read_again(jobs, target, dataset=dataset, second=second, confirm=confirm, device=device, root=root) if jobs else {}
    )
    return _settle(
        report, target, asked={job.name for job in jobs}, failed=failed, scheme=spec.label_scheme(), policy=policy,
        threshold=trust, second=_name(second),
    )  # fmt: skip


def study_readers(
    dataset: DatasetId,
    *,
    models: Models | None = None,
    folds: Folds | None = None,
    first: str | None = None,
    second: str | None = None,
    trust: float = 0.8,
    share: float = 0.05,
    also: Mapping[str, PathLike] | None = None,
    output: PathLike | None = None,
    root: Root = None,
) -> ReaderStudy:
    """Measure how well confidence ranks held-out cases, and what a second reader would gain on the hard ones.

    Args:
        dataset: id or name of the dataset.
        models: only these models (default: all that are finished).
        folds: only these folds (default: all that are finished).
        first: name of the first reader (default: the model with the best Dice).
        second: name of the second reader (default: the next best).
        trust: expected Dice, 0 to 1, below which the second reader is asked.
        share: fraction of the cases that count as hard, and as easy.
        also: name -> folder of scored masks that come from elsewhere, such as a zero-shot model's.
        output: folder for risk_coverage.json (default: results/<dataset>/comparison).
        root: folder of raw/, preprocessed/ and results/ (default: AUTOSEG_ROOT, else ./autoseg_data).

    Returns:
        The area under the risk-coverage curve (AURC) of each confidence, and the scores of each way of reading.

    Raises:
        AutosegError: there are fewer than two readers, or the first has no confidence.
    """
    from autoseg.comparison.results import load_results
    from autoseg.comparison.second_reader_study import study

    found = Workspace.at(root).dataset(dataset)
    elsewhere = {name: Path(folder) for name, folder in (also or {}).items()}
    dataset_results = load_results(found, model_names(models), fold_numbers(folds), elsewhere)
    result = study(dataset_results, first, second, trust, share)
    write_artefact((Path(output) if output else found.results / "comparison") / "risk_coverage.json", result)
    return result


def _name(second: str | Path | Omnimodel) -> str:
    return second.reader if isinstance(second, Omnimodel) else Path(second).name


def _read_again(
    jobs: Sequence[PredictionJob],
    target: Path,
    dataset: str | int,
    second: str | Path | Omnimodel,
    confirm: Callable[[str], bool] | None,
    device: str,
    root: Root,
) -> dict[str, str]:
    """Masks of the jobs in target/second_reader, by the jobs' names; gives those that failed."""
    from autoseg.prediction.files import predict_jobs
    from autoseg.prediction.loading import load_predictor
    from autoseg.prediction.pipeline import Wanted

    folder = target / SECOND
    if not isinstance(second, Omnimodel):
        bundle = second if Path(second).is_file() else None
        which, model = (None, None) if bundle else (dataset, str(second))
        predictor = load_predictor(which, model, bundle=bundle, device=device, root=root)
        return predict_jobs(predictor, jobs, folder, Wanted()).failed
    asked = replace(second, boxes_from=second.boxes_from or target)
    return read_jobs(jobs, folder, dataset=dataset, omnimodel=asked, confirm=confirm, device=device, root=root).failed


def _settle(
    report: PredictionReport,
    target: Path,
    asked: set[str],
    failed: dict[str, str],
    scheme: LabelScheme,
    policy: Policy,
    threshold: float,
    second: str,
) -> PredictionReport:
    """Combine the masks and say who made which."""
    import numpy as np

    from autoseg.io import read_label, write_label
    from autoseg.prediction.files import PredictionReport as Report
    from autoseg.prediction.progress_log import RECORD as PREDICTION
    from autoseg.prediction.second_reader import agreement, combine, trust_of

    readings, cases = [], []
    for case in report.record.cases:
        sure = trust_of(case)
        if case.case not in asked:
            readings.append(
                Reading(
                    case=case.case,
                    reader="first",
                    confidence=sure,
                    agreement=math.nan,
                    reason=f"trusted: {sure:.2f} is not below {threshold:g}",
                )
            )
            cases.append(case)
            continue
        doubt = f"{sure:.2f} is below {threshold:g}"
        if case.case in failed or not (target / SECOND / case.output).is_file():
            because = f"{doubt}, but {second} gave no mask: {failed.get(case.case, 'none was written')}"
            readings.append(Reading(case=case.case, reader="first", confidence=sure, agreement=math.nan, reason=because))
            cases.append(replace(case, warnings=(*case.warnings, f"to be looked at: {because}")))
            continue
        kept = target / FIRST / case.output
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(target / case.output, kept)
        one, other = read_label(kept), read_label(target / SECOND / case.output)
        alike = agreement(one.array, other.array, scheme)
        labels = combine(one.array, other.array, policy)
        write_label(target / case.output, labels, like=one)
        pixels = {name: int(np.isin(labels, member).sum()) for name, member in scheme.foreground.items()}
        reader = {"flag": "first", "replace": "second"}.get(policy, "both")
        because = f"{doubt}; {second} was asked, and the two masks agree by a Dice of {alike:.2f}; {policy}"
        readings.append(Reading(case=case.case, reader=reader, confidence=sure, agreement=alike, reason=because))
        cases.append(replace(case, pixels=pixels, warnings=(*case.warnings, f"read twice: {because}")))
    known = [case.confidence for case in report.record.cases if case.confidence is not None]
    calibrated = bool(known) and not any(math.isnan(one.expected_dice) for one in known)
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
