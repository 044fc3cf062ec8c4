"""A promptable model of the SAM family on this machine: a box around what another reader found, a mask back.

Weights come from a local folder in transformers' format; nothing is fetched and nothing leaves the machine.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from autoseg.io import is_image, read_label, stem_of
from autoseg.omnimodel.pictures import picture_of
from autoseg.omnimodel.reader import Task, finish, put_together, save_case
from autoseg.prediction.files import PredictionReport
from autoseg.prediction.inputs import PredictionJob
from autoseg.schema.prediction import PredictedCase
from autoseg.support.errors import AutosegError
from autoseg.support.files import hash_file, hash_text
from autoseg.support.log import progress_bar
from autoseg.training.device import resolve

Box = tuple[int, int, int, int]
# Boxes are drawn a little larger than what was found, which is more often too small than too large.
_MARGIN = 0.05
_SMALLEST = 9  # pixels of an object worth a box
_MOST_BOXES = 64
NAME = "sam"


class Sam:
    """The networks of transformers' mask-generation family that take boxes: SAM, SAM 2, and models stored as they are."""

    name = NAME

    def __init__(self, folder: Path, device: str = "auto") -> None:
        """folder: config.json, preprocessor_config.json and model.safetensors. Raises AutosegError for anything else."""
        weights = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
        if not weights or not (folder / "config.json").is_file():
            raise AutosegError(
                f"{folder} holds no promptable model",
                "put config.json, preprocessor_config.json and model.safetensors of, for example, sam-vit-base there",
            )
        try:
            from transformers import AutoModelForMaskGeneration, AutoProcessor
        except ImportError as error:
            raise AutosegError("sam needs the package transformers", 'pip install "autoseg[sam]"') from error
        self.device = resolve(device)
        local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            self._processor = AutoProcessor.from_pretrained(folder, **local)
            model = AutoModelForMaskGeneration.from_pretrained(folder, use_safetensors=True, **local)
        except (OSError, ValueError, KeyError) as error:
            raise AutosegError(f"{folder} cannot be loaded: {str(error).splitlines()[0]}", "check its files") from error
        self._model = model.to(self.device).eval()
        self.identity = hash_text(*(hash_file(path) for path in weights))

    def masks(self, pixels: NDArray[np.uint8], boxes: Sequence[Box]) -> NDArray[np.bool_]:
        """(N, H, W), one for each box (left, top, right, bottom) in pixels of an RGB image (H, W, 3)."""
        given = [[[float(part) for part in box] for box in boxes]]
        inputs = self._processor(images=pixels.copy(), input_boxes=given, return_tensors="pt")
        # Some processors give double precision, which no half of the network takes.
        moved = {
            key: value.to(self.device, torch.float32) if value.is_floating_point() else value.to(self.device)
            for key, value in inputs.items()
        }
        with torch.inference_mode():
            found = self._model(**moved, multimask_output=False)
        sizes = {"original_sizes": inputs["original_sizes"]}
        if "reshaped_input_sizes" in inputs:
            sizes["reshaped_input_sizes"] = inputs["reshaped_input_sizes"]
        masks = self._processor.post_process_masks(found.pred_masks.float().cpu(), **sizes)[0]
        return np.asarray(masks[:, 0].numpy() > 0, np.bool_)


def read_with_boxes(sam: Sam, jobs: Sequence[PredictionJob], first: Path, output: Path, task: Task) -> PredictionReport:
    """Masks of the jobs' images in `output`, prompted by boxes around the objects of the masks in the folder `first`.

    Where the first reader found nothing there is no box, and nothing is found here either.
    """
    began = time.perf_counter()
    known = {stem_of(path): path for path in first.rglob("*") if is_image(path)} if first.is_dir() else {}
    if not known:
        raise AutosegError(f"{first} holds no masks to draw boxes around", "give the folder of another reader's masks")
    done: list[PredictedCase] = []
    failed: dict[str, str] = {}
    for job in progress_bar(jobs, "asking sam", len(jobs)):
        started = time.perf_counter()
        path = known.get(Path(job.name).name)
        if path is None:
            failed[job.name] = f"no mask of it in {first}"
            continue
        try:
            picture, before = picture_of(job), read_label(path).array
        except AutosegError as error:
            failed[job.name] = job.redact(error.problem)
            continue
        size = picture.pixels.shape[:2]
        if before.shape != picture.size:
            failed[job.name] = f"its mask in {first} has another size"
            continue
        scaled = cv2.resize(before.astype(np.uint8), (size[1], size[0]), interpolation=cv2.INTER_NEAREST)
        masks = {name: np.zeros(size, bool) for name in task.scheme.foreground}
        boxes = [(name, box) for name, member in task.scheme.foreground.items() for box in boxes_of(np.isin(scaled, member))]
        if boxes:
            for (name, _), mask in zip(boxes, sam.masks(picture.pixels, [box for _, box in boxes]), strict=True):
                masks[name] |= mask
        labels = put_together(masks, task.scheme)
        done.append(
            save_case(
                output, job, picture=picture, labels=labels, scheme=task.scheme, seconds=time.perf_counter() - started, notes=()
            )
        )
    return finish(
        output,
        task,
        reader=NAME,
        identity=sam.identity,
        device=str(sam.device),
        cases=done,
        failed=failed,
        seconds=time.perf_counter() - began,
    )


def boxes_of(mask: NDArray[np.bool_]) -> list[Box]:
    """(left, top, right, bottom) of each object of a mask (H, W), the largest first, with a margin, within the image."""
    height, width = mask.shape
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    objects = sorted((row for row in stats[1:].tolist() if row[cv2.CC_STAT_AREA] >= _SMALLEST), key=lambda row: -row[4])
    found = []
    for left, top, wide, high, _ in objects[:_MOST_BOXES]:
        aside, above = round(_MARGIN * wide) + 1, round(_MARGIN * high) + 1
        found.append((
            max(0, left - aside), max(0, top - above), min(width - 1, left + wide + aside), min(height - 1, top + high + above)
        ))  # fmt: skip
    return found
