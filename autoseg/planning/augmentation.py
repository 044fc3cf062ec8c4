"""Which changes of an image still give an image that could have been taken, and how strong they are."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from autoseg.planning.dataset_stats import DatasetStats
from autoseg.planning.geometry import SpatialPlan
from autoseg.schema.plan import Augmentation, Decision

_SIDES = {"left", "right", "lt", "rt", "sinister", "dexter", "links", "rechts", "gauche", "droite"}
# Pictures whose upper edge is the skin or the head.
_UPRIGHT = ("ultrasound", "xray")
# Pictures without any upright position.
_FREE = ("microscopy", "colour")
# Fewer training images than this see each change more often, by this factor.
_FEW, _OFTEN = 64, 1.5
# Below this thickness, in pixels of the network's input, blur and low resolution wipe out what is to be found.
_FRAGILE = 4.0
_PREFIX = "training.augmentation"


@dataclass(frozen=True, kw_only=True)
class _Rule:
    """values: fields of Augmentation. subject: the first of them, under which the decision is listed."""

    subject: str
    shown: str
    reason: str
    source: str = ""
    values: dict[str, Any] = field(default_factory=dict)


def decide_augmentation(stats: DatasetStats, frame: SpatialPlan) -> tuple[Augmentation, list[Decision]]:
    """Mirror axes, rotation, tones, deformation and loss of detail: by modality, label names, thickness, number of images."""
    rules = [_mirror(stats), _rotation(stats), _scaling(stats), _tones(stats), _elastic(stats), _detail(stats, frame)]
    values = {name: value for rule in rules for name, value in rule.values.items()}
    chances = {name: values.get(name, getattr(Augmentation(), name)) for name in vars(Augmentation()) if name.startswith("p_")}
    few = stats.training_cases < _FEW
    factor, because = (_OFTEN, f"fewer than {_FEW}") if few else (1.0, f"{_FEW} or more")
    often = {name: round(min(1.0, chance * factor), 3) for name, chance in chances.items()}
    rules.append(
        _Rule(
            subject="chances",
            shown=f"{factor:g} times the usual",
            reason=f"{stats.training_cases} training images, {because}: "
            + ("each is varied more often" if few else "as usual"),
            source=stats.cite("cases"),
        )
    )
    decisions = [Decision(f"{_PREFIX}.{rule.subject}", rule.shown, rule.reason, rule.source) for rule in rules]
    return Augmentation(**{**values, **often}), decisions


def sided(names: tuple[str, ...]) -> tuple[str, ...]:
    """The label names that tell left from right: by a word, or by a pair such as LV and RV."""
    tokens = {name: _tokens(name) for name in names}
    known = {token for found in tokens.values() for token in found}
    return tuple(name for name, found in tokens.items() if any(token in _SIDES or _paired(token, known) for token in found))


def _mirror(stats: DatasetStats) -> _Rule:
    modality = stats.fingerprint.modality
    named = sided(stats.label_names)
    axes: tuple[int, ...] = (0, 1)
    if named:
        axes = () if modality in _UPRIGHT else (0,)
        because = f"{', '.join(named)}: mirroring would turn left into right"
    elif modality in _UPRIGHT:
        axes, because = (1,), f"{modality}: upside down is never seen, and no label tells left from right"
    else:
        because = "no label tells left from right"
    shown = {(): "none", (0,): "up-down", (1,): "left-right", (0, 1): "up-down, left-right"}[axes]
    source = f"{stats.cite('modality')}; classes {', '.join(stats.label_names)}"
    return _Rule(subject="mirror", shown=shown, reason=because, source=source, values={"mirror": axes})


def _rotation(stats: DatasetStats) -> _Rule:
    modality = stats.fingerprint.modality
    if modality in _FREE:
        degrees, because = 180.0, f"{modality}: pictures have no upright position"
    elif modality in _UPRIGHT:
        degrees, because = 15.0, f"{modality}: the probe or the patient is upright; shadows and lungs point down"
    else:
        degrees, because = 30.0, f"{modality}: pictures are taken upright, give or take"
    return _Rule(
        subject="rotation",
        shown=f"up to {degrees:g} degrees",
        reason=because,
        source=stats.cite("modality"),
        values={"rotation": degrees},
    )


def _scaling(stats: DatasetStats) -> _Rule:
    """Where every file has a spacing, objects have a size of their own, which a wide range would deny."""
    if stats.spacings:
        limits, because = (0.85, 1.2), "every image has a spacing, so sizes vary only as anatomy does"
    else:
        limits, because = (0.75, 1.35), "distance and zoom of the camera are unknown, so sizes vary"
    source = stats.cite("median_spacing")
    return _Rule(
        subject="scaling",
        shown=f"{limits[0]:g} to {limits[1]:g} times",
        reason=because,
        source=source,
        values={"scaling": limits},
    )


def _tones(stats: DatasetStats) -> _Rule:
    modality = stats.fingerprint.modality
    if modality == "ct":
        gentle = (0.9, 1.1)
        values: dict[str, Any] = {
            "brightness": gentle, "contrast": gentle, "gamma": gentle, "p_brightness": 0.1, "p_contrast": 0.1, "p_gamma": 0.1,
        }
        because = "ct: values are in Hounsfield units and mean the same everywhere, so they are hardly touched"
    elif modality in _FREE:
        values = {"brightness": (0.7, 1.3), "contrast": (0.7, 1.3), "p_brightness": 0.3, "p_contrast": 0.3}
        because = f"{modality}: light and stain differ from picture to picture"
    else:
        values, because = {"p_gamma": 0.3}, f"{modality}: gain and display curve differ between machines, much as a gamma does"
    changed = Augmentation(**values)
    shown = f"brightness {_range(changed.brightness)}, contrast {_range(changed.contrast)}, gamma {_range(changed.gamma)}"
    return _Rule(subject="tones", shown=shown, reason=because, source=stats.cite("modality"), values=values)


def _elastic(stats: DatasetStats) -> _Rule:
    modality = stats.fingerprint.modality
    soft = modality == "microscopy"
    because = "tissue on a slide is torn and stretched" if soft else "smooth deformation is rarely what one patient differs by"
    chance = 0.2 if soft else 0.0
    return _Rule(
        subject="elastic",
        shown="on" if soft else "off",
        reason=f"{modality}: {because}",
        source=stats.cite("modality"),
        values={"p_elastic": chance},
    )


def _detail(stats: DatasetStats, frame: SpatialPlan) -> _Rule:
    thinnest = stats.thinnest
    if thinnest is None:
        return _Rule(
            subject="detail",
            shown="blur and low resolution as usual",
            reason="no foreground was found that they could wipe out",
        )
    thickness = thinnest.thickness * frame.zoom(stats.size)
    what = f"{thinnest.name} is {thickness:.1f} px thick in the network's input"
    if thickness >= _FRAGILE:
        because = f"{what}: it outlives them"
        return _Rule(subject="detail", shown="blur and low resolution as usual", reason=because, source=stats.where_thinnest)
    values = {"p_low_resolution": 0.0, "p_blur": 0.05, "blur": (0.3, 0.7)}
    return _Rule(
        subject="detail",
        shown="little blur, no low resolution",
        reason=f"{what}: they would wipe it out",
        source=stats.where_thinnest,
        values=values,
    )


def _range(limits: tuple[float, float]) -> str:
    return f"{limits[0]:g}..{limits[1]:g}"
def _tokens(name: str) -> list[str]:
    apart = re.sub(r"([a-z])([A-Z])", r"\1 \2", name)
    return [token.lower() for token in re.split(r"[^A-Za-z]+", apart) if token]


def _paired(token: str, known: set[str]) -> bool:
    """An abbreviation of up to three letters that begins with l or r, whose counterpart is there too."""
    if len(token) > 3 or token[0] not in "lr":
        return False
    return ("r" if token[0] == "l" else "l") + token[1:] in known
