"""What is sent of an image: its pixels as an 8-bit PNG, and nothing else."""

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
LARGEST = 2048


@dataclass(frozen=True, eq=False, kw_only=True)
class Picture:
    """One image to ask about. pixels: (h, w, 3) uint8 as sent. like: geometry of the original, whose size is `size`.

    png: encoded afresh from pixels, so no name, date or tag of the file comes along. sha256: of png.
    """

    pixels: NDArray[np.uint8]
    png: bytes
    sha256: str
    like: Image
    size: tuple[int, int]


def picture_of(job: PredictionJob) -> Picture:
    """Raises AutosegError where the image cannot be read."""
    try:
        image = read_case(job.images, job.frame)
    except OSError as error:
        raise AutosegError(f"{job.images[0]} cannot be read: {error.strerror}") from error
    pixels = to_rgb8(image.array)
    height, width = pixels.shape[:2]
    factor = LARGEST / max(height, width)
    if factor < 1:
        small = (max(1, round(width * factor)), max(1, round(height * factor)))
        pixels = cv2.resize(pixels, small, interpolation=cv2.INTER_AREA)
    done, encoded = cv2.imencode(".png", pixels[..., ::-1])
    assert done
    png = encoded.tobytes()
    like = replace(image, array=np.broadcast_to(np.zeros((), np.uint8), image.array.shape))
    return Picture(pixels=_bytes(pixels), png=png, sha256=hashlib.sha256(png).hexdigest(), like=like, size=(height, width))


def _bytes(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(pixels, np.uint8)
