"""Trained folds as one callable: an array in, a label map out."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autoseg.inference import resample_to_original
from autoseg.inference.engine import Engine
from autoseg.inference.precision import for_prediction
from autoseg.prediction import ood_detection, postprocess
from autoseg.prediction.confidence import MemberPrediction, assess, member_prediction
from autoseg.prediction.inference_metadata import InferenceMetadata, read_inference_metadata
from autoseg.preprocessing.transform import image_window, preprocess_image
from autoseg.schema.dataset import DatasetSpec, LabelScheme
from autoseg.schema.plan import PreprocessingConfig
from autoseg.schema.prediction import Confidence, PostProcessing
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.workspace import Dataset, Workspace, fold_folders, model_folder_name, model_of_folder, seed_of_folder
from autoseg.training.checkpoint import Trained, load_network
from autoseg.training.device import resolve

logger = logging.getLogger(__name__)

Array = NDArray[Any]
Spacing = tuple[float, float] | None


@dataclass(frozen=True)
class Prepared:
    """One image, preprocessed once for each distinct preprocessing of the members. size: (H, W) of the original.

    arrays: (h, w, C) each. measured: see `ood_detection.measure`.
    """

    arrays: tuple[Array, ...]
    size: tuple[int, int]
    measured: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Inferred:
    """The members' output for one image. maps: mean probabilities (K, h, w), at the first member's input size.

    members: the prediction of each member; empty if there is only one.
    """

    maps: Tensor
    members: tuple[MemberPrediction, ...] = ()


class EnsembleAccumulator:
    """Sums the probabilities of several members for one image; memory does not grow with their number."""

    def __init__(self, scheme: LabelScheme, members: int) -> None:
        self._scheme = scheme
        self._num_members = members
        self._total: Tensor | None = None
        self._predictions: list[MemberPrediction] = []

    def add(self, maps: Tensor) -> None:
        """Add one member's probabilities (K, h, w), resized to the first member's."""
        if self._total is not None:
            size = (self._total.shape[1], self._total.shape[2])
            maps = torch.from_numpy(resample_to_original.resize(maps, size))
        if self._num_members > 1:
            self._predictions.append(member_prediction(maps, self._scheme))
        if self._total is None:
            self._total = maps if self._num_members == 1 else maps.clone()
        else:
            self._total += maps

    def finish(self) -> Inferred:
        """The mean. Call after all members were added."""
        assert self._total is not None
        mean = self._total if self._num_members == 1 else self._total / self._num_members
        return Inferred(mean, tuple(self._predictions))


@dataclass(frozen=True)
class PredictionWithConfidence:
    """A mask with confidence and warnings. labels: (H, W). pixels: class -> area in pixels."""

    labels: Array
    pixels: dict[str, int]
    confidence: Confidence
    warnings: tuple[str, ...]


class Predictor:
    """Averages the probabilities of one or several trained networks.

    The networks stay loaded. Probabilities of at most two of them are in memory. streams_large_images: whether `large_image`
    can read an image in bands.
    """

    streams_large_images = True

    def __init__(
        self,
        members: Sequence[Trained],
        device: torch.device | str = "cpu",
        tta: bool | None = None,
        metadata: InferenceMetadata | None = None,
    ) -> None:
        """members: from `load_network`, on `device`. tta: average over the mirrored views of training (None: as
        the plans say).

        metadata: appearance of the training images, calibration, post-processing. Raises AutosegError if the members were
        trained for different labels or channels.
        """
        assert members
        first = members[0]
        for other in members[1:]:
            if (other.scheme, other.plan.channels) != (first.scheme, first.plan.channels):
                raise AutosegError(
                    f"{_title(other)} and {_title(first)} were trained for different labels or channels",
                    "average only networks trained on one dataset",
                )
        self.members = tuple(members)
        self.metadata = metadata or InferenceMetadata()
        self.device = torch.device(device)
        self.mirror = _mirror(first, tta)
        configs = dict.fromkeys(member.preprocessing for member in members)
        self.preprocessing_configs: tuple[PreprocessingConfig, ...] = tuple(configs)
        self.engines = [
            (
                Engine(
                    member.network,
                    member.model_plan,
                    member.preprocessing,
                    member.scheme,
                    self.device,
                    _mirror(member, tta),
                    activation=member.activation,
                    precision=for_prediction(member.model_plan.precision, self.device),
                ),
                self.preprocessing_configs.index(member.preprocessing),
            )
            for member in members
        ]

    @classmethod
    def load(
        cls,
        dataset: str | int | Path | Dataset,
        models: str | Sequence[str],
        folds: Sequence[int] | None = None,
        *,
        device: str = "auto",
        tta: bool | None = None,
        which: str = "best",
        root: str | Path | None = None,
        postprocessing: Mapping[str, PostProcessing] | None = None,
    ) -> Predictor:
        """Trained folds of one or several models, all of them by default.

        dataset: its id, name or both, or the path of a results folder. which: "best" or "last" weights. root: see
        `Workspace.at`. postprocessing: class -> post-processing of its mask. Raises AutosegError that names the folds
        that are not trained.
        """
        folders = []
        for model in dict.fromkeys([models] if isinstance(models, str) else models):
            folders += _chosen_folds(trained_folds(model_folder(dataset, model, root), which), dataset, model, folds)
        torch_device = resolve(device)
        members = [load_network(folder, which, str(torch_device)) for folder in folders]
        for member in members:
            if member.record.status != "finished":
                done = f"{member.record.epochs_done} of {member.record.epochs_planned} epochs"
                logger.warning(f"{_title(member)} is not finished ({done})")
        return cls(members, torch_device, tta, read_inference_metadata(folders, members, postprocessing or {}))

    @property
    def dataset(self) -> str:
        """Name of the dataset the networks were trained on."""
        return self.members[0].record.dataset

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(member.record.model for member in self.members))

    @property
    def folds(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys(member.record.fold for member in self.members))

    @property
    def identities(self) -> dict[str, str]:
        """Member -> hash of everything that determines its weights."""
        return {f"{one.record.model}/fold_{one.record.fold}": one.record.identity for one in self.members}

    @property
    def precision(self) -> str:
        """The precision that the networks are computed in; see `inference.precision.for_prediction`."""
        return " and ".join(dict.fromkeys(for_prediction(one.model_plan.precision, self.device) for one in self.members))

    @property
    def scheme(self) -> LabelScheme:
        """Names and values of the labels."""
        return self.members[0].scheme

    @property
    def spec(self) -> DatasetSpec:
        """The description of the dataset the networks were trained on."""
        return self.members[0].spec

    @property
    def channels(self) -> int:
        """Number of channels of an image."""
        return self.members[0].plan.channels

    @property
    def batch_size(self) -> int:
        """Items (images, or tiles of large images) the network takes at once."""
        return min(engine.batch_size for engine, _ in self.engines)

    def __call__(self, image: Array, spacing: Spacing = None) -> Array:
        """The label map (H, W) of an image (C, H, W), (H, W, C) or (H, W).

        spacing: (row, column) in mm, needed if the plan resamples to a spacing. Colours are RGB. Raises AutosegError if the
        image does not match the training images.
        """
        prepared = self.prepare(image, spacing)
        return self.label_map(self.average([prepared])[0], prepared.size)

    def probabilities(self, image: Array, spacing: Spacing = None) -> NDArray[np.float32]:
        """Probabilities (K, H, W) float32 of an image, at its own size; one map for each name of `scheme.names`."""
        prepared = self.prepare(image, spacing)
        return resample_to_original.resize(self.average([prepared])[0], prepared.size)

    def predict_with_confidence(self, image: Array, spacing: Spacing = None) -> PredictionWithConfidence:
        """The label map of an image with its confidence and warnings; see `__call__`."""
        prepared = self.prepare(image, spacing)
        inferred = self.infer([prepared])[0]
        return self.assess(prepared, inferred, self.label_map(inferred.maps, prepared.size))

    def assess(self, prepared: Prepared, inferred: Inferred, labels: Array) -> PredictionWithConfidence:
        """Add confidence and warnings to a label map made from `prepared` and `inferred`."""
        confidence = assess(inferred.maps, inferred.members, self.scheme, self.metadata.calibration)
        return self.with_warnings(labels, confidence, prepared.measured)

    def with_warnings(self, labels: Array, confidence: Confidence, measured: Mapping[str, float]) -> PredictionWithConfidence:
        """Add areas and warnings to a label map with its confidence. measured: see `ood_detection.measure`; may be empty."""
        highest = max(self.scheme.values)
        areas = np.zeros(highest + 1, np.int64)
        for band in _in_bands(labels):
            areas += np.bincount(band.ravel(), minlength=highest + 1)
        pixels = {name: int(areas[list(member)].sum()) for name, member in self.scheme.foreground.items()}
        return PredictionWithConfidence(labels, pixels, confidence, self.metadata.warnings(measured, pixels, confidence))

    def prepare(self, image: Array, spacing: Spacing = None) -> Prepared:
        """Preprocess an image (C, H, W), (H, W, C) or (H, W) for the networks."""
        planes = channels_first(np.asarray(image), self.channels)
        dtype = self.preprocessing_configs[0].dtype
        if planes.dtype.kind == "f" and dtype == "uint8" and planes.size and planes.min() >= 0 and planes.max() <= 1:
            raise AutosegError("the image has values 0..1, the training images 0..255", "multiply it by 255")
        arrays = tuple(preprocess_image(planes, preprocessing, spacing) for preprocessing in self.preprocessing_configs)
        size = (planes.shape[1], planes.shape[2])
        if self.metadata.appearance is None:
            return Prepared(arrays, size)
        # Gray arrays no longer show whether the original had colour.
        colour = ood_detection.colourfulness(planes) if arrays[0].shape[2] == 1 else None
        return Prepared(arrays, size, ood_detection.measure(arrays[0], size, spacing, colour))

    def num_batch_items(self, prepared: Prepared) -> int:
        """Number of batch items an image needs; see `batch_size`."""
        return max(engine.num_batch_items(prepared.arrays[index]) for engine, index in self.engines)

    def average(self, prepared: Sequence[Prepared]) -> list[Tensor]:
        """Mean probabilities (K, h, w) of each image, at the first member's input size."""
        return [inferred.maps for inferred in self.infer(prepared)]

    def infer(self, prepared: Sequence[Prepared]) -> list[Inferred]:
        """Run the members on each image, one after the other. Only the sum of their probabilities is in memory."""
        ensembles = [EnsembleAccumulator(self.scheme, len(self.engines)) for _ in prepared]
        for engine, index in self.engines:
            maps = engine.probabilities([image.arrays[index] for image in prepared])
            for ensemble, image, map_ in zip(ensembles, prepared, maps, strict=True):
                ensemble.add(without_padding(map_, image.size, engine.preprocessing))
        return [ensemble.finish() for ensemble in ensembles]

    def label_map(self, probabilities: Tensor, size: tuple[int, int]) -> Array:
        """Label map (H, W) of `size` from probabilities (K, h, w), after post-processing."""
        labels = resample_to_original.label_map(probabilities, self.scheme, size)
        return postprocess.apply(labels, self.scheme, self.metadata.postprocessing)


