"""The part of an image that is sent: its pixels as an 8-bit PNG, nothing else."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from autoseg.io import Image, read_case
from autoseg.prediction.inputs import PredictionJob
from autoseg.prediction.overlay import to_rgb8
from autoseg.support.errors import AutosegError

# Services shrink larger pictures anyway.
MAX_SIDE = 2048


@dataclass(frozen=True, eq=False, kw_only=True)
class Picture:
    """The image of one question. pixels: (h, w, 3) uint8 as sent. like, size: geometry and size of the original.

    png: encoded from pixels, so it contains no name, date or tag of the file. sha256: of png.
    """

    pixels: NDArray[np.uint8]
    png: bytes
    sha256: str
    like: Image
    size: tuple[int, int]


def load_picture(job: PredictionJob) -> Picture:
    """The picture of a job's image. Raises AutosegError if the image cannot be read."""
    try:
        image = read_case(job.images, job.frame)
    except OSError as error:
        raise AutosegError(f"{job.images[0]} cannot be read: {error.strerror}") from error
    pixels = to_rgb8(image.array)
    height, width = pixels.shape[:2]
    factor = MAX_SIDE / max(height, width)
    if factor < 1:
        small = (max(1, round(width * factor)), max(1, round(height * factor)))
        pixels = cv2.resize(pixels, small, interpolation=cv2.INTER_AREA)
    success, encoded = cv2.imencode(".png", pixels[..., ::-1])
    assert success
    png = encoded.tobytes()
    like = replace(image, array=np.broadcast_to(np.zeros((), np.uint8), image.array.shape))
    return Picture(pixels=_contiguous(pixels), png=png, sha256=hashlib.sha256(png).hexdigest(), like=like, size=(height, width))


def _contiguous(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(pixels, np.uint8)
