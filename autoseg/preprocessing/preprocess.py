"""The array store of one preparation, from the raw dataset: reused where it is still right, else made anew."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from autoseg.io.cache import DecodedImageCache
from autoseg.io.files import read_case, read_label
from autoseg.io.raw_dataset import Case, RawDataset
from autoseg.preprocessing.array_dataset import ArrayDataset, identity, writing
from autoseg.preprocessing.transform import prepare_label, preprocess_image
from autoseg.schema.fingerprint import Fingerprint
from autoseg.schema.plan import PreprocessingConfig
from autoseg.support.errors import AutosegError
from autoseg.support.files import read_artefact
from autoseg.support.log import progress_bar
from autoseg.support.parallel import parallel_map
from autoseg.support.workspace import Dataset


@dataclass(frozen=True)
class _Prepared:
    name: str
    image: NDArray[Any]
    label: NDArray[Any]
    before: tuple[int, int]


def preprocess_dataset(
    dataset: Dataset,
    raw: RawDataset,
    preparation: PreprocessingConfig,
    workers: int | None = None,
    content_hash: str | None = None,
    kept: DecodedImageCache | None = None,
) -> ArrayDataset:
    """The store of `preparation` under the dataset's preprocessed folder.

    content_hash: of the raw data; by default the one in fingerprint.json. A store with the same hash and preparation is
    reused. Cases are read side by side in threads, a few at a time. Raises AutosegError naming the case that failed;
    nothing half-written is left behind. kept: may hold the cases already, and reads those it does not.
    """
    if content_hash is None:
        remedy = "run autoseg_plan_and_preprocess"
        content_hash = read_artefact(dataset.fingerprint, Fingerprint, remedy).content_hash
    folder = dataset.store(preparation.key)
    wanted = identity(preparation, content_hash)
    present = _usable(folder, wanted)
    if present is not None:
        return present
    with writing(folder, preparation, content_hash, raw.scheme.ignore) as writer:
        prepared = parallel_map(lambda case: _prepare(case, preparation, kept), raw.cases, workers)
        for one in progress_bar(prepared, f"preparing {preparation.key}", len(raw.cases)):
            writer.add(one.name, one.image, one.label, one.before)
    return ArrayDataset.open(folder, wanted)


def _usable(folder: Path, wanted: str) -> ArrayDataset | None:
    if not folder.exists():
        return None
    try:
        return ArrayDataset.open(folder, wanted)
    except AutosegError:
        # Stale or broken: it is made anew.
        return None


def _prepare(case: Case, preparation: PreprocessingConfig, kept: DecodedImageCache | None) -> _Prepared:
    try:
        if case.label is None:
            raise AutosegError("it has no label map", "put one into labelsTr, or take the image out of imagesTr")
        image = kept.image(case.images) if kept else read_case(case.images)
        label = kept.label(case.label) if kept else read_label(case.label)
        before = (int(image.array.shape[1]), int(image.array.shape[2]))
        if label.array.shape != before:
            raise AutosegError(
                f"the image is {before[0]}x{before[1]}, its label map {label.array.shape[0]}x{label.array.shape[1]}",
                "they must have the same size",
            )
        return _Prepared(
            case.name,
            preprocess_image(image.array, preparation, image.spacing),
            prepare_label(label.array, preparation, image.spacing),
            before,
        )
    except AutosegError as error:
        raise AutosegError(f"case {case.name}: {error.problem}", error.remedy) from error