def without_padding(maps: Tensor, size: tuple[int, int], preprocessing: PreprocessingConfig) -> Tensor:
    """Probabilities (K, h, w) of an image of `size` itself, without what was padded around it."""
    if not preprocessing.pad:
        return maps
    rows, columns = image_window(size, preprocessing)
    return maps[:, rows, columns].contiguous()


def trained_folds(folder: Path, which: str = "best") -> dict[int, Path]:
    """Fold -> folder, for all folds with weights in a model's results folder."""
    return {fold: path for fold, path in fold_folders(folder).items() if (path / f"{which}.pt").is_file()}


def trained_models(results: Path, which: str = "best") -> tuple[str, ...]:
    """Names of the models with a trained fold in a dataset's results folder, sorted; without trainings of further seeds."""
    folders = sorted(path for path in results.iterdir() if path.is_dir()) if results.is_dir() else []
    folders = [folder for folder in folders if seed_of_folder(folder.name) is None]
    return tuple(sorted(model_of_folder(folder.name) for folder in folders if trained_folds(folder, which)))


def channels_first(image: Array, channels: int) -> Array:
    """(C, H, W) from (C, H, W), (H, W, C) or (H, W). Raises AutosegError if the axes are ambiguous.

    Gray for colour and colour for gray are accepted (see `preprocess_image`), so 1 and 3 channels pass too.
    """
    if image.ndim == 2:
        return image[None]
    if image.ndim == 3:
        for accepted in ({channels}, {1, 3} if channels in (1, 3) else set()):
            first, last = image.shape[0] in accepted, image.shape[2] in accepted
            if first and last:
                break
            if first or last:
                return image if first else np.moveaxis(image, 2, 0)
    raise AutosegError(
        f"an array of shape {image.shape} is not clearly an image of {channels} channel{'s' if channels > 1 else ''}",
        "give (channels, rows, columns), (rows, columns, channels) or, for gray images, (rows, columns)",
    )


