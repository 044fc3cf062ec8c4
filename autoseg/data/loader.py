"""Batches for one training run, made ahead. The same batch comes out whatever the number and kind of workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data import Sampler as TorchSampler

from autoseg.data.sampling import VIEW_STREAM, Sample, Sampler, generator, window_start
from autoseg.preprocessing.array_dataset import ArrayDataset
from autoseg.preprocessing.normalise import image_statistics
from autoseg.schema.dataset import LabelScheme
from autoseg.schema.plan import Augmentation, ModelPlan, Training
from autoseg.support.errors import AutosegError
from autoseg.support.extensions import AUGMENTATIONS
from autoseg.support.parallel import available_cores, parallel_map, process_context, set_up_worker

Array = NDArray[Any]
Chain = Callable[[Array, Array, tuple[int, int], tuple[int, int], Augmentation, np.random.Generator], tuple[Array, Array]]

_WITHOUT_AUGMENTATION = Augmentation(
    mirror=(), p_rotation=0, p_scaling=0, p_noise=0, p_blur=0, p_brightness=0, p_contrast=0, p_low_resolution=0, p_gamma=0
)
# One core prepares several hundred images per second: more threads do not help.
_MAX_WORKERS = 8
# With this many cores, worker processes were measured to be faster than threads, which share one interpreter lock.
_MIN_PROCESS_CORES = 4


def use_processes(device_type: str, cores: int) -> bool:
    """Whether worker processes make the batches: for a GPU. A CPU needs its cores for the network."""
    return device_type == "cuda" and cores >= _MIN_PROCESS_CORES


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

    def pin_memory(self) -> Batch:
        """The batch in memory from which copies to a GPU need not wait."""
        statistics = None if self.statistics is None else self.statistics.pin_memory()
        return Batch(self.images.pin_memory(), self.labels.pin_memory(), statistics, self.cases)


@dataclass(frozen=True)
class EncodedBatch(Batch):
    """maps: (B, C, h, w) each, what a frozen encoder gives for the images."""

    maps: tuple[Tensor, ...]


class SampleError(RuntimeError):
    """An internal error while making a sample. The message names the case; the cause is chained."""


class BatchMaker(Dataset[Any]):
    """Makes batches of `model_plan.batch_size` windows of `model_plan.input_size`; see `Sampler` for what comes when.

    samples: those of a batch to make, None for all. A worker process makes its own from the same arguments, so that
    memory-mapped arrays are opened there and not sent.
    """

    def __init__(
        self,
        store: ArrayDataset,
        cases: Sequence[str],
        model_plan: ModelPlan,
        training: Training,
        scheme: LabelScheme,
        seed: int,
        samples: Sequence[int] | None = None,
    ) -> None:
        self._in_worker = partial(
            BatchMaker, store, cases, model_plan=model_plan, training=training, scheme=scheme, seed=seed, samples=samples
        )
        self._samples = range(model_plan.batch_size) if samples is None else samples
        self._store = store
        self._size = model_plan.input_size
        self._normalisation = model_plan.normalisation
        self._settings = training.augmentation
        self._chain: Chain = AUGMENTATIONS.get(training.augmentation.chain)
        self._seed = seed
        self._statistics: dict[str, Tensor] = {}
        self._order: tuple[int, NDArray[np.intp]] | None = None
        class_values = set(scheme.values) - {0, scheme.ignore}
        foreground = {
            case: {value: pixels for value, pixels in store.foreground(case).items() if value in class_values} for case in cases
        }
        whole_images = all(store.shape(case)[:2] == self._size for case in cases)
        self.sampler = Sampler(cases, foreground, model_plan.batch_size, training.foreground_share, whole_images, seed)

    def __reduce__(self) -> tuple[partial[BatchMaker], tuple[()]]:
        return self._in_worker, ()

    def __call__(self, place: tuple[int, int]) -> Batch:
        """The batch at (epoch, step)."""
        epoch, step = place
        known = self._order
        if known is None or known[0] != epoch:
            # Threads may both compute it; they get the same.
            known = self._order = epoch, self.sampler.order(epoch)
        samples = [self._sample(known[1], epoch, step, sample) for sample in self._samples]
        return self._batch(samples)

    def views(self, items: Sequence[tuple[str, int]]) -> Batch:
        """Fixed windows, one for each (case, number), the same in every epoch. Number 0 is not augmented."""
        return self._batch([self._view(case, number) for case, number in items])

    def statistics(self, cases: Sequence[str]) -> Tensor | None:
        """(B, 2, C) of whole images, None if normalisation does not depend on the image."""
        if self._normalisation.scheme != "image":
            return None
        return torch.stack([self._statistics_of(case) for case in cases])

    def _batch(self, samples: Sequence[tuple[str, Array, Array]]) -> Batch:
        cases, pixels, labels = zip(*samples, strict=True)
        return Batch(_to_tensor(pixels), torch.from_numpy(np.stack(labels)), self.statistics(cases), cases)

    def __getitem__(self, place: tuple[int, int]) -> Batch | Exception:
        """As `torch.utils.data` asks for it. Errors are results: the worker would otherwise turn them into text."""
        try:
            return self(place)
        except Exception as error:
            return error

    def _sample(self, order: NDArray[np.intp], epoch: int, step: int, sample: int) -> tuple[str, Array, Array]:
        random = generator(self._seed, epoch, step, sample)
        drawn = self.sampler.draw(order, step, sample, random)
        return self._window(drawn, self._settings, random, f"epoch {epoch}, step {step}")

    def _view(self, case: str, number: int) -> tuple[str, Array, Array]:
        random = generator(self._seed, number, self._store.cases.index(case), 0, VIEW_STREAM)
        settings = self._settings if number else _WITHOUT_AUGMENTATION
        return self._window(self.sampler.view(case, number, random), settings, random, f"view {number}")

    def _window(
        self, drawn: Sample, settings: Augmentation, random: np.random.Generator, place: str
    ) -> tuple[str, Array, Array]:
        try:
            image, label = self._store.image(drawn.case), self._store.label(drawn.case)
            centre = drawn.centre or (None, None)
            corner = (
                window_start(image.shape[0], self._size[0], centre[0], random),
                window_start(image.shape[1], self._size[1], centre[1], random),
            )
            pixels, labels = self._chain(image, label, corner, self._size, settings, random)
        except AutosegError as error:
            raise AutosegError(f"case {drawn.case}: {error.problem}", error.remedy) from error
        except OSError as error:
            raise AutosegError(
                f"case {drawn.case}: its preprocessed arrays in {self._store.folder} cannot be read: {error}",
                "run autoseg_plan_and_preprocess again",
            ) from error
        except Exception as error:
            raise SampleError(f"case {drawn.case} ({place}): {type(error).__name__}: {error}") from error
        return drawn.case, pixels, labels

    def _statistics_of(self, case: str) -> Tensor:
        """(2, C) of the stored image. Two threads may compute it at the same time, with the same result."""
        if case not in self._statistics:
            self._statistics[case] = image_statistics(_to_tensor([self._store.image(case)]), self._normalisation)[0]
        return self._statistics[case]


class TrainLoader:
    """The batches of a training, made ahead by threads or worker processes; see `BatchMaker` for the other arguments.

    workers: by default one less than the cores this process may use. processes: worker processes instead of threads. They
    do not wait for each other, but each takes memory, and starts only where the main program can be imported again. pin:
    put batches where copies to a GPU need not wait. The batches are the same in any case. Errors of a worker are raised in
    the loop that takes the batches, with the case's name.
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
        processes: bool = False,
    ) -> None:
        self._make = BatchMaker(
            store, cases, model_plan=model_plan, training=training, scheme=scheme, seed=seed, samples=samples
        )
        self._workers = workers or max(1, min(_MAX_WORKERS, available_cores() - 1))
        self._pin = pin
        self._places = _Places()
        self._pool = _process_pool(self._make, self._places, self._workers) if processes else None

    @property
    def sampler(self) -> Sampler:
        return self._make.sampler

    @property
    def steps_per_epoch(self) -> int:
        return self.sampler.steps_per_epoch

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from `first_step` on. Close the iterator to stop early."""
        places = [(epoch, step) for step in range(first_step, self.steps_per_epoch)]
        if self._pool is None:
            return parallel_map(self._pinned, places, min(self._workers, max(1, len(places))))
        return self._from_processes(self._pool, places)

    def _pinned(self, place: tuple[int, int]) -> Batch:
        batch = self._make(place)
        return batch.pin_memory() if self._pin else batch

    def _from_processes(self, pool: DataLoader[Any], places: list[tuple[int, int]]) -> Iterator[Batch]:
        self._places.places = places
        for batch in pool:
            if isinstance(batch, Exception):
                raise batch
            yield batch.pin_memory() if self._pin else batch


class _Places(TorchSampler[tuple[int, int]]):
    """The places of the current epoch: worker processes live longer than an epoch."""

    def __init__(self) -> None:
        self.places: list[tuple[int, int]] = []

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self.places)


def _process_pool(make: BatchMaker, places: _Places, workers: int) -> DataLoader[Any]:
    return DataLoader(
        make, batch_size=None, sampler=places, num_workers=workers, prefetch_factor=2, persistent_workers=True,
        multiprocessing_context=process_context(__name__), worker_init_fn=set_up_worker,
    )  # fmt: skip


def _to_tensor(images: Sequence[Array]) -> Tensor:
    """(h, w, C) arrays to (B, C, h, w), contiguous: channels-last batches were measured to be slower on CPUs."""
    height, width, channels = images[0].shape
    dtype = np.uint8 if images[0].dtype == np.uint8 else np.float32
    stacked = np.empty((len(images), channels, height, width), dtype)
    for target, image in zip(stacked, images, strict=True):
        # Writes into the planes of `target`: several times faster than NumPy's copies of strided views.
        cv2.split(image.astype(dtype, copy=False), list(target))
    return torch.from_numpy(stacked)
