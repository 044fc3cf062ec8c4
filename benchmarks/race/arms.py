"""The arms of the race."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

DEFAULT_MODEL = "efficientnet_lite0_upernet"
AUTOSEG, NNUNET, PLAIN = "autoseg", "nnunet", "plain"


@dataclass(frozen=True)
class Arm:
    """side: whose Python runs `module`. options: for the module. leading: it is trained with every seed."""

    title: str
    side: str
    module: str
    options: Mapping[str, Any] = field(default_factory=dict)
    leading: bool = False


def _autoseg(title: str, *models: str, leading: bool = False, **options: Any) -> Arm:
    return Arm(title, AUTOSEG, "benchmarks.race.ours", {"models": list(models), **options}, leading)


def _nnunet(title: str, planner: str, leading: bool = False) -> Arm:
    return Arm(title, NNUNET, "benchmarks.race.theirs", {"planner": planner}, leading)


ARMS: dict[str, Arm] = {
    "nnunet": _nnunet("nnU-Net v2", "ExperimentPlanner", leading=True),
    "autoseg": _autoseg("autoseg, default model, ImageNet weights", DEFAULT_MODEL, leading=True),
    "nnunet-resenc": _nnunet("nnU-Net v2, ResEnc M", "nnUNetPlannerResEncM"),
    "autoseg-nnunet": _autoseg("autoseg, `nnunet`, random weights", "nnunet", pretrained="none"),
    "autoseg-nnunet-fp32": _autoseg(
        "autoseg, `nnunet`, random weights, fp32", "nnunet", pretrained="none", settings={"models.nnunet.precision": "fp32"}
    ),
    "autoseg-choice": _autoseg("autoseg, choice of the two models", DEFAULT_MODEL, "nnunet"),
    "plain": Arm("plain recipe", PLAIN, "benchmarks.race.plain"),
}
# Before each setting in the name of a varied arm.
_VARIED = "+"


def find(name: str) -> Arm:
    """An arm of `ARMS`, or one of autoseg's with other settings: "autoseg+side=512+geometry=resize". Raises KeyError."""
    if name in ARMS:
        return ARMS[name]
    settings = dict(one.partition("=")[::2] for one in name.split(_VARIED)[1:])
    arm = ARMS[base(name)]
    if arm.side != AUTOSEG or not all(settings.values()):
        raise KeyError(name)
    options = {**arm.options, "settings": {**arm.options.get("settings", {}), **settings}}
    return replace(arm, title=f"{arm.title}; {', '.join(name.split(_VARIED)[1:])}", options=options, leading=False)


def base(name: str) -> str:
    """The arm that a varied one differs from; others are their own."""
    return name if name in ARMS else name.partition(_VARIED)[0]


def in_order(names: Iterable[str]) -> list[str]:
    """As in `ARMS`, varied ones behind their base."""
    return sorted(names, key=lambda name: (list(ARMS).index(base(name)), name != base(name), name))


# Compared in the overview: ours, and the one to be measured by.
LEADERS = ("autoseg", "nnunet")
