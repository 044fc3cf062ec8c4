"""Features of a frozen encoder, computed once for a fixed number of views of each image: the decoder then trains in seconds.

    <preprocessed>/features/<model>/<hash>/index.json     what they were made from, cases, shapes
    .../maps_0.npy, maps_1.npy, ...                       (cases x views, C, h, w) float16
    .../images.npy, labels.npy                            (cases x views, C, H, W) stored values, (..., H, W) labels
    .../done.npy                                          which items are complete

All folds and trials of a model share them. The hash is of everything they depend on: encoder weights, arrays, augmentation,
seed. Features of other hashes are removed when a training starts.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor

from autoseg.data.loader import BatchMaker, EncodedBatch
from autoseg.data.sampling import Sampler, generator
from autoseg.inference.precision import autocast
from autoseg.models.base import SegmentationNetwork
from autoseg.preprocessing.array_dataset import ArrayDataset
from autoseg.preprocessing.normalise import normalise
from autoseg.schema.dataset import LabelScheme
from autoseg.schema.features import FeatureIndex
from autoseg.schema.plan import ModelPlan, Training
from autoseg.support.errors import AutosegError
from autoseg.support.files import atomic_directory, hash_text, is_artefact, read_artefact, write_artefact
from autoseg.support.log import progress_bar
from autoseg.support.os_errors import os_errors_as_autoseg_errors
from autoseg.support.workspace import model_folder_name

logger = logging.getLogger(__name__)

FOLDER = "features"
# Bytes of one model's features.
LIMIT = 16 << 30
# Increase it when the same inputs would give other features.
_VERSION = "1"
_INDEX, _DONE = "index.json", "done.npy"
# Items that go through the encoder at once.
_AT_ONCE = 8


class FeatureCache:
    """The features of a model's frozen encoder for all cases of a store. Items are made by `fill` and read by `batch`.

    folder: of the preprocessed dataset. make: makes the views of the training cases. Raises AutosegError if the features would
    be larger than `LIMIT` or than the disk has space for, or if the network cannot be split into encoder and decoder.
    """

    def __init__(
        self,
        folder: Path,
        network: SegmentationNetwork,
        *,
        store: ArrayDataset,
        make: BatchMaker,
        model_plan: ModelPlan,
        training: Training,
        device: torch.device,
    ) -> None:
        self._network, self._make, self._plan, self._device = network, make, model_plan, device
        self._number = {case: number for number, case in enumerate(store.cases)}
        identity = _identity(network, store, model_plan, training)
        parent = folder / FOLDER / model_folder_name(model_plan.model)
        self.folder = parent / identity[:16]
        _remove_others(parent, self.folder)
        if not _is_of(self.folder, identity):
            self._create(identity, store.cases)
        index = read_artefact(self.folder / _INDEX, FeatureIndex, f"delete {self.folder}")
        with os_errors_as_autoseg_errors(self.folder):
            opened = [np.load(self.folder / name, mmap_mode="r+") for name in (*_names(index), _DONE)]
        *self._maps, self._images, self._labels, self._done = opened

    def fill(self, cases: Sequence[str], on_batch: Callable[[], None] = lambda: None) -> None:
        """Encode all views of these cases that are not there yet. on_batch: called before each group; it may raise to stop."""
        views = self._plan.cached_views
        missing = [
            (case, view) for case in cases for view in range(views) if not self._done[self._number[case] * views + view]
        ]
        groups = [missing[start : start + _AT_ONCE] for start in range(0, len(missing), _AT_ONCE)]
        if groups:
            logger.info(f"encoding {len(missing)} views of {len(cases)} images once; the encoder is frozen")
        for group in progress_bar(groups, "encoding", len(groups)):
            on_batch()
            self._encode(group)

    def batch(self, items: Sequence[tuple[str, int]]) -> EncodedBatch:
        """The features, images and labels of (case, view)."""
        rows = [self._number[case] * self._plan.cached_views + view for case, view in items]
        cases = tuple(case for case, _ in items)
        return EncodedBatch(
            torch.from_numpy(self._images[rows]),
            torch.from_numpy(self._labels[rows]),
            self._make.statistics(cases),
            cases,
            tuple(torch.from_numpy(one[rows]) for one in self._maps),
        )

    def _create(self, identity: str, cases: Sequence[str]) -> None:
        pixels, labels, maps = self._encoded([(self._make.sampler.cases[0], 0)])
        items, views = len(cases) * self._plan.cached_views, self._plan.cached_views
        arrays: dict[str, tuple[tuple[int, ...], Any]] = {
            f"maps_{number}.npy": (tuple(one.shape[1:]), np.float16) for number, one in enumerate(maps)
        }
        arrays["images.npy"] = (tuple(pixels.shape[1:]), pixels.numpy().dtype)
        arrays["labels.npy"] = (tuple(labels.shape[1:]), np.uint8)
        size = sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for shape, dtype in arrays.values())
        index = FeatureIndex(
            identity=identity,
            views=views,
            cases=tuple(cases),
            maps=tuple((one.shape[1], one.shape[2], one.shape[3]) for one in maps),
            image=(pixels.shape[1], pixels.shape[2], pixels.shape[3]),
        )
        names = (*arrays, _DONE, _INDEX)
        with os_errors_as_autoseg_errors(self.folder), atomic_directory(self.folder, _INDEX, FeatureIndex, names) as temporary:
            self._check_size(size * items, size * len(cases), shutil.disk_usage(temporary).free)
            for name, (shape, dtype) in {**arrays, _DONE: ((), np.bool_)}.items():
                # Sparse: the file takes as much of the disk as is written to it.
                np.lib.format.open_memmap(temporary / name, "w+", dtype, (items, *shape)).flush()
            write_artefact(temporary / _INDEX, index)

    def _check_size(self, size: int, of_one_view: int, free: int) -> None:
        most = min(LIMIT, free)
        if size > most:
            field, fitting = f"models.{self._plan.model}.cached_views", most // of_one_view
            raise AutosegError(
                f"the features of {self._plan.model} would take {size / 2**30:.1f} GiB; the limit is {LIMIT / 2**30:.0f} GiB, "
                f"and {free / 2**30:.1f} GiB are free",
                f"fewer views: --set {field}={fitting}" if fitting else f"train without them: --set {field}=0",
            )

    def _encode(self, items: Sequence[tuple[str, int]]) -> None:
        pixels, labels, maps = self._encoded(items)
        rows = [self._number[case] * self._plan.cached_views + view for case, view in items]
        half = [one.half().cpu() for one in maps]
        if not all(bool(torch.isfinite(one).all()) for one in half):
            raise AutosegError(
                f"features of {self._plan.model} are too large for half precision",
                f"train without cached features: --set models.{self._plan.model}.cached_views=0",
            )
        with os_errors_as_autoseg_errors(self.folder):
            for target, values in zip((*self._maps, self._images, self._labels), (*half, pixels, labels), strict=True):
                target[rows] = values.numpy()
                target.flush()
            self._done[rows] = True
            self._done.flush()

    def _encoded(self, items: Sequence[tuple[str, int]]) -> tuple[Tensor, Tensor, list[Tensor]]:
        batch = self._make.views(items)
        statistics = None if batch.statistics is None else batch.statistics.to(self._device)
        inputs = normalise(batch.images.to(self._device), self._plan.normalisation, statistics).contiguous()
        was_training = self._network.training
        self._network.eval()
        try:
            with torch.no_grad(), autocast(self._plan.precision, self._device):
                maps = self._network.encoder_maps(inputs)
        finally:
            self._network.train(was_training)
        return batch.images, batch.labels, [one.float() for one in maps]


class CachedLoader:
    """The batches of a training from cached features: the order and the rare classes of `Sampler`, a random view of each case.

    Has the methods of `TrainLoader`, and `prepare`. open_cache: called by the first `prepare`, when the encoder has the weights
    of a resumed run too.
    """

    def __init__(self, open_cache: Callable[[], FeatureCache], sampler: Sampler, model_plan: ModelPlan, seed: int) -> None:
        self._open_cache, self._sampler, self._plan, self._seed = open_cache, sampler, model_plan, seed
        self._cache: FeatureCache | None = None

    @property
    def steps_per_epoch(self) -> int:
        return self._sampler.steps_per_epoch

    def prepare(self, on_batch: Callable[[], None] = lambda: None) -> None:
        """Encode what is missing; see `FeatureCache.fill`. To be called before the first epoch."""
        if self._cache is None:
            self._cache = self._open_cache()
            self._cache.fill(self._sampler.cases, on_batch)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[EncodedBatch]:
        """The batches of an epoch, from `first_step` on."""
        assert self._cache is not None, "prepare comes first"
        sampler = self._sampler
        order = sampler.order(epoch)
        for step in range(first_step, self.steps_per_epoch):
            items = []
            for sample in range(self._plan.batch_size):
                random = generator(self._seed, epoch, step, sample)
                case = sampler.draw(order, step, sample, random).case
                items.append((case, int(random.integers(self._plan.cached_views))))
            yield self._cache.batch(items)


def cached_loader(
    store: ArrayDataset,
    network: SegmentationNetwork,
    cases: Sequence[str],
    model_plan: ModelPlan,
    training: Training,
    scheme: LabelScheme,
    *,
    device: torch.device,
) -> CachedLoader:
    """The batches of a training on the cached features of `network`, which is on `device` and frozen."""
    make = BatchMaker(store, cases, model_plan, training, scheme, training.seed)
    open_cache = partial(
        FeatureCache, store.folder.parent, network, store=store, make=make, model_plan=model_plan, training=training,
        device=device,
    )  # fmt: skip
    return CachedLoader(open_cache, make.sampler, model_plan, training.seed)


def _identity(network: SegmentationNetwork, store: ArrayDataset, model_plan: ModelPlan, training: Training) -> str:
    """Hash of everything the features depend on. The decoder and its options are no part of it."""
    plan = {
        name: value
        for name, value in asdict(model_plan).items()
        if name in ("model", "variant", "input_size", "normalisation", "precision", "cached_views")
    }
    augmentation = [asdict(training.augmentation), training.foreground_share, training.seed]
    digest = xxhash.xxh3_128()
    state = network.state_dict()
    for name in network.encoder_parameters():
        digest.update(name.encode())
        digest.update(_bytes(state[name]))
    for name, buffer in network.named_buffers():
        if name.startswith("encoder.") and name in state:
            digest.update(name.encode())
            digest.update(_bytes(buffer))
    texts = (json.dumps(one, sort_keys=True, default=str) for one in (plan, augmentation))
    return hash_text(_VERSION, version("timm"), *texts, store.identity, digest.hexdigest())


def _bytes(tensor: Tensor) -> Any:
    plain: NDArray[np.uint8] = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return plain.data


def _is_of(folder: Path, identity: str) -> bool:
    """Whether a folder holds complete features of this hash."""
    try:
        index = read_artefact(folder / _INDEX, FeatureIndex)
    except AutosegError:
        return False
    return index.identity == identity and all((folder / name).is_file() for name in (*_names(index), _DONE))


def _names(index: FeatureIndex) -> tuple[str, ...]:
    return (*(f"maps_{number}.npy" for number in range(len(index.maps))), "images.npy", "labels.npy")


def _remove_others(parent: Path, kept: Path) -> None:
    """Delete the features of other weights, arrays or settings. Folders that autoseg did not write stay."""
    for folder in sorted(parent.iterdir()) if parent.is_dir() else ():
        if folder != kept and not folder.is_symlink() and is_artefact(folder / _INDEX, FeatureIndex):
            shutil.rmtree(folder, ignore_errors=True)
            logger.info(f"removed the cached features in {folder}: they are of other weights, images or settings")
