"""Preprocesses a raw dataset for one configuration, or reuses arrays that are up to date."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from autoseg.io.cache import DecodedImageCache
from autoseg.io.files import read_case, read_label
from autoseg.io.grid import align
from autoseg.io.raw_dataset import Case, RawDataset
from autoseg.preprocessing.array_dataset import ArrayDataset, OutdatedArrays, array_writer, preprocessing_hash
from autoseg.preprocessing.transform import preprocess_image, preprocess_label
from autoseg.schema.fingerprint import Fingerprint
from autoseg.schema.plan import PreprocessingConfig
from autoseg.support.errors import AutosegError
from autoseg.support.files import read_artefact
from autoseg.support.log import progress_bar
from autoseg.support.out_of_memory import REMEDY, is_out_of_memory
from autoseg.support.parallel import parallel_map
from autoseg.support.workspace import Dataset

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _PreprocessedCase:
    name: str
    image: NDArray[Any]
    label: NDArray[Any]
    original_size: tuple[int, int]


def preprocess_dataset(
    dataset: Dataset,
    raw: RawDataset,
    config: PreprocessingConfig,
    workers: int | None = None,
    content_hash: str | None = None,
    cache: DecodedImageCache | None = None,
) -> ArrayDataset:
    """The arrays of `config`, in the dataset's preprocessed folder.

    content_hash: of the raw data; by default the one in fingerprint.json. Arrays with the same hash and configuration are
    reused if their content is what was written: damaged ones are made again, with a note.
    Threads read a few cases at a time. cache: decoded images and masks; it decodes the missing ones. Raises
    AutosegError that names the case that failed; nothing half-written is left behind.
    """
    if content_hash is None:
        remedy = "run autoseg_plan_and_preprocess"
        content_hash = read_artefact(dataset.fingerprint, Fingerprint, remedy).content_hash
    folder = dataset.array_folder(config.key)
    expected_hash = preprocessing_hash(config, content_hash)
    arrays = _open_if_current(folder, expected_hash)
    if arrays is not None:
        return arrays
    with array_writer(folder, config, content_hash, raw.scheme.ignore) as writer:
        preprocessed_cases = parallel_map(lambda case: _preprocess_case(case, config, cache), raw.cases, workers)
        for case in progress_bar(preprocessed_cases, f"preprocessing {config.key}", len(raw.cases)):
            writer.add(case.name, case.image, case.label, case.original_size)
    return ArrayDataset.open(folder, expected_hash)


def _open_if_current(folder: Path, expected_hash: str) -> ArrayDataset | None:
    if not folder.exists():
        return None
    try:
        return ArrayDataset.open(folder, expected_hash, verify=True)
    except OutdatedArrays:
        return None
    except AutosegError as error:
        logger.warning(f"{error.problem}: it is made again")
        return None


def _preprocess_case(case: Case, config: PreprocessingConfig, cache: DecodedImageCache | None) -> _PreprocessedCase:
    try:
        if case.label is None:
            raise AutosegError("it has no label map", "add one to labelsTr, or remove the image from imagesTr")
        image = cache.image(case.images) if cache else read_case(case.images)
        label = cache.label(case.label) if cache else read_label(case.label)
        label = align(label, image, case.label, case.images[0])
        original_size = (int(image.array.shape[1]), int(image.array.shape[2]))
        if label.array.shape != original_size:
            raise AutosegError(
                f"the image is {original_size[0]}x{original_size[1]}, "
                f"its label map {label.array.shape[0]}x{label.array.shape[1]}",
                "they must have the same size",
            )
        return _PreprocessedCase(
            case.name,
            preprocess_image(image.array, config, image.spacing),
            preprocess_label(label.array, config, image.spacing),
            original_size,
        )
    except AutosegError as error:
        raise AutosegError(f"case {case.name}: {error.problem}", error.remedy) from error
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise AutosegError(f"case {case.name} is too large for the memory of this machine", REMEDY) from error
