"""Batches for one training run, made ahead in threads. The same batch comes out whatever the number of threads."""

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

# One core makes several hundred images a second: more threads than this only take turns.
_MOST_WORKERS = 8


@dataclass(frozen=True)
class Batch:
    """images: (B, C, H, W) stored values, uint8 as uint8, all else as float32 (torch can do little with uint16).

    labels: (B, H, W) uint8. statistics: (B, 2, C), mean and deviation of the images the windows were cut from, for
    `preprocessing.normalise.normalise`; None where normalisation does not look at the image. cases: whose they are.
    """

    images: Tensor
    labels: Tensor
    statistics: Tensor | None
    cases: tuple[str, ...]


class SampleError(RuntimeError):
    """A sample could not be made, by a fault of ours; the message names the case, the cause is chained."""


class TrainLoader:
    """Batches of `model_plan.batch_size` windows of `model_plan.input_size`; see `Sampler` for what comes when.

    workers: threads; by default one less than the cores this process may use. pin: put batches where copies to a GPU
    need not wait. samples: those of a batch to make, None for all. Errors of a worker are raised in the loop that takes the
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
        self._workers = workers or max(1, min(_MOST_WORKERS, available_cores() - 1))
        self._pin = pin
        self._statistics: dict[str, Tensor] = {}
        learned = set(scheme.values) - {0, scheme.ignore}
        foreground = {
            case: {value: pixels for value, pixels in store.foreground(case).items() if value in learned} for case in cases
        }
        whole = all(store.shape(case)[:2] == self._size for case in cases)
        self.sampler = Sampler(cases, foreground, model_plan.batch_size, training.foreground_share, whole, seed)

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
        marks = torch.from_numpy(np.stack(labels))
        statistics = None
        if self._normalisation.scheme == "image":
            statistics = torch.stack([self._statistics_of(case) for case in cases])
        if self._pin:
            images, marks = images.pin_memory(), marks.pin_memory()
        return Batch(images, marks, statistics, cases)

    def _sample(self, order: NDArray[np.intp], epoch: int, step: int, sample: int) -> tuple[str, Array, Array]:
        random = generator(self._seed, epoch, step, sample)
        draw = self.sampler.draw(order, step, sample, random)
        try:
            image, label = self._store.image(draw.case), self._store.label(draw.case)
            centre = draw.centre or (None, None)
            corner = (
                window_start(image.shape[0], self._size[0], centre[0], random),
                window_start(image.shape[1], self._size[1], centre[1], random),
            )
            pixels, labels = self._chain(image, label, corner, self._size, self._settings, random)
        except AutosegError as error:
            raise AutosegError(f"case {draw.case}: {error.problem}", error.remedy) from error
        except OSError as error:
            raise AutosegError(
                f"case {draw.case}: its prepared arrays in {self._store.folder} cannot be read: {error}",
                "run autoseg_plan_and_preprocess again",
            ) from error
        except Exception as error:
            raise SampleError(f"case {draw.case} (epoch {epoch}, step {step}): {type(error).__name__}: {error}") from error
        return draw.case, pixels, labels

    def _statistics_of(self, case: str) -> Tensor:
        """(2, C) of the image as stored. Two threads may both compute one; they get the same."""
        if case not in self._statistics:
            self._statistics[case] = image_statistics(_to_tensor([self._store.image(case)]), self._normalisation)[0]
        return self._statistics[case]


def _to_tensor(images: Sequence[Array]) -> Tensor:
    """(h, w, C) arrays to (B, C, h, w), contiguous: channels-last tensors were measured slower on processors."""
    height, width, channels = images[0].shape
    dtype = np.uint8 if images[0].dtype == np.uint8 else np.float32
    stacked = np.empty((len(images), channels, height, width), dtype)
    for target, image in zip(stacked, images, strict=True):
        # Written into the given planes; several times faster than NumPy's copies of strided views.
        cv2.split(image.astype(dtype, copy=False), list(target))
    return torch.from_numpy(stacked)
