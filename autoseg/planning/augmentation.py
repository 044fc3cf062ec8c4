"""Augmentation: which changes give realistic images, and how strong they are."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from autoseg.planning.dataset_stats import DatasetStats
from autoseg.planning.geometry import SpatialPlan
from autoseg.schema.plan import Augmentation, Decision

_SIDE_WORDS = {"left", "right", "lt", "rt", "sinister", "dexter", "links", "rechts", "gauche", "droite"}
# Modalities in which the upper edge is the skin or the head.
_UPRIGHT = ("ultrasound", "xray")
# Modalities without an upright position.
_NO_UPRIGHT = ("microscopy", "colour")
# With fewer training images, all chances are multiplied by this factor.
_SMALL_TRAINING_SET, _CHANCE_FACTOR = 64, 1.5
# pixels of the network's input: blur and low resolution would remove thinner structures
_MIN_THICKNESS = 4.0
_PREFIX = "training.augmentation"
Kind = Literal["planned", "affine", "shift"]
KINDS: tuple[Kind, ...] = ("planned", "affine", "shift")
# The transforms of woundambit, an earlier benchmark of the first study's first author, as far as known; their chances are not.
_AFFINE: dict[str, Any] = {
    "mirror": (0, 1), "p_rotation": 0.5, "rotation": 180.0, "p_scaling": 0.5, "scaling": (0.75, 1.25), "p_shear": 0.5,
    "shear": 17.5, "p_shift": 0.5, "shift": 0.25, "p_elastic": 0.0, "p_noise": 0.0, "p_low_resolution": 0.0,
}  # fmt: skip
# For other scanners and sites: many changes of appearance stacked in one image, each with an even chance, as in BigAug (Zhang
# L. et al., IEEE Transactions on Medical Imaging 2020). Hue and saturation: Tellez et al., Medical Image Analysis 2019.
# There are five changes of detail (BigAug: three), so each is rarer.
_SHIFT_TONES: dict[str, Any] = {
    "p_brightness": 0.5, "brightness": (0.6, 1.5), "p_contrast": 0.5, "contrast": (0.6, 1.5), "p_gamma": 0.5,
    "gamma": (0.5, 2.0),
}  # fmt: skip
_SHIFT_DETAIL: dict[str, Any] = {
    "p_noise": 0.3, "noise": 0.1, "p_blur": 0.3, "blur": (0.25, 1.5), "p_low_resolution": 0.3, "low_resolution": (0.4, 1.0),
    "p_sharpen": 0.3, "p_jpeg": 0.3,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Rule:
    """One decision. values: fields of Augmentation. subject: the field under which the decision is listed."""

    subject: str
    text: str
    reason: str
    source: str = ""
    values: dict[str, Any] = field(default_factory=dict)


def decide_augmentation(
    stats: DatasetStats, spatial_plan: SpatialPlan, kind: Kind = "planned"
) -> tuple[Augmentation, list[Decision]]:
    """Decides all augmentations by modality, label names, thickness of the thinnest class and number of images.

    kind: "affine" takes rotation, shift, shear, scale and flips of any strength instead, and keeps blur and tones. "shift"
    keeps the geometry, and changes appearance more often and more strongly, for images of other scanners and sites.
    """
    if kind == "affine":
        return _affine(stats, spatial_plan)
    rules = [
        _mirror(stats),
        _rotation(stats),
        _scaling(stats),
        _intensity(stats),
        _elastic(stats),
        _detail(stats, spatial_plan),
    ]
    values = {name: value for rule in rules for name, value in rule.values.items()}
    chances = {name: values.get(name, getattr(Augmentation(), name)) for name in vars(Augmentation()) if name.startswith("p_")}
    is_small = stats.training_cases < _SMALL_TRAINING_SET
    factor, reason = (
        (_CHANCE_FACTOR, f"fewer than {_SMALL_TRAINING_SET}") if is_small else (1.0, f"{_SMALL_TRAINING_SET} or more")
    )
    scaled_chances = {name: round(min(1.0, chance * factor), 3) for name, chance in chances.items()}
    rules.append(
        _Rule(
            subject="chances",
            text=f"{factor:g} times the usual",
            reason=f"{stats.training_cases} training images, {reason}: "
            + ("each is varied more often" if is_small else "as usual"),
            source=stats.cite("cases"),
        )
    )
    decisions = [Decision(f"{_PREFIX}.{rule.subject}", rule.text, rule.reason, rule.source) for rule in rules]
    planned = Augmentation(**{**values, **scaled_chances})
    return _for_shift(stats, planned, decisions) if kind == "shift" else (planned, decisions)


def _for_shift(stats: DatasetStats, planned: Augmentation, decisions: list[Decision]) -> tuple[Augmentation, list[Decision]]:
    modality, detail = stats.fingerprint.modality, dict(_SHIFT_DETAIL)
    parts = ["noise, blur, low resolution, sharpening, JPEG 0.3 each"]
    if planned.p_low_resolution == 0:
        # They would remove the thinnest class, see `_detail`.
        detail |= {name: getattr(planned, name) for name in ("p_blur", "blur", "p_low_resolution")}
        parts = ["noise, sharpening, JPEG 0.3 each, little blur and no low resolution because of the thin class"]
    values: dict[str, Any] = {}
    if modality == "ct":
        parts.append("tones as planned, because Hounsfield units are the same on all scanners")
    else:
        values = _SHIFT_TONES | {"p_bias": 0.5}
        parts.append("brightness, contrast, gamma and uneven brightness 0.5 each")
    if modality in _NO_UPRIGHT:
        values["p_colour"] = 0.5
        parts.append("hue, saturation and tint 0.5")
    reason = (
        "set by the user, for images of other scanners and sites: many strong changes of appearance in one image, as in BigAug "
        "(Zhang L. et al. 2020); geometry as planned. It may cost accuracy on the own site: judge it with --splits by=site"
    )
    # The rules of tones and detail no longer say what the values are.
    kept = [one for one in decisions if one.subject not in (f"{_PREFIX}.tones", f"{_PREFIX}.detail")]
    return replace(planned, **detail, **values), [Decision("augmentation", "shift", f"{'; '.join(parts)}; {reason}"), *kept]


def _affine(stats: DatasetStats, spatial_plan: SpatialPlan) -> tuple[Augmentation, list[Decision]]:
    rules = [_intensity(stats), _detail(stats, spatial_plan)]
    values = {name: value for rule in rules for name, value in rule.values.items()} | _AFFINE
    text = "any angle, shift 0.25, shear 17.5 degrees, scale 0.75 to 1.25, flips along both axes"
    reason = "set by the user: as in woundambit, whose chances are not known: 0.5 each; blur and tones by this planner's rules"
    return Augmentation(**values), [
        Decision("augmentation", "affine", f"{text}; {reason}"),
        *(Decision(f"{_PREFIX}.{rule.subject}", rule.text, rule.reason, rule.source) for rule in rules),
    ]


def names_with_sides(names: tuple[str, ...]) -> tuple[str, ...]:
    """The label names that distinguish left and right: by a word, or by a pair such as LV and RV."""
    tokens = {name: _tokens(name) for name in names}
    all_tokens = {token for name_tokens in tokens.values() for token in name_tokens}
    return tuple(
        name
        for name, name_tokens in tokens.items()
        if any(token in _SIDE_WORDS or _has_counterpart(token, all_tokens) for token in name_tokens)
    )


def _mirror(stats: DatasetStats) -> _Rule:
    modality = stats.fingerprint.modality
    named = names_with_sides(stats.label_names)
    axes: tuple[int, ...] = (0, 1)
    if named:
        axes = () if modality in _UPRIGHT else (0,)
        reason = f"{', '.join(named)}: mirroring would turn left into right"
    elif modality in _UPRIGHT:
        axes, reason = (1,), f"{modality}: images are never upside down, and no label distinguishes left and right"
    else:
        reason = "no label distinguishes left and right"
    text = {(): "none", (0,): "up-down", (1,): "left-right", (0, 1): "up-down, left-right"}[axes]
    source = f"{stats.cite('modality')}; classes {', '.join(stats.label_names)}"
    return _Rule(subject="mirror", text=text, reason=reason, source=source, values={"mirror": axes})


def _rotation(stats: DatasetStats) -> _Rule:
    modality = stats.fingerprint.modality
    if modality in _NO_UPRIGHT:
        degrees, reason = 180.0, f"{modality}: images have no upright position"
    elif modality in _UPRIGHT:
        degrees, reason = 15.0, f"{modality}: the probe or the patient is upright; shadows and lungs point down"
    else:
        degrees, reason = 30.0, f"{modality}: images are approximately upright"
    return _Rule(
        subject="rotation",
        text=f"up to {degrees:g} degrees",
        reason=reason,
        source=stats.cite("modality"),
        values={"rotation": degrees},
    )


def _scaling(stats: DatasetStats) -> _Rule:
    """A narrow range if every file has a spacing, because then object sizes are known."""
    if stats.spacings:
        limits, reason = (0.85, 1.2), "every image has a spacing, so sizes vary only as anatomy does"
    else:
        limits, reason = (0.75, 1.35), "distance and zoom of the camera are unknown, so sizes vary"
    source = stats.cite("median_spacing")
    return _Rule(
        subject="scaling",
        text=f"{limits[0]:g} to {limits[1]:g} times",
        reason=reason,
        source=source,
        values={"scaling": limits},
    )


def _intensity(stats: DatasetStats) -> _Rule:
    modality = stats.fingerprint.modality
    if modality == "ct":
        narrow = (0.9, 1.1)
        values: dict[str, Any] = {
            "brightness": narrow,
            "contrast": narrow,
            "gamma": narrow,
            "p_brightness": 0.1,
            "p_contrast": 0.1,
            "p_gamma": 0.1,
        }
        reason = "ct: values are Hounsfield units with the same meaning in all images, so changes are small"
    elif modality in _NO_UPRIGHT:
        values = {"brightness": (0.7, 1.3), "contrast": (0.7, 1.3), "p_brightness": 0.3, "p_contrast": 0.3}
        reason = f"{modality}: light and stain differ between images"
    else:
        values, reason = (
            {"p_gamma": 0.3},
            f"{modality}: gain and display curve differ between machines, similar to a gamma change",
        )
    changed = Augmentation(**values)
    text = f"brightness {_range(changed.brightness)}, contrast {_range(changed.contrast)}, gamma {_range(changed.gamma)}"
    return _Rule(subject="tones", text=text, reason=reason, source=stats.cite("modality"), values=values)


def _elastic(stats: DatasetStats) -> _Rule:
    modality = stats.fingerprint.modality
    is_microscopy = modality == "microscopy"
    reason = "tissue on a slide is torn and stretched" if is_microscopy else "patients rarely differ by a smooth deformation"
    chance = 0.2 if is_microscopy else 0.0
    return _Rule(
        subject="elastic",
        text="on" if is_microscopy else "off",
        reason=f"{modality}: {reason}",
        source=stats.cite("modality"),
        values={"p_elastic": chance},
    )


def _detail(stats: DatasetStats, spatial_plan: SpatialPlan) -> _Rule:
    thinnest = stats.thinnest
    if thinnest is None:
        return _Rule(
            subject="detail",
            text="blur and low resolution as usual",
            reason="there is no foreground that they could remove",
        )
    thickness = thinnest.thickness * spatial_plan.zoom(stats.size)
    what = f"{thinnest.name} is {thickness:.1f} px thick in the network's input"
    if thickness >= _MIN_THICKNESS:
        reason = f"{what}: they do not remove it"
        return _Rule(subject="detail", text="blur and low resolution as usual", reason=reason, source=stats.where_thinnest)
    values = {"p_low_resolution": 0.0, "p_blur": 0.05, "blur": (0.3, 0.7)}
    return _Rule(
        subject="detail",
        text="little blur, no low resolution",
        reason=f"{what}: they would remove it",
        source=stats.where_thinnest,
        values=values,
    )


def _range(limits: tuple[float, float]) -> str:
    return f"{limits[0]:g}..{limits[1]:g}"


def _tokens(name: str) -> list[str]:
    separated = re.sub(r"([a-z])([A-Z])", r"\1 \2", name)
    return [token.lower() for token in re.split(r"[^A-Za-z]+", separated) if token]


def _has_counterpart(token: str, all_tokens: set[str]) -> bool:
    """An abbreviation of up to three letters that begins with l or r, if its counterpart also exists."""
    if len(token) > 3 or token[0] not in "lr":
        return False
    return ("r" if token[0] == "l" else "l") + token[1:] in all_tokens
