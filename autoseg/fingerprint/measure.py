"""The one pass over a raw dataset: every image and mask is decoded once, and only sums are kept."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from types import TracebackType

import numpy as np

from autoseg.fingerprint.case import OUTLINE, MeasuredCase, SeenMask, measure_case
from autoseg.fingerprint.intensities import QuantileSketch
from autoseg.fingerprint.links import groups
from autoseg.fingerprint.modality import modality
from autoseg.fingerprint.near_duplicates import Gallery, Likeness
from autoseg.fingerprint.quality_checks import check_quality
from autoseg.fingerprint.row_file import RowFile
from autoseg.fingerprint.validation import layout_faults, raise_faults
from autoseg.io import Case, DecodedImageCache, RawDataset
from autoseg.schema.dataset import DatasetSpec, LabelScheme
from autoseg.schema.fingerprint import CaseFingerprint, ChannelStatistics, ClassStatistics, Fingerprint
from autoseg.schema.serde import to_line
from autoseg.support.errors import AutosegError
from autoseg.support.files import fast_hash_file, hash_text, read_artefact, write_artefact
from autoseg.support.log import progress_bar
from autoseg.support.parallel import parallel_map, should_use_processes
from autoseg.support.workspace import Dataset

_RULES = "4"  # goes up when what is measured changes, so that older fingerprints are made again


def fingerprint_dataset(
    dataset: Dataset,
    workers: int | None = None,
    kept: DecodedImageCache | None = None,
    raw: RawDataset | None = None,
    *,
    processes: bool = False,
) -> Fingerprint:
    """Measures a raw dataset and writes `dataset.fingerprint`; one that fits the files as they are is used again.

    kept: holds what was read afterwards. raw: the dataset, where it has been opened already. processes: many cases may be
    measured in worker processes; `kept` then holds nothing. Checks the dataset on the way. Raises SeveralProblems with all its
    faults; nothing is written then.
    """
    raw = raw or RawDataset.open(dataset)
    whole, hashes = _hashes(raw, workers)
    known = _known(dataset, whole)
    if known is not None:
        return known
    faults = layout_faults(raw)
    jobs = deque(zip(raw.cases, hashes, strict=True))
    del hashes
    raw = replace(raw, cases=())  # The jobs hold them now, and let each go when it is done.
    processes = processes and should_use_processes(len(jobs))
    measure = partial(_measure_job, raw.spec, raw.scheme, None if processes else kept)
    measured = parallel_map(measure, _given_away(jobs), workers, processes=processes, name=lambda job: job[0].name)
    fingerprint = _sum_up(dataset, raw, progress_bar(measured, "fingerprint", len(jobs)), faults, whole)
    write_artefact(dataset.fingerprint, fingerprint)
    return fingerprint


def content_hash(raw: RawDataset, workers: int | None = None) -> str:
    """SHA-256 over the hashes of every training image and mask, their case names and what dataset.json says of them."""
    return _hashes(raw, workers)[0]


def _hashes(raw: RawDataset, workers: int | None) -> tuple[str, list[str]]:
    """The hash of the whole dataset, and that of each case's image files."""

    def digest(case: Case) -> tuple[str, str]:
        try:
            images = [fast_hash_file(path) for path in case.images]
            label = fast_hash_file(case.label) if case.label else ""
        except OSError as error:
            raise AutosegError(f"{error.filename} cannot be read: {error.strerror}", "check the file") from error
        return images[0] if len(images) == 1 else hash_text(*images), label

    found = list(progress_bar(parallel_map(digest, raw.cases, workers), "hash", len(raw.cases)))
    # Texts that only people read may change without anything having to be made again.
    spec = replace(raw.spec, licence="", reference="", description="", numTraining=0)
    # As version 1 of dataset.json was written, so that fingerprints made then are still known.
    said = json.dumps({"schema_version": 1, **json.loads(to_line(spec))}, indent=1, ensure_ascii=False) + "\n"
    files = (part for case, hashes in zip(raw.cases, found, strict=True) for part in (case.name, *hashes))
    return hash_text(_RULES, said, *files), [images for images, _ in found]


def _known(dataset: Dataset, whole: str) -> Fingerprint | None:
    if not dataset.fingerprint.is_file():
        return None
    try:
        fingerprint = read_artefact(dataset.fingerprint, Fingerprint)
    except AutosegError:
        return None  # Written by another release, or damaged: it is made again.
    return fingerprint if fingerprint.content_hash == whole and fingerprint.dataset == dataset.name else None


class _Tally:
    """What is kept of the cases that went by: records in memory, pictures on the disk. Ends with the block."""

    def __init__(self, channels: int, folder: Path) -> None:
        """folder: for temporary files."""
        self.pools = [(QuantileSketch(), QuantileSketch()) for _ in range(channels)]
        self.cases: list[CaseFingerprint] = []
        self.masks: list[SeenMask] = []
        self._files = ExitStack()
        self.gallery = self._files.enter_context(Gallery(folder))
        self.outlines = self._files.enter_context(RowFile(OUTLINE * OUTLINE, np.uint8, folder))

    def add(self, found: MeasuredCase) -> None:
        self.cases.append(found.case)
        self.masks.append(found.mask)
        self.gallery.add(found.thumbnail)
        self.outlines.append(found.outline.ravel())
        for (everywhere, inside), counted in zip(self.pools, found.values, strict=True):
            everywhere.add(counted[0], found.whole)
            inside.add(counted[1], found.whole)

    def __enter__(self) -> _Tally:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._files.close()