def model_folder(dataset: str | int | Path | Dataset, model: str, root: str | Path | None) -> Path:
    """The results folder of a model. dataset: as for `Predictor.load`."""
    if isinstance(dataset, Dataset):
        return dataset.model(model)
    if isinstance(dataset, Path):
        if not dataset.is_dir():
            raise AutosegError(f"there is no results folder {dataset}", "give the folder that contains the models' folders")
        folder = model_folder_name(model)
        return dataset if dataset.name == folder else dataset / folder
    return Workspace.at(root).dataset(dataset).model(model)


def _chosen_folds(trained: Mapping[int, Path], dataset: object, model: str, folds: Sequence[int] | None) -> list[Path]:
    if not trained:
        raise AutosegError(f"{model} has no trained fold for {dataset}", f"autoseg_train {dataset} {model} all")
    chosen = sorted(trained) if folds is None else list(dict.fromkeys(folds))
    missing = [f"fold {fold}" for fold in chosen if fold not in trained]
    if missing:
        raise SeveralProblems(
            f"these folds of {model} are not trained:", missing, f"trained: {', '.join(map(str, sorted(trained)))}"
        )
    return [trained[fold] for fold in chosen]


def _in_bands(labels: Array) -> Iterator[Array]:
    """Bands of a label map: np.bincount converts its input to int64, so pass it in parts."""
    return (labels[start : start + 2048] for start in range(0, len(labels), 2048))


def _mirror(member: Trained, tta: bool | None) -> tuple[int, ...]:
    """Axes of the mirrored views."""
    training = member.plan.training
    return tuple(training.augmentation.mirror) if (training.tta if tta is None else tta) else ()


def _title(member: Trained) -> str:
    return f"fold {member.record.fold} of {member.record.model}"
