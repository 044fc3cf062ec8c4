"""The classic augmentation chain: batchgenerators' transforms (Isensee et al.) with the settings of the fast chain. Slower; the
reference.

batchgenerators uses Python's and NumPy's global generators. So a lock allows one sample at a time, each with its own seed:
results do not depend on the number of threads, and more threads do not help.
"""

from __future__ import annotations

import math
import random as python_random
import threading
from functools import cache
from typing import Any

import numpy as np
from batchgenerators.transforms.abstract_transforms import Compose
from batchgenerators.transforms.color_transforms import (
    BrightnessMultiplicativeTransform,
    ContrastAugmentationTransform,
    GammaTransform,
)
from batchgenerators.transforms.noise_transforms import GaussianBlurTransform, GaussianNoiseTransform
from batchgenerators.transforms.resample_transforms import SimulateLowResolutionTransform
from batchgenerators.transforms.spatial_transforms import MirrorTransform, SpatialTransform
from numpy.typing import NDArray

from autoseg.data.geometry import Geometry, warp_crop
from autoseg.schema.plan import Augmentation

Array = NDArray[Any]

_GLOBAL_RANDOM_LOCK = threading.Lock()
# Elastic deformation like the fast chain's: smoothing and standard deviation, as fractions of the shorter side.
_ELASTIC_SMOOTHING = 1 / 12
_ELASTIC_DEVIATION = 0.02


def augment(
    image: Array,
    label: Array,
    corner: tuple[int, int],
    size: tuple[int, int],
    settings: Augmentation,
    random: np.random.Generator,
) -> tuple[Array, Array]:
    """Like `augment.augment`, but returns pixels as float32 (h, w, C), on the scale of the stored values.

    batchgenerators extends ranges of factors that do not contain 1 to 1.
    """
    margin = _margin(size, settings)
    outer = (size[0] + 2 * margin[0], size[1] + 2 * margin[1])
    pixels, labels = warp_crop(image, label, (corner[0] - margin[0], corner[1] - margin[1]), outer, Geometry())
    values = np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32)
    low, value_range = _range(values, image.dtype)
    data = {"data": ((values - low) / value_range)[None], "seg": labels[None, None].astype(np.float32)}
    transforms = _transforms(size, settings, image.shape[2])
    with _GLOBAL_RANDOM_LOCK:
        states = python_random.getstate(), np.random.get_state()
        python_random.seed(int(random.integers(2**63)))
        np.random.seed(int(random.integers(2**32)))
        try:
            data = transforms(**data)
        finally:
            python_random.setstate(states[0])
            np.random.set_state(states[1])
    values = (data["data"][0].astype(np.float32) * value_range + low).transpose(1, 2, 0)
    if image.dtype.kind == "u":
        values = values.clip(0, np.iinfo(image.dtype).max)
    return np.ascontiguousarray(values), data["seg"][0, 0].astype(np.uint8)


@cache
def _transforms(size: tuple[int, int], settings: Augmentation, channels: int) -> Compose:
    per_channel = channels != 3
    smoothing = min(size) * _ELASTIC_SMOOTHING
    # Standard deviation of smoothed uniform noise in -1..1.
    deviation = 1 / math.sqrt(3) / (2 * math.sqrt(math.pi) * smoothing)
    strength = min(size) * _ELASTIC_DEVIATION / deviation
    angle = math.radians(settings.rotation)
    return Compose(
        [
            SpatialTransform(
                size,
                do_elastic_deform=settings.p_elastic > 0, alpha=(strength, strength), sigma=(smoothing, smoothing),
                do_rotation=True, angle_x=(-angle, angle), do_scale=True,
                # batchgenerators scales the sampling grid: its scale is the inverse of a zoom.
                scale=(1 / settings.scaling[1], 1 / settings.scaling[0]),
                border_mode_data="mirror", order_data=1, border_mode_seg="mirror", order_seg=0, random_crop=False,
                p_el_per_sample=settings.p_elastic, p_scale_per_sample=settings.p_scaling, p_rot_per_sample=settings.p_rotation,
            ),
            *([MirrorTransform(axes=settings.mirror)] if settings.mirror else []),
            BrightnessMultiplicativeTransform(settings.brightness, per_channel=per_channel, p_per_sample=settings.p_brightness),
            ContrastAugmentationTransform(settings.contrast, per_channel=per_channel, p_per_sample=settings.p_contrast),
            GammaTransform(settings.gamma, per_channel=per_channel, p_per_sample=settings.p_gamma),
            GaussianNoiseTransform((0, settings.noise), p_per_sample=settings.p_noise),
            GaussianBlurTransform(settings.blur, different_sigma_per_channel=False, p_per_sample=settings.p_blur),
            SimulateLowResolutionTransform(
                settings.low_resolution, per_channel=False, order_downsample=1, order_upsample=3,
                p_per_sample=settings.p_low_resolution,
            ),
        ]
    )


def _margin(size: tuple[int, int], settings: Augmentation) -> tuple[int, int]:
    """Rows and columns around the window that rotation and scaling can move into it."""
    angle = math.radians(min(settings.rotation, 90.0))
    zoom_out = 1 / min(settings.scaling[0], 1.0)
    height, width = size
    return (
        math.ceil((zoom_out * (height * math.cos(angle) + width * math.sin(angle)) - height) / 2),
        math.ceil((zoom_out * (width * math.cos(angle) + height * math.sin(angle)) - width) / 2),
    )


def _range(values: Array, dtype: np.dtype[Any]) -> tuple[float, float]:
    if dtype == np.uint8:
        return 0.0, 255.0
    low, high = np.percentile(values[:, ::4, ::4], (0.5, 99.5))
    return float(low), float(high - low) or 1.0
