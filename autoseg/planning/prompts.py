"""Prompts for zero-shot image models, one for each class of a dataset."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Verbatim from Zhang, Chen and Zhou, "Can General-Purpose Omnimodels Compete with Specialists?", to repeat the study.
POLYP = (
    "Generate a binary segmentation mask of the polyp, ensuring the entire polyp region is fully captured without missing any "
    "parts."
)
VESSELS = (
    "Generate a binary segmentation mask of the blood vessels, ensuring the vessels are solid (no hollow or broken interiors)."
)
BREAST = "Generate a binary segmentation mask of breast ultrasound images, ensuring precise delineation of the lesion region."
_TEMPLATE = (
    "Generate a binary segmentation mask of the {label}{place}, white where it is and black everywhere else, ensuring the "
    "entire {label} is captured and nothing else is marked."
)


def prompts(names: Sequence[str], context: str) -> dict[str, str]:
    """Class -> prompt. names: of the foreground classes. context: modality and name of the dataset.

    A dataset with a single class that is polyp, vessel or breast lesion gets the study's prompt; others get a template with
    the name of the class.
    """
    return {
        name: _study_prompt(name, context)
        if len(names) == 1 and _study_prompt(name, context)
        else _from_template(name, context)
        for name in names
    }


def _study_prompt(name: str, context: str) -> str:
    words = _words(name)
    if words & {"polyp", "polyps"}:
        return POLYP
    if words & {"vessel", "vessels"}:
        return VESSELS
    breast = "breast" in words or "breast" in context.casefold() or "busi" in _words(context)
    if breast and words & {"lesion", "tumor", "tumour", "mass", "cancer"}:
        return BREAST
    return ""


def _from_template(name: str, context: str) -> str:
    label = name.replace("_", " ").strip()
    kind = next((kind for kind in _MODALITIES if kind in context.casefold()), "")
    return _TEMPLATE.format(label=label, place=f" in this {_MODALITIES[kind]} image" if kind else "")


_MODALITIES = {
    "ultrasound": "ultrasound", "echo": "ultrasound", "endoscop": "endoscopic", "colonoscop": "endoscopic",
    "dermoscop": "dermoscopic", "fundus": "fundus", "histolog": "histological", "x-ray": "X-ray", "mri": "MR",
}  # fmt: skip


def _words(text: str) -> set[str]:
    # BreastUS is two words.
    return {word.casefold() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", text)}
