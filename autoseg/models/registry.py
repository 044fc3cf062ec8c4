"""Every architecture autoseg knows: one table, name -> module. A new one is a file and a row here."""

from __future__ import annotations

import difflib
import importlib
from functools import cache
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

from autoseg.models.contract import ModelSpec, SegmentationNetwork
from autoseg.support.errors import AutosegError

_MODULES = {
    "nnunet": "autoseg.models.specialist.nnunet",
    "unet": "autoseg.models.specialist.unet",
    "hiformer": "autoseg.models.specialist.hiformer",
    "missformer": "autoseg.models.specialist.missformer",
    "ukan": "autoseg.models.specialist.ukan",
    "swin_umamba": "autoseg.models.specialist.swin_umamba",
    "hsnet": "autoseg.models.specialist.hsnet",
    "efficientnet_lite0_upernet": "autoseg.models.generalist.efficientnet_lite0_upernet",
    "internimage": "autoseg.models.generalist.internimage",
    "transnext": "autoseg.models.generalist.transnext",
    "mask2former": "autoseg.models.generalist.mask2former",
    "segformer": "autoseg.models.generalist.segformer",
    "segnext": "autoseg.models.generalist.segnext",
    "vwformer_mit": "autoseg.models.generalist.vwformer_mit",
    "vwformer_convnext": "autoseg.models.generalist.vwformer_convnext",
}
_ENTRY_POINTS = "autoseg.models"


@cache
def _table() -> dict[str, str]:
    table = dict(_MODULES)
    for point in entry_points(group=_ENTRY_POINTS):
        if point.name in table:
            raise AutosegError(
                f"two models are called {point.name!r}: {table[point.name]} and {point.value}",
                "rename the one in the added package, or uninstall that package",
            )
        table[point.name] = point.value
    return table


def names() -> tuple[str, ...]:
    """All registered names, in the table's order."""
    return tuple(_table())


def spec(name: str) -> ModelSpec:
    """The traits of a model. Raises AutosegError, with the nearest names, where there is no such model."""
    return _module(name).SPEC  # type: ignore[no-any-return]


def build(
    name: str,
    variant: str | None = None,
    in_channels: int = 3,
    num_classes: int = 2,
    input_size: tuple[int, int] | None = None,
    **options: Any,
) -> SegmentationNetwork:
    """The network, with fresh weights.

    variant: one of the spec's, by default the benchmark protocol's. num_classes counts the background (the logits'
    channels). input_size: (H, W) the planner means to train at, for networks whose depth follows it; any other size
    still works. options: what the model's own file documents. Raises AutosegError for an unknown name or variant.
    """
    module = _module(name)
    known: ModelSpec = module.SPEC
    chosen = variant or known.default_variant
    if chosen not in {v.name for v in known.variants}:
        offered = ", ".join(v.name for v in known.variants)
        raise AutosegError(f"{name} has no variant {chosen!r}", f"choose one of: {offered}")
    network: SegmentationNetwork = module.build(
        variant=chosen, in_channels=in_channels, num_classes=num_classes, input_size=input_size, **options
    )
    return network


def _module(name: str) -> ModuleType:
    table = _table()
    if name not in table:
        near = difflib.get_close_matches(name, table, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise AutosegError(f"there is no model {name!r}", f"{hint}known: {', '.join(table)}")
    return importlib.import_module(table[name])
