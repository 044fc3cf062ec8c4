"""How many channels are stored, and with how many bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from autoseg.planning.dataset_stats import DatasetStats
from autoseg.schema.plan import Decision

Stored = Literal["uint8", "uint16", "float32"]
_WIDTH: tuple[Stored, ...] = ("uint8", "uint16", "float32")


@dataclass(frozen=True)
class Channels:
    """count: channels in the store and into the network. merge_gray: three equal channels are stored once."""

    count: int
    merge_gray: bool
    dtype: Stored


def decide_channels(stats: DatasetStats) -> tuple[Channels, list[Decision]]:
    """Channels as the files have them, but gray pictures stored as RGB count as gray; the files' own type is kept."""
    seen = stats.fingerprint
    files = seen.cases[0].channels if seen.cases else len(seen.channels)
    merged = seen.gray_as_rgb and files == 3
    count = 1 if merged else files
    if merged:
        because = "gray pictures stored as RGB: the three channels are equal in every image, so one is kept"
    elif count == 1:
        because = "gray images; pretrained first layers made for three channels are summed into one"
    elif count == 3 and seen.modality in ("colour", "microscopy"):
        because = "true colour: the channels differ"
    else:
        because = f"as many as the files have: {', '.join(channel.name for channel in seen.channels)}"
    types = {case.dtype for case in seen.cases} or {seen.dtype}
    dtype = _WIDTH[max(_rank(name) for name in types)]
    if len(types) > 1:
        kept = f"files of {', '.join(sorted(types))} are kept in the type that holds them all"
    else:
        kept = f"the files' own type ({dtype}): no bit is lost, and normalisation happens on the batch"
    return Channels(count, merged, dtype), [
        Decision("channels", str(count), because, stats.cite("channels", "gray_as_rgb", "modality")),
        Decision("dtype", dtype, kept, stats.cite("dtype")),
    ]


def _rank(dtype: str) -> int:
    """Place in the order of what holds what; any unusual type is kept as float32."""
    known = [str(name) for name in _WIDTH]
    return known.index(dtype) if dtype in known else len(known) - 1
