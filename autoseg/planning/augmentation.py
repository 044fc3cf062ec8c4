"""Which changes of an image still give an image that could have been taken."""

from __future__ import annotations

import re

from autoseg.planning.facts import Facts
from autoseg.schema.plan import Augmentation, Decision

_SIDES = {"left", "right", "lt", "rt", "sinister", "dexter", "links", "rechts", "gauche", "droite"}
# Pictures whose upper edge is the skin or the head.
_UPRIGHT = ("ultrasound", "xray")
# Pictures without any upright position.
_FREE = ("microscopy", "colour")


def decide_augmentation(facts: Facts) -> tuple[Augmentation, list[Decision]]:
    """Mirror axes and rotation by modality and label names; the rest is the same for all."""
    mirror, because = _mirror(facts)
    modality = facts.fingerprint.modality
    rotation, why = (30.0, f"{modality}: pictures are taken upright, give or take")
    if modality in _FREE:
        rotation, why = 180.0, f"{modality}: pictures have no upright position"
    axes = {(): "none", (0,): "up-down", (1,): "left-right", (0, 1): "up-down, left-right"}[mirror]
    return Augmentation(mirror=mirror, rotation=rotation), [
        Decision("training.augmentation.mirror", axes, because),
        Decision("training.augmentation.rotation", f"up to {rotation:g} degrees", why),
    ]


def sided(names: tuple[str, ...]) -> tuple[str, ...]:
    """The label names that tell left from right: by a word, or by a pair such as LV and RV."""
    tokens = {name: _tokens(name) for name in names}
    known = {token for found in tokens.values() for token in found}
    return tuple(name for name, found in tokens.items() if any(token in _SIDES or _paired(token, known) for token in found))


def _mirror(facts: Facts) -> tuple[tuple[int, ...], str]:
    modality = facts.fingerprint.modality
    named = sided(facts.label_names)
    if named:
        axes: tuple[int, ...] = () if modality in _UPRIGHT else (0,)
        return axes, f"{', '.join(named)}: mirroring would turn left into right"
    if modality in _UPRIGHT:
        return (1,), f"{modality}: upside down is never seen, and no label tells left from right"
    return (0, 1), "no label tells left from right"


def _tokens(name: str) -> list[str]:
    apart = re.sub(r"([a-z])([A-Z])", r"\1 \2", name)
    return [token.lower() for token in re.split(r"[^A-Za-z]+", apart) if token]


def _paired(token: str, known: set[str]) -> bool:
    """An abbreviation of up to three letters that begins with l or r, whose counterpart is there too."""
    if len(token) > 3 or token[0] not in "lr":
        return False
    return ("r" if token[0] == "l" else "l") + token[1:] in known
