"""Predict arrays with trained networks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from autoseg.api.options import DatasetId, Folds, Models, fold_numbers, model_names
from autoseg.prediction import predictor as prediction
from autoseg.prediction.bundle import load_bundle
from autoseg.prediction.loading import BEST, load_predictor
from autoseg.support.errors import AutosegError
from autoseg.support.workspace import Root, Workspace

Mask = NDArray[np.integer[Any]]
Spacing = tuple[float, float]


class Predictor:
    """Trained networks as one callable: an array in, a label map out; a list of arrays in, a list of label maps out.

        predictor = api.Predictor.load("Polyp", "segformer")
        mask = predictor(image)

    Several networks are averaged. They stay in memory. Images are (H, W), (H, W, C) or (C, H, W), integers or floats, in RGB
    order and in the value range of the training images (0..255 for 8-bit images, not 0..1).
    """

    def __init__(self, networks: prediction.Predictor) -> None:
        """Use `load`."""
        self._networks = networks

    @classmethod
    def load(
        cls,
        source: DatasetId | Path,
        model: Models | None = None,
        folds: Folds | None = None,
        *,
        device: str = "auto",
        tta: bool | None = None,
        which: Literal["best", "last"] = "best",
        root: Root = None,
    ) -> Predictor:
        """Load trained networks of a dataset, or a bundle.

        Args:
            source: id or name of a dataset, the path of its results folder, or the path of a bundle that `export` wrote.
            model: name of a trained model, several to average, or "best" for the choice of `find_best`; None for a bundle.
            folds: numbers of the folds to average (default: all that are trained); None for a bundle.
            device: "auto", "cpu", "cuda", "cuda:1" or "mps".
            tta: average over mirrored views, slower and a little better, or not; None: as the plan says.
            which: the weights of the best or of the last epoch; a bundle holds the best.
            root: folder of raw/, preprocessed/ and results/ (default: AUTOSEG_ROOT, else ./autoseg_data).

        Returns:
            The predictor.

        Raises:
            AutosegError: nothing is trained, the bundle is damaged, or model and bundle are mixed up.
        """
        models, numbers = model_names(model), fold_numbers(folds)
        if str(source).lower().endswith(".zip"):
            if models or numbers:
                raise AutosegError(f"{source} is a bundle, which contains its networks", "leave out model and folds")
            return cls(load_bundle(Path(str(source)), device=device, tta=tta))
        if not models:
            raise AutosegError(
                f"no model of {source} given; {_trained_names(source, root)}", "give a model, or the path of a bundle"
            )
        if models == [BEST]:
            return cls(load_predictor(source, BEST, numbers, device=device, tta=tta, root=root))
        return cls(prediction.Predictor.load(source, models, numbers, device=device, tta=tta, which=which, root=root))

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, background first; names of the regions if classes overlap."""
        return self._networks.scheme.names

    @property
    def channels(self) -> int:
        """Channels C of the images. With one or three, gray and RGB images are converted."""
        return self._networks.channels

    @overload
    def __call__(self, images: Sequence[NDArray[Any]], spacing: Spacing | None = None) -> list[Mask]: ...

    @overload
    def __call__(self, images: NDArray[Any], spacing: Spacing | None = None) -> Mask: ...

    def __call__(self, images: NDArray[Any] | Sequence[NDArray[Any]], spacing: Spacing | None = None) -> Mask | list[Mask]:
        """Segment one image or a list of images.

        Args:
            images: (H, W), (H, W, C) or (C, H, W), or a list of such arrays, whose sizes may differ.
            spacing: (row, column) in mm per pixel, of all images; needed if the plan resamples by spacing.

        Returns:
            The label map (H, W), unsigned integers; for a list, a list in the same order.

        Raises:
            AutosegError: an input is not an image: a path, an empty array, a wrong type or number of axes or channels,
                or it contains NaN.
        """
        if isinstance(images, list | tuple):
            return list(
                self._masks([_validate_image(image, f"images[{index}]") for index, image in enumerate(images)], spacing)
            )
        return next(self._masks([_validate_image(images, "the image")], spacing))

    def probabilities(self, image: NDArray[Any], spacing: Spacing | None = None) -> NDArray[np.float32]:
        """Predict the probabilities of one image.

        Args:
            image: (H, W), (H, W, C) or (C, H, W).
            spacing: see `__call__`.

        Returns:
            (K, H, W) float32: one map for each of `labels`.

        Raises:
            AutosegError: see `__call__`.
        """
        return self._networks.probabilities(_validate_image(image, "the image"), spacing)

    def assess(self, image: NDArray[Any], spacing: Spacing | None = None) -> prediction.PredictionWithConfidence:
        """Segment one image, with confidence and warnings.

        Args:
            image: (H, W), (H, W, C) or (C, H, W).
            spacing: see `__call__`.

        Returns:
            The label map (H, W) with the pixels of each class, confidence and warnings.

        Raises:
            AutosegError: see `__call__`.
        """
        return self._networks.predict_with_confidence(_validate_image(image, "the image"), spacing)

    def __repr__(self) -> str:
        members = ", ".join(f"{one.record.model} fold {one.record.fold}" for one in self._networks.members)
        return f"Predictor({members}; {self.channels} channels; {', '.join(self.labels)}; {self._networks.device})"

    def _masks(self, images: Sequence[NDArray[Any]], spacing: Spacing | None) -> Iterator[Mask]:
        """Label maps of the images, predicted in batches."""
        batch: list[prediction.Prepared] = []
        items = 0
        for index, image in enumerate(images):
            try:
                batch.append(self._networks.prepare(image, spacing))
            except AutosegError as error:
                raise AutosegError(f"images[{index}]: {error.problem}", error.remedy) if len(images) > 1 else error from None
            items += self._networks.num_batch_items(batch[-1])
            if items >= self._networks.batch_size or index + 1 == len(images):
                for maps, one in zip(self._networks.average(batch), batch, strict=True):
                    yield self._networks.label_map(maps, one.size)
                batch, items = [], 0


def _validate_image(image: ArrayLike, name: str) -> NDArray[Any]:
    """The image as an array. name: of the image in error messages."""
    if isinstance(image, str | bytes | Path):
        raise AutosegError(
            f"{name} is a path, not an array: {image!r}",
            "read it first (autoseg.io.read_image), or predict files with autoseg.api.predict",
        )
    if isinstance(image, list | tuple):
        raise AutosegError(f"{name} is a {type(image).__name__}, not an array", "give arrays: numpy.asarray(...)")
    try:
        array = np.asarray(image)
    except TypeError as error:
        raise AutosegError(f"{name} cannot be read as an array: {error}", "give a numpy array") from error
    if array.dtype.kind not in "uif":
        raise AutosegError(f"{name} has type {array.dtype}, which is no image type", "give integers or floats")
    if array.ndim not in (2, 3):
        remedy = "give a list of images: list(batch)" if array.ndim == 4 else "give (H, W), (H, W, C) or (C, H, W)"
        raise AutosegError(f"{name} has {array.ndim} axes: its shape is {array.shape}", remedy)
    if not array.size:
        raise AutosegError(f"{name} is empty: its shape is {array.shape}", "give an image with pixels")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        count = int((~np.isfinite(array)).sum())
        raise AutosegError(f"{count} values of {name} are not-a-number or infinite", "replace them: numpy.nan_to_num(...)")
    return array


def _trained_names(source: DatasetId | Path, root: Root) -> str:
    results = source if isinstance(source, Path) else Workspace.at(root).dataset(source).results
    names = prediction.trained_models(results)
    return f"trained: {', '.join(names)}" if names else "none is trained"
