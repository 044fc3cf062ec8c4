"""Detects the modality: first from the texts of dataset.json, then from the pixel values."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.fingerprint import CaseFingerprint

_MODALITY_WORDS = {
    "ultrasound": "ultrasound us sonography echo echocardiography echography busi bus camus tus",
    "mr": "mr mri t1 t1w t1c t1ce t1gd t2 t2w flair dwi adc cine magnetic bold swi",
    "ct": "ct cta cect ctpa tomography hounsfield",
    "xray": "xray x-ray radiograph radiography cxr dx cr mammography mammogram mammo fluoroscopy",
    "microscopy": "microscopy histology histopathology pathology nuclei nucleus nuclear cell cells gland glands stained he wsi",
    "colour": "colour color rgb dermoscopy dermatology endoscopy colonoscopy gastroscopy fundus retina retinal photograph",
}
_MODALITY_OF_WORD = {word: modality for modality, words in _MODALITY_WORDS.items() for word in words.split()}
_COLOURS = [{"r", "g", "b"}, {"red", "green", "blue"}]
_HOUNSFIELD_AIR = -500.0
_SCALE_RATIO = 1.5
# Ultrasound changes faster along the beam than across it; other modalities have less than 1.3 (see appearance.layering).
_MIN_LAYERING = 1.5
# In stained tissue, green is darker than red and blue by this fraction of the range: haematoxylin is blue, eosin pink.
_MIN_STAIN_DIFFERENCE = 0.05
_MANY_OBJECTS, _SOME_OBJECTS, _ROUND_COMPACTNESS = 10, 5, 0.5
# Radiographs are large, with little dark background.
_RADIOGRAPH_SIDE, _DARK_GROUND = 900, 0.4


def detect_modality(
    spec: DatasetSpec,
    name: str,
    cases: Sequence[CaseFingerprint],
    gray_as_rgb: bool,
    dtype: str,
    means: Sequence[float] = (),
) -> tuple[str, str]:
    """One of the modalities of Fingerprint, and the evidence. means: of each channel over the dataset."""
    channels = [channel.strip().casefold() for channel in spec.channel_names.values()]
    colour = len(channels) == 3 and (set(channels) in _COLOURS or (dtype == "uint8" and not _name_modality(channels)))
    from_text = _modality_from_text(spec, name, colour and not gray_as_rgb)
    if from_text:
        return from_text
    if colour and not gray_as_rgb:
        stain_evidence = _stain_evidence(spec, cases, means)
        if stain_evidence:
            return "microscopy", stain_evidence
        return "colour", "three channels that differ from each other, named " + ", ".join(spec.channel_names.values())
    if len(channels) > 1 and not gray_as_rgb:
        return "multichannel", f"{len(channels)} channels: " + ", ".join(spec.channel_names.values())
    return _modality_from_values(cases, dtype, gray_as_rgb)


def _modality_from_text(spec: DatasetSpec, name: str, colour: bool) -> tuple[str, str] | None:
    """Modality named by the first of the dataset's texts; for colour images, words for gray modalities are ignored."""
    sources = (
        ("dataset.json gives the modality as", spec.modality),
        ("a channel is named", " ".join(spec.channel_names.values())),
        ("the dataset's name holds", name),
        ("the description says", spec.description),
        ("a label is named", " ".join(spec.labels)),
    )
    for source, text in sources:
        for word in _words(text):
            modality = _MODALITY_OF_WORD.get(word)
            if modality and (modality in ("colour", "microscopy") or not colour) and not (modality == "colour" and not colour):
                return modality, f"{source} {word!r}"
    return None


def _words(text: str) -> list[str]:
    """Words in lower case; also splits at capitals and punctuation."""
    parts = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", text)
    return re.findall(r"x-ray|[a-z0-9]+", parts.casefold())


def _name_modality(channels: Sequence[str]) -> bool:
    return any(word in _MODALITY_OF_WORD for channel in channels for word in _words(channel))


def _modality_from_values(cases: Sequence[CaseFingerprint], dtype: str, gray_as_rgb: bool) -> tuple[str, str]:
    depth = f"one gray channel{' stored three times' if gray_as_rgb else ''}, {dtype}"
    lowest = float(np.median([case.low for case in cases]))
    if dtype == "float32" and lowest <= _HOUNSFIELD_AIR:
        return "ct", f"{depth}, lowest value {lowest:.0f} in the median image, as air has in Hounsfield units"
    objects, compactness = _median_objects(cases)
    if objects >= _MANY_OBJECTS and compactness >= _ROUND_COMPACTNESS:
        return "microscopy", f"{depth}; {objects:.0f} round objects in the median image, compactness {compactness:.2f}"
    layers = float(np.median([case.layering for case in cases]))
    if layers >= _MIN_LAYERING:
        return "ultrasound", f"{depth}; values change {layers:.1f} times faster downwards than across, as along a beam of sound"
    if dtype != "uint8":
        highest = np.array([case.high for case in cases])
        small, large = np.percentile(highest, (10, 90))
        if small > 0 and large / small >= _SCALE_RATIO:
            return "mr", f"{depth}, brightest values from {small:.0f} to {large:.0f} between images: no common unit, as in MR"
    side = float(np.median([min(case.size) for case in cases]))
    dark = float(np.median([case.background for case in cases]))
    if side >= _RADIOGRAPH_SIDE and dark < _DARK_GROUND:
        return "xray", f"{depth}; shorter side {side:.0f} px and only {dark:.0%} dark background, as in radiographs"
    return "gray", f"{depth}; neither texts nor values indicate a modality"


def _stain_evidence(spec: DatasetSpec, cases: Sequence[CaseFingerprint], means: Sequence[float]) -> str:
    """Evidence that the images show stained tissue; "" if they do not."""
    order = [channel.strip().casefold()[:1] for channel in spec.channel_names.values()]
    if len(means) != 3 or set(order) != set("rgb"):
        return ""
    levels = dict(zip(order, (mean / max(case.high for case in cases) for mean in means), strict=True))
    objects, _ = _median_objects(cases)
    if min(levels["r"], levels["b"]) < levels["g"] + _MIN_STAIN_DIFFERENCE or objects < _SOME_OBJECTS:
        return ""
    levels_text = ", ".join(f"{levels[key]:.2f}" for key in "rgb")
    return (
        f"colours of stained tissue (red, green, blue {levels_text} of the range) and {objects:.0f} objects in the median image"
    )


def _median_objects(cases: Sequence[CaseFingerprint]) -> tuple[float, float]:
    """Number of objects in the median image, and the median compactness of a class; zeros without any foreground."""
    present = [[item for item in case.classes.values() if item.pixels] for case in cases]
    counts = [sum(item.objects for item in items) for items in present if items]
    compact = [item.compactness for items in present for item in items]
    return (float(np.median(counts)), float(np.median(compact))) if counts else (0.0, 0.0)
