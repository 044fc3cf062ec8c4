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


def modality(spec: DatasetSpec, name: str, cases: Sequence[CaseFingerprint], gray_as_rgb: bool, dtype: str) -> tuple[str, str]:
    """One of Fingerprint's modalities, and the evidence for it."""
    channels = [channel.strip().casefold() for channel in spec.channel_names.values()]
    colour = len(channels) == 3 and (set(channels) in _COLOURS or (dtype == "uint8" and not _known(channels)))
    said = _said(spec, name, colour and not gray_as_rgb)
    if said:
        return said
    if colour and not gray_as_rgb:
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
    if dtype != "uint8":
        highest = np.array([case.high for case in cases])
        small, large = np.percentile(highest, (10, 90))
        if small > 0 and large / small >= _SCALE_RATIO:
            return "mr", f"{depth}, brightest values from {small:.0f} to {large:.0f} between images: no common unit, as in MR"
    return "gray", f"{depth}; neither names nor values say more"
