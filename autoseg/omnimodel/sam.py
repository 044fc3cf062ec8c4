"""A promptable model of the SAM family on this machine: boxes around another reader's objects in, masks out.

Weights come from a local folder in transformers' format. Nothing is downloaded and no data leaves the machine.
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

from autoseg.io import is_image, read_label_of, stem_of
from autoseg.omnimodel.pictures import load_picture
from autoseg.omnimodel.reader import Task, merge_masks, open_output, save_case
from autoseg.prediction.files import PredictionReport
from autoseg.prediction.inputs import PredictionJob
from autoseg.schema.prediction import PredictedCase
from autoseg.support.errors import AutosegError
from autoseg.support.files import hash_file, hash_text
from autoseg.support.log import progress_bar
from autoseg.training.device import resolve

Box = tuple[int, int, int, int]
# Boxes are slightly larger than the objects, because masks are more often too small than too large.
_MARGIN = 0.05
_MIN_PIXELS = 9  # pixels of an object that gets a box
_MAX_BOXES = 64
NAME = "sam"


class Sam:
    """Networks of transformers' mask-generation family with box prompts: SAM, SAM 2 and models in their format."""

    name = NAME

    def __init__(self, folder: Path, device: str = "auto") -> None:
        """folder: config.json, preprocessor_config.json and model.safetensors. Raises AutosegError for anything else."""
        weights = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
        if not weights or not (folder / "config.json").is_file():
            raise AutosegError(
                f"{folder} contains no promptable model",
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
        input_boxes = [[[float(coordinate) for coordinate in box] for box in boxes]]
        inputs = self._processor(images=pixels.copy(), input_boxes=input_boxes, return_tensors="pt")
        # Some image processors return float64, which the network does not accept.
        model_inputs = {
            key: value.to(self.device, torch.float32) if value.is_floating_point() else value.to(self.device)
            for key, value in inputs.items()
        }
        with torch.inference_mode():
            outputs = self._model(**model_inputs, multimask_output=False)
        sizes = {"original_sizes": inputs["original_sizes"]}
        if "reshaped_input_sizes" in inputs:
            sizes["reshaped_input_sizes"] = inputs["reshaped_input_sizes"]
        masks = self._processor.post_process_masks(outputs.pred_masks.float().cpu(), **sizes)[0]
        return np.asarray(masks[:, 0].numpy() > 0, np.bool_)


def read_with_boxes(sam: Sam, jobs: Sequence[PredictionJob], prompt_masks: Path, output: Path, task: Task) -> PredictionReport:
    """Masks of the jobs' images in `output`, prompted by boxes around the objects of the masks in the folder `prompt_masks`.

    Images without objects in these masks get empty masks.
    """
    start_time = time.perf_counter()
    prompt_files = {stem_of(path): path for path in prompt_masks.rglob("*") if is_image(path)} if prompt_masks.is_dir() else {}
    if not prompt_files:
        raise AutosegError(f"{prompt_masks} contains no masks for box prompts", "give the folder of another reader's masks")
    target = open_output(output, task, jobs, reader=NAME, identity=sam.identity, device=str(sam.device))
    predicted: list[PredictedCase] = []
    failed: dict[str, str] = {}
    for job in progress_bar(jobs, "predicting with sam", len(jobs)):
        case_start = time.perf_counter()
        path = prompt_files.get(Path(job.name).name)
        if path is None:
            failed[job.name] = f"no mask of it in {prompt_masks}"
            continue
        try:
            picture, prompt_mask = load_picture(job), read_label_of(path, job.images).array
        except AutosegError as error:
            failed[job.name] = job.redact(error.problem)
            continue
        size = picture.pixels.shape[:2]
        if prompt_mask.shape != picture.size:
            failed[job.name] = f"its mask in {prompt_masks} has another size"
            continue
        scaled = cv2.resize(prompt_mask.astype(np.uint8), (size[1], size[0]), interpolation=cv2.INTER_NEAREST)
        masks = {name: np.zeros(size, bool) for name in task.scheme.foreground}
        foreground = task.scheme.foreground.items()
        boxes = [(name, box) for name, values in foreground for box in object_boxes(np.isin(scaled, values))]
        if boxes:
            for (name, _), mask in zip(boxes, sam.masks(picture.pixels, [box for _, box in boxes]), strict=True):
                masks[name] |= mask
        labels = merge_masks(masks, task.scheme)
        seconds = time.perf_counter() - case_start
        predicted.append(save_case(output, job, picture=picture, labels=labels, scheme=task.scheme, seconds=seconds, notes=()))
    return target.write_record(predicted, failed, time.perf_counter() - start_time)


def object_boxes(mask: NDArray[np.bool_]) -> list[Box]:
    """(left, top, right, bottom) of each object of a mask (H, W), the largest first, with a margin, within the image."""
    height, width = mask.shape
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    objects = sorted((row for row in stats[1:].tolist() if row[cv2.CC_STAT_AREA] >= _MIN_PIXELS), key=lambda row: -row[4])
    boxes = []
    for left, top, w, h, _ in objects[:_MAX_BOXES]:
        dx, dy = round(_MARGIN * w) + 1, round(_MARGIN * h) + 1
        boxes.append((max(0, left - dx), max(0, top - dy), min(width - 1, left + w + dx), min(height - 1, top + h + dy)))
    return boxes
