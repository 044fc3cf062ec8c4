"""Batches of one training run, prefetched in threads. Batches do not depend on the number of threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autoseg.data.sampling import Sampler, generator, window_start
from autoseg.preprocessing.array_dataset import ArrayDataset
from autoseg.preprocessing.normalise import image_statistics
from autoseg.schema.dataset import LabelScheme
from autoseg.schema.plan import Augmentation, ModelPlan, Training
from autoseg.support.errors import AutosegError
from autoseg.support.extensions import AUGMENTATIONS
from autoseg.support.parallel import available_cores, parallel_map

Array = NDArray[Any]
Chain = Callable[[Array, Array, tuple[int, int], tuple[int, int], Augmentation, np.random.Generator], tuple[Array, Array]]

# One core prepares several hundred images per second: more threads do not help.
_MAX_WORKERS = 8


@dataclass(frozen=True)
class Batch:
    """images: (B, C, H, W) stored values, uint8 or float32 (torch supports few operations on uint16).

    labels: (B, H, W) uint8. statistics: (B, 2, C), mean and standard deviation of the whole images, for
    `preprocessing.normalise.normalise`; None if normalisation does not depend on the image. cases: name of each item's case.
    """

    images: Tensor
    labels: Tensor
    statistics: Tensor | None
    cases: tuple[str, ...]


class SampleError(RuntimeError):
    """An internal error while making a sample. The message names the case; the cause is chained."""


class TrainLoader:
    """Batches of `model_plan.batch_size` windows of `model_plan.input_size`; `Sampler` defines their order.

    workers: threads; default: one less than the available cores. pin: pin memory, for asynchronous copies to a GPU.
    samples: indices of the batch's samples to make, None for all. Errors of a worker are raised in the loop over the
    batches, with the case's name.
    """

    def __init__(
        self,
        store: ArrayDataset,
        cases: Sequence[str],
        model_plan: ModelPlan,
        training: Training,
        scheme: LabelScheme,
        seed: int,
        workers: int | None = None,
        pin: bool = False,
        samples: Sequence[int] | None = None,
    ) -> None:
        self._samples = range(model_plan.batch_size) if samples is None else samples
        self._store = store
        self._size = model_plan.input_size
        self._normalisation = model_plan.normalisation
        self._settings = training.augmentation
        self._chain: Chain = AUGMENTATIONS.get(training.augmentation.chain)
        self._seed = seed
        self._workers = workers or max(1, min(_MAX_WORKERS, available_cores() - 1))
        self._pin = pin
        self._statistics: dict[str, Tensor] = {}
        class_values = set(scheme.values) - {0, scheme.ignore}
        foreground = {
            case: {value: pixels for value, pixels in store.foreground(case).items() if value in class_values} for case in cases
        }
        whole_images = all(store.shape(case)[:2] == self._size for case in cases)
        self.sampler = Sampler(cases, foreground, model_plan.batch_size, training.foreground_share, whole_images, seed)

    @property
    def steps_per_epoch(self) -> int:
        return self.sampler.steps_per_epoch

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from `first_step` on. Close the iterator to stop early."""
        order = self.sampler.order(epoch)
        steps = range(first_step, self.steps_per_epoch)
        return parallel_map(lambda step: self._batch(order, epoch, step), steps, min(self._workers, max(1, len(steps))))

    def _batch(self, order: NDArray[np.intp], epoch: int, step: int) -> Batch:
        samples = [self._sample(order, epoch, step, sample) for sample in self._samples]
        cases, pixels, labels = zip(*samples, strict=True)
        images = _to_tensor(pixels)
        label_maps = torch.from_numpy(np.stack(labels))
        statistics = None
        if self._normalisation.scheme == "image":
            statistics = torch.stack([self._statistics_of(case) for case in cases])
        if self._pin:
            images, label_maps = images.pin_memory(), label_maps.pin_memory()
        return Batch(images, label_maps, statistics, cases)

    def _sample(self, order: NDArray[np.intp], epoch: int, step: int, sample: int) -> tuple[str, Array, Array]:
        random = generator(self._seed, epoch, step, sample)
        drawn = self.sampler.draw(order, step, sample, random)
        try:
            image, label = self._store.image(drawn.case), self._store.label(drawn.case)
            centre = drawn.centre or (None, None)
            corner = (
                window_start(image.shape[0], self._size[0], centre[0], random),
                window_start(image.shape[1], self._size[1], centre[1], random),
            )
            pixels, labels = self._chain(image, label, corner, self._size, self._settings, random)
        except AutosegError as error:
            raise AutosegError(f"case {drawn.case}: {error.problem}", error.remedy) from error
        except OSError as error:
            raise AutosegError(
                f"case {drawn.case}: its preprocessed arrays in {self._store.folder} cannot be read: {error}",
                "run autoseg_plan_and_preprocess again",
            ) from error
        except Exception as error:
            raise SampleError(f"case {drawn.case} (epoch {epoch}, step {step}): {type(error).__name__}: {error}") from error
        return drawn.case, pixels, labels

    def _statistics_of(self, case: str) -> Tensor:
        """(2, C) of the stored image. Two threads may compute it at the same time, with the same result."""
        if case not in self._statistics:
            self._statistics[case] = image_statistics(_to_tensor([self._store.image(case)]), self._normalisation)[0]
        return self._statistics[case]


def _to_tensor(images: Sequence[Array]) -> Tensor:
    """(h, w, C) arrays to (B, C, h, w), contiguous: channels-last batches were measured to be slower on CPUs."""
    height, width, channels = images[0].shape
    dtype = np.uint8 if images[0].dtype == np.uint8 else np.float32
    stacked = np.empty((len(images), channels, height, width), dtype)
    for target, image in zip(stacked, images, strict=True):
        # Writes into the planes of `target`: several times faster than NumPy's copies of strided views.
        cv2.split(image.astype(dtype, copy=False), list(target))
    return torch.from_numpy(stacked)
