"""Folds: given, canonical, official or autoseg's own; exported and compared by the content of the images."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from autoseg.api.options import DatasetId, PathLike
from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.fingerprint import Fingerprint
from autoseg.schema.plan import Plan, Splits
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.files import read_artefact, write_text
from autoseg.support.workspace import Dataset, Root, Workspace

if TYPE_CHECKING:
    from autoseg.io.raw_dataset import RawDataset
    from autoseg.planning.split_file import SplitMatch

logger = logging.getLogger(__name__)

_FOLDS, _SEED = "training.folds", "training.seed"
_DEFAULT_FOLDS = 5
_SHOWN = 10


def splits_of(dataset: DatasetId, root: Root = None) -> Splits:
    """Read the folds of a planned dataset, with their id.

    Args:
        dataset: id or name of the dataset.
        root: folder of raw/, preprocessed/ and results/ (default: AUTOSEG_ROOT, else ./autoseg_data).

    Returns:
        The folds; `id` names them by the content of the images.

    Raises:
        AutosegError: nothing is planned, or the raw files have errors.
    """
    return _identified(Workspace.at(root).dataset(dataset))[0]


def export_splits(dataset: DatasetId, file: PathLike, *, names: bool = True, root: Root = None) -> Splits:
    """Write the folds of a dataset as a text file that others can use with their own copy of the images.

    Args:
        dataset: id or name of a planned dataset.
        file: to write. It names images by the hash of their pixels, so file names and lossless formats do not matter.
        names: also write the names of the cases, for messages about missing and changed images.
        root: folder of raw/, preprocessed/ and results/ (default: AUTOSEG_ROOT, else ./autoseg_data).

    Returns:
        The folds; quote their `id`.

    Raises:
        AutosegError: nothing is planned, or the file cannot be written.
    """
    from autoseg.io.raw_dataset import refuse_raw_folder
    from autoseg.planning.split_file import to_text

    target = Path(file)
    refuse_raw_folder(target.absolute().parent)
    splits, measured = _identified(Workspace.at(root).dataset(dataset))
    write_text(target, to_text(splits, measured, names=names))
    return splits


def compare_splits(dataset: DatasetId, file: PathLike, root: Root = None) -> SplitMatch:
    """Compare a file of folds with the images of a dataset; nothing is written but fingerprint.json.

    Args:
        dataset: id or name of the dataset.
        file: written by `export_splits`.
        root: folder of raw/, preprocessed/ and results/ (default: AUTOSEG_ROOT, else ./autoseg_data).

    Returns:
        The missing, extra and changed cases.

    Raises:
        AutosegError: the file is damaged, or was changed since its id was made.
    """
    from autoseg.fingerprint.measure import fingerprint_dataset
    from autoseg.planning.split_file import match_cases, read_split_file

    read = read_split_file(Path(file))
    return match_cases(read, fingerprint_dataset(Workspace.at(root).dataset(dataset), current_hashes=True))


def needs_hashes(splits: PathLike | None) -> bool:
    """Whether these folds need the current hashes of pixels."""
    from autoseg.planning.canonical_splits import CANONICAL
    from autoseg.planning.split_file import is_split_file

    return splits is not None and (str(splits) == CANONICAL or is_split_file(Path(splits)))


def given_splits(
    data: Dataset,
    raw: RawDataset,
    measured: Fingerprint,
    settings: Mapping[str, str],
    asked: PathLike | None,
    partial: bool = False,
    metadata: PathLike | None = None,
) -> Splits | None:
    """The splits of a file or rule, else those that the user gave earlier, None if there are none.

    Raises AutosegError if the earlier ones do not match any more.
    """
    from autoseg.planning.site_splits import PREFIX, make_site_splits
    from autoseg.planning.splits import given_file

    by_site = asked is not None and str(asked).startswith(PREFIX)
    if metadata is not None and not by_site:
        raise AutosegError(f"{metadata} is not used", "add --splits by=COLUMN")
    if by_site:
        from autoseg.io.metadata import read_metadata

        table = None if metadata is None else read_metadata(Path(metadata))
        return make_site_splits(measured, raw.spec, str(asked), table)
    if asked is not None:
        return _asked_splits(data, raw, measured, settings, asked, partial)
    if not data.splits.exists():
        return None
    splits = read_artefact(data.splits, Splits, f"delete {data.splits} to make new splits")
    if not given_file(splits):
        return None
    _check_given(data, splits, measured, raw, settings)
    return splits


def _asked_splits(
    data: Dataset, raw: RawDataset, measured: Fingerprint, settings: Mapping[str, str], asked: PathLike, partial: bool
) -> Splits:
    from autoseg.planning.canonical_splits import CANONICAL, make_canonical_splits
    from autoseg.planning.official_splits import OFFICIAL, make_official_splits
    from autoseg.planning.split_file import is_split_file, match_cases, read_split_file, to_splits
    from autoseg.planning.splits import check_splits, read_splits

    path = Path(asked)
    if str(asked) == CANONICAL:
        return make_canonical_splits(measured, raw.spec, int(settings.get(_FOLDS, _DEFAULT_FOLDS)))
    if str(asked) == OFFICIAL:
        splits = make_official_splits(measured, raw.spec, data.raw)
        if "warning" in splits.reason:
            logger.warning(splits.reason)
        return splits
    if not is_split_file(path):
        return replace(read_splits(path, measured, raw.spec), given=path.name)
    match = match_cases(read_split_file(path), measured)
    splits = to_splits(match, path.name, partial=partial)
    for what, cases in (("missing", match.missing), ("changed", match.changed), ("not in the file", match.extra)):
        if cases:
            others = len(cases) - _SHOWN
            more = f" and {others} more (autoseg_splits {data.number} --check {path})" if others > 0 else ""
            logger.warning(f"{path.name}: {len(cases)} images {what}: {', '.join(cases[:_SHOWN])}{more}")
    check_splits(splits, measured, raw.spec, f"get another file than {path}")
    return splits


def own_splits(data: Dataset, raw: RawDataset, measured: Fingerprint, plan: Plan, regrouped: bool) -> Splits:
    """The splits on disk if they match cases, groups and settings, else new ones."""
    from autoseg.planning.duplicates import duplicates_to_remove
    from autoseg.planning.splits import check_splits, make_splits

    left_out = duplicates_to_remove(measured, raw.spec) if plan.training.duplicates == "removed" else ()
    if data.splits.exists():
        splits = read_artefact(data.splits, Splits, f"delete {data.splits} to make new splits")
        overridden = {_FOLDS, _SEED} & set(plan.overrides)
        cases, held_out = {case.name for case in raw.cases}, {case for fold in splits.folds for case in fold.validation}
        if held_out != cases - set(left_out):
            only = held_out <= cases and cases - held_out <= _all_duplicates(measured)
            what = "duplicates in the splits" if only else "cases"
            logger.warning(
                f"the {what} of {data.name} changed: trainings on the new splits cannot be compared with older ones"
            )
        elif regrouped:
            logger.warning(f"the groups of {data.name} changed: trainings on the new splits cannot be compared with older ones")
        elif not overridden or (len(splits.folds), splits.seed) == (plan.training.folds, plan.training.seed):
            check_splits(splits, measured, raw.spec, f"correct {data.splits}, or delete it to make new splits")
            return splits
        else:
            logger.warning(
                f"new splits of {data.name} for the changed settings: trainings on them cannot be compared with older ones"
            )
    return make_splits(measured, raw.spec, plan.training.folds, plan.training.seed, left_out)


def _all_duplicates(measured: Fingerprint) -> set[str]:
    return {case for cluster in measured.duplicates for case in cluster}


def completed_splits(splits: Splits, measured: Fingerprint, spec: DatasetSpec) -> Splits:
    """The splits with inner cases, groups and their id."""
    from autoseg.fingerprint.pixel_hash import HASH_VERSION
    from autoseg.planning.split_file import split_rows, splits_id
    from autoseg.planning.splits import with_groups, with_inner_cases

    splits = with_inner_cases(with_groups(splits, measured, spec), measured, spec)
    # Hashes of older releases would give an id that nobody else has.
    return replace(splits, id=splits_id(split_rows(splits, measured)) if measured.hash_version == HASH_VERSION else "")


def with_given_folds(plan: Plan, splits: Splits) -> Plan:
    """The plan with the number of folds of the user's splits."""
    from autoseg.planning.overrides import with_decision
    from autoseg.planning.splits import decide_given_folds, given_file

    if not given_file(splits):
        return plan
    training = replace(plan.training, folds=len(splits.folds))
    return with_decision(replace(plan, training=training), decide_given_folds(splits))


