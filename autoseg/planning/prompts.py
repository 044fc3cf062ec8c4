"""What a zero-shot image model is asked to draw, for each class of a dataset."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Verbatim from Zhang, Chen and Zhou, "Can General-Purpose Omnimodels Compete with Specialists?", needed to repeat the study.
POLYP = (
    "Generate a binary segmentation mask of the polyp, ensuring the entire polyp region is fully captured without missing any "
    "parts."
)
VESSELS = (
    "Generate a binary segmentation mask of the blood vessels, ensuring the vessels are solid (no hollow or broken interiors)."
)
BREAST = (
    "Generate a binary segmentation mask of breast ultrasound images, ensuring precise delineation of the lesion region."
)
_TEMPLATE = (
    "Generate a binary segmentation mask of the {label}{place}, white where it is and black everywhere else, ensuring the "
    "entire {label} is captured and nothing else is marked."
)


def prompts(names: Sequence[str], about: str) -> dict[str, str]:
    """Class -> prompt. names: of the foreground classes. about: what is known of the images (modality, the set's name).

    A set with one class that is polyp, vessel or breast lesion gets the study's words; all others a template with the
    class's name.
    """
    return {name: _study(name, about) if len(names) == 1 and _study(name, about) else _made(name, about) for name in names}


def _study(name: str, about: str) -> str:
    words = _words(name)
    if words & {"polyp", "polyps"}:
        return POLYP
    if words & {"vessel", "vessels"}:
        return VESSELS
    breast = "breast" in words or "breast" in about.casefold() or "busi" in _words(about)
    if breast and words & {"lesion", "tumor", "tumour", "mass", "cancer"}:
        return BREAST
    return ""


def _made(name: str, about: str) -> str:
    label = name.replace("_", " ").strip()
    kind = next((kind for kind in _MODALITIES if kind in about.casefold()), "")
    return _TEMPLATE.format(label=label, place=f" in this {_MODALITIES[kind]} image" if kind else "")


_MODALITIES = {
    "ultrasound": "ultrasound", "echo": "ultrasound", "endoscop": "endoscopic", "colonoscop": "endoscopic",
    "dermoscop": "dermoscopic", "fundus": "fundus", "histolog": "histological", "x-ray": "X-ray", "mri": "MR",
}  # fmt: skip


def _words(text: str) -> set[str]:
    # BreastUS is two words too.
    return {word.casefold() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", text)}