def _given_away(jobs: deque[tuple[Case, str]]) -> Iterator[tuple[Case, str]]:
    """Each job, which nothing here holds any longer."""
    while jobs:
        yield jobs.popleft()


def _measure_job(
    spec: DatasetSpec, scheme: LabelScheme, kept: DecodedImageCache | None, job: tuple[Case, str]
) -> MeasuredCase | list[str]:
    """job: a case, and the hash of its image files."""
    return measure_case(job[0], spec, scheme, job[1], kept)


def _sum_up(
    dataset: Dataset, raw: RawDataset, measured: Iterable[MeasuredCase | list[str]], faults: list[str], whole: str
) -> Fingerprint:
    """measured: each case, or what is wrong with it. faults: known already."""
    with _Tally(len(raw.spec.channel_names), _folder_for(dataset.preprocessed)) as tally:
        for found in measured:
            if isinstance(found, list):
                faults += found
            else:
                tally.add(found)
        raise_faults(faults)
        return _summed(dataset, raw, whole, tally)


def _folder_for(path: Path) -> Path:
    """The folder, or where it will be made: on the same disk, and nothing is made yet that faults would leave empty."""
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def _summed(dataset: Dataset, raw: RawDataset, whole: str, tally: _Tally) -> Fingerprint:
    names = tuple(raw.spec.channel_names.values())
    cases = tally.cases
    likeness = tally.gallery.alike(case.pixel_hash for case in cases)
    gray_as_rgb = len(names) == 3 and all(mask.gray for mask in tally.masks)
    channels = tuple(_channel(name, *pool) for name, pool in zip(names, tally.pools, strict=True))
    dtype = str(np.result_type(*{case.dtype for case in cases}))
    kind, evidence = modality(
        raw.spec, dataset.short_name, cases, gray_as_rgb, dtype, [channel.mean for channel in channels]
    )
    return Fingerprint(
        dataset=dataset.name,
        content_hash=whole,
        modality=kind,
        evidence=evidence,
        gray_as_rgb=gray_as_rgb,
        dtype=dtype,
        channels=channels,
        classes=tuple(_class(name, cases) for name in raw.scheme.foreground),
        cases=tuple(cases),
        median_size=_median_size(cases),
        median_spacing=_median_spacing(cases),
        duplicates=_duplicates(cases, likeness),
        findings=check_quality(raw.spec, cases, likeness, tally.masks, tally.outlines),
    )


def _channel(name: str, everywhere: QuantileSketch, inside: QuantileSketch) -> ChannelStatistics:
    (mean, std, percentiles), (inside_mean, inside_std, inside_percentiles) = everywhere.summary(), inside.summary()
    return ChannelStatistics(
        name=name,
        mean=mean,
        std=std,
        percentiles=percentiles,
        foreground_mean=inside_mean,
        foreground_std=inside_std,
        foreground_percentiles=inside_percentiles,
    )


def _class(name: str, cases: Sequence[CaseFingerprint]) -> ClassStatistics:
    holding = [(case, case.classes[name]) for case in cases if case.classes[name].pixels]
    pixels = sum(case.size[0] * case.size[1] for case in cases)

    def median(values: Iterator[float]) -> float:
        return float(np.median(list(values))) if holding else 0.0

    return ClassStatistics(
        name=name,
        cases=len(holding),
        presence=len(holding) / len(cases),
        pixel_share=sum(item.pixels for _, item in holding) / pixels,
        area_share=median(item.pixels / (case.size[0] * case.size[1]) for case, item in holding),
        objects=median(float(item.objects) for _, item in holding),
        thickness=median(item.thickness for _, item in holding),
        relative_thickness=median(item.thickness / min(case.size) for case, item in holding),
        object_area=median(item.object_area for _, item in holding),
        object_share=median(item.object_area / (case.size[0] * case.size[1]) for case, item in holding),
        compactness=median(item.compactness for _, item in holding),
    )


def _median_size(cases: Sequence[CaseFingerprint]) -> tuple[int, int]:
    height, width = np.median([case.size for case in cases], axis=0)
    return round(float(height)), round(float(width))


def _median_spacing(cases: Sequence[CaseFingerprint]) -> tuple[float, float] | None:
    spacings = [case.spacing for case in cases if case.spacing]
    if len(spacings) < len(cases):
        return None
    row, column = np.median(spacings, axis=0)
    return float(row), float(column)


def _duplicates(cases: Sequence[CaseFingerprint], likeness: Likeness) -> tuple[tuple[str, ...], ...]:
    first: dict[str, int] = {}
    equal = ((first.setdefault(case.pixel_hash, place), place) for place, case in enumerate(cases))
    copies = ((one, other) for one, other in equal if one != other)
    pairs = chain(likeness.same, likeness.scene, copies)
    return tuple(tuple(cases[place].case for place in group) for group in groups(pairs))
