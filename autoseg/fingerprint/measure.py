"""Fingerprint of a raw dataset in one pass: every image and mask is decoded once, and only statistics stay in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from types import TracebackType

import numpy as np

from autoseg.fingerprint.case import MASK_THUMBNAIL_SIDE, MaskSummary, MeasuredCase, measure_case
from autoseg.fingerprint.intensities import QuantileSketch
from autoseg.fingerprint.modality import detect_modality
from autoseg.fingerprint.near_duplicates import SimilarPairs, ThumbnailIndex, connected_groups
from autoseg.fingerprint.pixel_hash import HASH_VERSION
from autoseg.fingerprint.quality_checks import check_quality
from autoseg.fingerprint.row_file import RowFile
from autoseg.fingerprint.sources import hash_sources, image_hash
from autoseg.fingerprint.validation import layout_faults, raise_faults
from autoseg.io import Case, DecodedImageCache, RawDataset
from autoseg.schema.dataset import DatasetSpec, LabelScheme
from autoseg.schema.fingerprint import CaseFingerprint, ChannelStatistics, ClassStatistics, Fingerprint
from autoseg.schema.sources import Sources
from autoseg.support.errors import AutosegError, keep_result
from autoseg.support.files import read_artefact, write_artefact
from autoseg.support.log import progress_bar
from autoseg.support.out_of_memory import is_out_of_memory
from autoseg.support.parallel import parallel_map, should_use_processes
from autoseg.support.workspace import Dataset


def fingerprint_dataset(
    dataset: Dataset,
    workers: int | None = None,
    cache: DecodedImageCache | None = None,
    raw: RawDataset | None = None,
    *,
    sources: Sources | None = None,
    processes: bool = False,
    current_hashes: bool = False,
) -> Fingerprint:
    """Measures a raw dataset and writes `dataset.fingerprint`. An up-to-date fingerprint is read instead.

    cache: keeps the decoded images. raw: the dataset, if it is already open; sources: its hashes. processes: measure many
    cases in worker processes; `cache` then stays empty. current_hashes: measure again if the hashes of pixels are those of an
    older release. Also checks the dataset. Raises SeveralProblems with all faults; nothing is written then.
    """
    raw = raw or RawDataset.open(dataset)
    sources = sources or hash_sources(raw, dataset.raw, workers)
    dataset_hash = sources.content_hash
    existing = _read_matching(dataset, dataset_hash)
    if existing is not None and (existing.hash_version == HASH_VERSION or not current_hashes):
        return existing
    faults = layout_faults(raw)
    jobs = deque((case, image_hash(sources.cases[case.name])) for case in raw.cases)
    del sources
    raw = replace(raw, cases=())  # Only the jobs hold the cases, so that each is freed when it is done.
    processes = processes and should_use_processes(len(jobs))
    measure = partial(_measure_job, raw.spec, raw.scheme, None if processes else cache)
    measured = parallel_map(measure, _pop_all(jobs), workers, processes=processes, name=lambda job: job[0].name)
    fingerprint = _collect(dataset, raw, progress_bar(measured, "fingerprint", len(jobs)), faults, dataset_hash)
    with keep_result(fingerprint):
        write_artefact(dataset.fingerprint, fingerprint)
    return fingerprint


def content_hash(raw: RawDataset, workers: int | None = None) -> str:
    """SHA-256 over the hashes of all training images and masks, the case names and dataset.json."""
    return hash_sources(raw, Path(), workers).content_hash


def _read_matching(dataset: Dataset, dataset_hash: str) -> Fingerprint | None:
    if not dataset.fingerprint.is_file():
        return None
    try:
        fingerprint = read_artefact(dataset.fingerprint, Fingerprint)
    except AutosegError:
        return None  # From another release, or damaged: make it again.
    return fingerprint if fingerprint.content_hash == dataset_hash and fingerprint.dataset == dataset.name else None


class _Accumulator:
    """Accumulates the measured cases: records in memory, thumbnails on the disk. A context manager."""

    def __init__(self, channels: int, folder: Path) -> None:
        """folder: for temporary files."""
        self.sketches = [(QuantileSketch(), QuantileSketch()) for _ in range(channels)]
        self.cases: list[CaseFingerprint] = []
        self.masks: list[MaskSummary] = []
        self._files = ExitStack()
        self.thumbnails = self._files.enter_context(ThumbnailIndex(folder))
        self.mask_thumbnails = self._files.enter_context(RowFile(MASK_THUMBNAIL_SIDE * MASK_THUMBNAIL_SIDE, np.uint8, folder))

    def add(self, measured_case: MeasuredCase) -> None:
        self.cases.append(measured_case.case)
        self.masks.append(measured_case.mask)
        self.thumbnails.add(measured_case.thumbnail)
        self.mask_thumbnails.append(measured_case.mask_thumbnail.ravel())
        for (everywhere, inside), histograms in zip(self.sketches, measured_case.values, strict=True):
            everywhere.add(histograms[0], measured_case.is_integer)
            inside.add(histograms[1], measured_case.is_integer)

    def __enter__(self) -> _Accumulator:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._files.close()


def _pop_all(jobs: deque[tuple[Case, str]]) -> Iterator[tuple[Case, str]]:
    """Yields and removes each job, so that it can be freed."""
    while jobs:
        yield jobs.popleft()


def _measure_job(
    spec: DatasetSpec, scheme: LabelScheme, cache: DecodedImageCache | None, job: tuple[Case, str]
) -> MeasuredCase | list[str]:
    """job: a case, and the hash of its image files."""
    try:
        return measure_case(job[0], spec, scheme, job[1], cache)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    return [f"{job[0].images[0]}: too large for the memory of this machine"]


def _collect(
    dataset: Dataset, raw: RawDataset, measured: Iterable[MeasuredCase | list[str]], faults: list[str], dataset_hash: str
) -> Fingerprint:
    """measured: each case, or the list of its faults. faults: of the file layout."""
    with _Accumulator(len(raw.spec.channel_names), _existing_parent(dataset.preprocessed)) as accumulator:
        for measured_case in measured:
            if isinstance(measured_case, list):
                faults += measured_case
            else:
                accumulator.add(measured_case)
        raise_faults(faults)
        if not any(item.pixels for case in accumulator.cases for item in case.classes.values()):
            raise AutosegError(
                f"no mask of {dataset.name} holds any foreground, so that nothing can be learnt",
                "check the masks, and the values of labels in dataset.json",
            )
        return _build_fingerprint(dataset, raw, dataset_hash, accumulator)


def _existing_parent(path: Path) -> Path:
    """The folder or its first existing parent: on the same disk, without creating a folder that faults would leave empty."""
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def _build_fingerprint(dataset: Dataset, raw: RawDataset, dataset_hash: str, accumulator: _Accumulator) -> Fingerprint:
    names = tuple(raw.spec.channel_names.values())
    cases = accumulator.cases
    similar_pairs = accumulator.thumbnails.find_similar(case.pixel_hash for case in cases)
    gray_as_rgb = len(names) == 3 and all(mask.gray for mask in accumulator.masks)
    channels = tuple(_channel(name, *sketch) for name, sketch in zip(names, accumulator.sketches, strict=True))
    dtype = str(np.result_type(*{case.dtype for case in cases}))
    kind, evidence = detect_modality(
        raw.spec, dataset.short_name, cases, gray_as_rgb, dtype, [channel.mean for channel in channels]
    )
    return Fingerprint(
        dataset=dataset.name,
        content_hash=dataset_hash,
        modality=kind,
        evidence=evidence,
        gray_as_rgb=gray_as_rgb,
        dtype=dtype,
        channels=channels,
        classes=tuple(_class(name, cases) for name in raw.scheme.foreground),
        cases=tuple(cases),
        median_size=_median_size(cases),
        median_spacing=_median_spacing(cases),
        duplicates=_duplicates(cases, similar_pairs),
        findings=check_quality(raw.spec, cases, similar_pairs, accumulator.masks, accumulator.mask_thumbnails),
        hash_version=HASH_VERSION,
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
    present = [(case, case.classes[name]) for case in cases if case.classes[name].pixels]
    pixels = sum(case.size[0] * case.size[1] for case in cases)

    def median(values: Iterator[float]) -> float:
        return float(np.median(list(values))) if present else 0.0

    return ClassStatistics(
        name=name,
        cases=len(present),
        presence=len(present) / len(cases),
        pixel_share=sum(item.pixels for _, item in present) / pixels,
        area_share=median(item.pixels / (case.size[0] * case.size[1]) for case, item in present),
        objects=median(float(item.objects) for _, item in present),
        thickness=median(item.thickness for _, item in present),
        relative_thickness=median(item.thickness / min(case.size) for case, item in present),
        object_area=median(item.object_area for _, item in present),
        object_share=median(item.object_area / (case.size[0] * case.size[1]) for case, item in present),
        compactness=median(item.compactness for _, item in present),
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


def _duplicates(cases: Sequence[CaseFingerprint], similar_pairs: SimilarPairs) -> tuple[tuple[str, ...], ...]:
    first_index: dict[str, int] = {}
    equal = ((first_index.setdefault(case.pixel_hash, index), index) for index, case in enumerate(cases))
    copies = ((first, second) for first, second in equal if first != second)
    pairs = chain(similar_pairs.same, similar_pairs.scene, copies)
    return tuple(tuple(cases[place].case for place in group) for group in connected_groups(pairs))
