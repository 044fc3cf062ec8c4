"""What kind of images these are: from what the dataset says, then from its values."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.fingerprint import CaseFingerprint

_WORDS = {
    "ultrasound": "ultrasound us sonography echo echocardiography echography busi bus camus tus",
    "mr": "mr mri t1 t1w t1c t1ce t1gd t2 t2w flair dwi adc cine magnetic bold swi",
    "ct": "ct cta cect ctpa tomography hounsfield",
    "xray": "xray x-ray radiograph radiography cxr dx cr mammography mammogram mammo fluoroscopy",
    "microscopy": "microscopy histology histopathology pathology nuclei nucleus nuclear cell cells gland glands stained he wsi",
    "colour": "colour color rgb dermoscopy dermatology endoscopy colonoscopy gastroscopy fundus retina retinal photograph",
}
_KINDS = {word: kind for kind, words in _WORDS.items() for word in words.split()}
_COLOURS = [{"r", "g", "b"}, {"red", "green", "blue"}]
_HOUNSFIELD_AIR = -500.0
_SCALE_RATIO = 1.5
# Ultrasound changes faster along the beam than across it; other kinds measured stay below 1.3 (see appearance.layering).
_LAYERED = 1.5
# Stained tissue is darkest in green, by this share of the range against red and blue: haematoxylin is blue, eosin pink.
_STAINED = 0.05
_MANY, _FEWER, _ROUND = 10, 5, 0.5
# Radiographs are large, and their ground is seldom dark.
_RADIOGRAPH_SIDE, _DARK_GROUND = 900, 0.4


def modality(
    spec: DatasetSpec,
    name: str,
    cases: Sequence[CaseFingerprint],
    gray_as_rgb: bool,
    dtype: str,
    means: Sequence[float] = (),
) -> tuple[str, str]:
    """One of Fingerprint's modalities, and the evidence for it. means: of each channel, over the set."""
    channels = [channel.strip().casefold() for channel in spec.channel_names.values()]
    colour = len(channels) == 3 and (set(channels) in _COLOURS or (dtype == "uint8" and not _known(channels)))
    said = _said(spec, name, colour and not gray_as_rgb)
    if said:
        return said
    if colour and not gray_as_rgb:
        stained = _stained(spec, cases, means)
        if stained:
            return "microscopy", stained
        return "colour", "three channels that differ from each other, named " + ", ".join(spec.channel_names.values())
    if len(channels) > 1 and not gray_as_rgb:
        return "multichannel", f"{len(channels)} channels: " + ", ".join(spec.channel_names.values())
    return _from_values(cases, dtype, gray_as_rgb)


def _said(spec: DatasetSpec, name: str, colour: bool) -> tuple[str, str] | None:
    """The first of the description's texts that names a kind; a gray kind is not believed of colour images."""
    sources = (
        ("dataset.json gives the modality as", spec.modality),
        ("a channel is named", " ".join(spec.channel_names.values())),
        ("the dataset's name holds", name),
        ("the description says", spec.description),
        ("a label is named", " ".join(spec.labels)),
    )
    for source, text in sources:
        for word in _words(text):
            kind = _KINDS.get(word)
            if kind and (kind in ("colour", "microscopy") or not colour) and not (kind == "colour" and not colour):
                return kind, f"{source} {word!r}"
    return None


def _words(text: str) -> list[str]:
    """Words in lower case; names are split at capitals and signs too."""
    parts = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", text)
    return re.findall(r"x-ray|[a-z0-9]+", parts.casefold())


def _known(channels: Sequence[str]) -> bool:
    return any(word in _KINDS for channel in channels for word in _words(channel))


def _from_values(cases: Sequence[CaseFingerprint], dtype: str, gray_as_rgb: bool) -> tuple[str, str]:
    depth = f"one gray channel{' stored three times' if gray_as_rgb else ''}, {dtype}"
    lowest = float(np.median([case.low for case in cases]))
    if dtype == "float32" and lowest <= _HOUNSFIELD_AIR:
        return "ct", f"{depth}, lowest value {lowest:.0f} in the median image, as air has in Hounsfield units"
    objects, compactness = _objects(cases)
    if objects >= _MANY and compactness >= _ROUND:
        return "microscopy", f"{depth}; {objects:.0f} round objects in the median image, compactness {compactness:.2f}"
    layers = float(np.median([case.layering for case in cases]))
    if layers >= _LAYERED:
        return "ultrasound", f"{depth}; values change {layers:.1f} times faster downwards than across, as along a beam of sound"
    if dtype != "uint8":
        highest = np.array([case.high for case in cases])
        small, large = np.percentile(highest, (10, 90))
        if small > 0 and large / small >= _SCALE_RATIO:
            return "mr", f"{depth}, brightest values from {small:.0f} to {large:.0f} between images: no common unit, as in MR"
    side = float(np.median([min(case.size) for case in cases]))
    dark = float(np.median([case.background for case in cases]))
    if side >= _RADIOGRAPH_SIDE and dark < _DARK_GROUND:
        return "xray", f"{depth}; shorter side {side:.0f} px and only {dark:.0%} dark ground, as radiographs have"
    return "gray", f"{depth}; neither names nor values say more"


def _stained(spec: DatasetSpec, cases: Sequence[CaseFingerprint], means: Sequence[float]) -> str:
    """Why these colours are those of stained tissue; "" where they are not."""
    order = [channel.strip().casefold()[:1] for channel in spec.channel_names.values()]
    if len(means) != 3 or set(order) != set("rgb"):
        return ""
    levels = dict(zip(order, (mean / max(case.high for case in cases) for mean in means), strict=True))
    objects, _ = _objects(cases)
    if min(levels["r"], levels["b"]) < levels["g"] + _STAINED or objects < _FEWER:
        return ""
    shown = ", ".join(f"{levels[key]:.2f}" for key in "rgb")
    return f"colours of stained tissue (red, green, blue {shown} of the range) and {objects:.0f} objects in the median image"


def _objects(cases: Sequence[CaseFingerprint]) -> tuple[float, float]:
    """Objects of all classes in the median image, and the median compactness of a class; zeros where nothing is marked."""
    held = [[item for item in case.classes.values() if item.pixels] for case in cases]
    counts = [sum(item.objects for item in items) for items in held if items]
    compact = [item.compactness for items in held for item in items]
    return (float(np.median(counts)), float(np.median(compact))) if counts else (0.0, 0.0)
