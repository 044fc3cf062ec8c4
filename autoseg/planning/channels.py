"""Number and dtype of the stored channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from autoseg.planning.dataset_stats import DatasetStats
from autoseg.schema.plan import Decision

StoredType = Literal["uint8", "uint16", "float32"]
_TYPES_BY_RANGE: tuple[StoredType, ...] = ("uint8", "uint16", "float32")


@dataclass(frozen=True)
class Channels:
    """count: stored channels, also the network's input channels. merge_gray: three equal channels are stored once."""

    count: int
    merge_gray: bool
    dtype: StoredType


def decide_channels(stats: DatasetStats) -> tuple[Channels, list[Decision]]:
    """The channels and dtype of the files, but gray images stored as RGB become one channel."""
    fingerprint = stats.fingerprint
    file_channels = fingerprint.cases[0].channels if fingerprint.cases else len(fingerprint.channels)
    merge_gray = fingerprint.gray_as_rgb and file_channels == 3
    count = 1 if merge_gray else file_channels
    if merge_gray:
        reason = "gray images stored as RGB: the three channels are equal in every image, so one is stored"
    elif count == 1:
        reason = "gray images; pretrained first layers made for three channels are summed into one"
    elif count == 3 and fingerprint.modality in ("colour", "microscopy"):
        reason = "true colour: the channels differ"
    else:
        reason = f"the channels of the files: {', '.join(channel.name for channel in fingerprint.channels)}"
    types = {case.dtype for case in fingerprint.cases} or {fingerprint.dtype}
    dtype = _TYPES_BY_RANGE[max(_type_rank(name) for name in types)]
    if len(types) > 1:
        dtype_reason = f"files of {', '.join(sorted(types))} are stored with the type that can represent all"
    else:
        dtype_reason = f"the type of the files ({dtype}): no loss; normalisation is applied to the batch"
    return Channels(count, merge_gray, dtype), [
        Decision("channels", str(count), reason, stats.cite("channels", "gray_as_rgb", "modality")),
        Decision("dtype", dtype, dtype_reason, stats.cite("dtype")),
    ]


def _type_rank(dtype: str) -> int:
    """Rank of a dtype by range; other types are stored as float32."""
    names = [str(name) for name in _TYPES_BY_RANGE]
    return names.index(dtype) if dtype in names else len(names) - 1