def _check_given(
    data: Dataset, splits: Splits, measured: Fingerprint, raw: RawDataset, settings: Mapping[str, str]
) -> None:
    from autoseg.planning.splits import check_splits, given_file

    name = given_file(splits)
    remedy = f"give them again with --splits, or delete {data.splits} to make new splits"
    # The seed of the trainings may differ: it did not make these splits.
    if settings.get(_FOLDS, str(len(splits.folds))) != str(len(splits.folds)):
        raise AutosegError(f"the splits of {data.name} were given ({name}), so {_FOLDS} cannot be set", remedy)
    try:
        check_splits(splits, measured, raw.spec)
    except SeveralProblems as error:
        raise SeveralProblems(
            f"the splits that were given for {data.name} ({name}) do not match:", error.problems, remedy
        ) from error
    unused = len(raw.cases) - len({case for fold in splits.folds for case in (*fold.train, *fold.validation)})
    more = f"; {unused} cases are in none of its folds" if unused else ""
    logger.info(f"{data.name} keeps the splits that were given ({name}){more}")


def _identified(data: Dataset) -> tuple[Splits, Fingerprint]:
    """The splits on disk, checked against the raw files, with their id; and the fingerprint."""
    from autoseg.fingerprint.measure import fingerprint_dataset
    from autoseg.io.raw_dataset import RawDataset
    from autoseg.planning.split_file import split_rows, splits_id
    from autoseg.planning.splits import check_splits

    splits = read_artefact(data.splits, Splits, f"plan it first: autoseg_plan_and_preprocess {data.number}")
    raw = RawDataset.open(data)
    measured = fingerprint_dataset(data, raw=raw, current_hashes=True)
    check_splits(splits, measured, raw.spec, f"plan again: autoseg_plan_and_preprocess {data.number}")
    return replace(splits, id=splits_id(split_rows(splits, measured))), measured
