"""Which normalisation a model gets: by modality, bit depth, and what its pretrained weights expect."""

from __future__ import annotations

import math

import numpy as np

from autoseg.models.base import ModelSpec
from autoseg.planning.channels import Channels
from autoseg.planning.dataset_stats import DatasetStats
from autoseg.schema.fingerprint import ChannelStatistics
from autoseg.schema.plan import Decision, Normalisation

_EIGHT_BITS = 255.0
# Where nine tenths of the images' maxima lie within this factor, values mean the same in all of them and may be clipped alike.
_COMPARABLE = 2.0
# The rule, in words, why, and the fingerprint's fields it was read from.
_Choice = tuple[Normalisation, str, str, str]


def decide_normalisation(stats: DatasetStats, channels: Channels, model: ModelSpec) -> tuple[Normalisation, Decision]:
    """Fixed numbers where values mean the same in every image (colour, CT), else each image by itself."""
    if stats.fingerprint.modality == "ct":
        found, value, because, source = _ct(stats, channels)
    elif channels.count == 3 and not channels.merge_gray:
        if channels.dtype == "uint8" and model.weights:
            found, value, because, source = _published(stats, model)
        else:
            found, value, because, source = _dataset(stats, channels)
    else:
        found, value, because, source = _each_image(stats, channels)
    return found, Decision(f"models.{model.name}.normalisation", value, because, source)


def _published(stats: DatasetStats, model: ModelSpec) -> _Choice:
    mean = tuple(round(value * _EIGHT_BITS, 3) for value in model.input_mean)
    std = tuple(round(value * _EIGHT_BITS, 3) for value in model.input_std)
    because = f"8-bit colour, and this model's published weights ({model.weights[0].trained_on}) were made with these numbers"
    return Normalisation(scheme="constant", mean=mean, std=std), _constant(mean, std), because, stats.cite("channels", "dtype")


def _dataset(stats: DatasetStats, channels: Channels) -> _Choice:
    statistics = stats.fingerprint.channels
    mean = tuple(round(channel.mean, 3) for channel in statistics)
    std = tuple(round(_spread(channel.std), 3) for channel in statistics)
    clip = channels.dtype != "uint8"
    lower = tuple(channel.percentiles[0] for channel in statistics) if clip else ()
    upper = tuple(channel.percentiles[2] for channel in statistics) if clip else ()
    because = "colour with more than 8 bits, clipped to its percentiles" if clip else "colour, and no published weights to suit"
    source = stats.cite(*(("channels", c.name, field) for c in statistics for field in ("mean", "std")))
    return (
        Normalisation(scheme="constant", mean=mean, std=std, lower=lower, upper=upper),
        _constant(mean, std),
        f"{because}: the dataset's own",
        source,
    )


def _ct(stats: DatasetStats, channels: Channels) -> _Choice:
    """As in nnU-Net: CT numbers mean the same everywhere, and the foreground's are the ones that matter."""
    statistics = stats.fingerprint.channels[: channels.count]
    use = [_foreground_or_all(channel) for channel in statistics]
    mean, std = tuple(round(u[0], 3) for u in use), tuple(round(_spread(u[1]), 3) for u in use)
    lower, upper = tuple(u[2] for u in use), tuple(u[3] for u in use)
    because = (
        f"CT numbers mean the same in every image: clipped to the foreground's percentiles 0.5 and 99.5 "
        f"({_list(lower)} to {_list(upper)}), then its mean and deviation"
    )
    source = stats.cite("modality", *(("channels", channel.name, "foreground_percentiles") for channel in statistics))
    return Normalisation(scheme="constant", mean=mean, std=std, lower=lower, upper=upper), _constant(mean, std), because, source


def _foreground_or_all(channel: ChannelStatistics) -> tuple[float, float, float, float]:
    low, _, high = channel.foreground_percentiles
    numbers = (channel.foreground_mean, channel.foreground_std, low, high)
    if all(math.isfinite(number) for number in numbers) and high > low:
        return numbers
    return (channel.mean, channel.std, channel.percentiles[0], channel.percentiles[2])


def _each_image(stats: DatasetStats, channels: Channels) -> _Choice:
    value, kind = "each image to mean 0, deviation 1", stats.fingerprint.modality
    because = f"{kind}: brightness differs from image to image with the machine's settings"
    source = stats.cite("modality", "dtype")
    if channels.dtype == "uint8":
        return Normalisation(scheme="image"), value, because, source
    highs = [case.high for case in stats.fingerprint.cases]
    low, high = (float(limit) for limit in np.quantile(highs, (0.05, 0.95)))
    span = f"nine tenths of the images' largest values lie in {low:g}..{high:g}"
    source = f"{source}; cases.high {min(highs):g} to {max(highs):g}"
    if low <= 0 or high / low > _COMPARABLE:
        return Normalisation(scheme="image"), value, f"{because}; {span}, so no limits suit all and none are set", source
    statistics = stats.fingerprint.channels[: channels.count]
    lower = tuple(channel.percentiles[0] for channel in statistics)
    upper = tuple(channel.percentiles[2] for channel in statistics)
    found = Normalisation(scheme="image", lower=lower, upper=upper)
    value = f"clipped to {_list(lower)}..{_list(upper)}, then {value}"
    return found, value, f"{because}; {span}: outliers are cut alike", source


def _spread(std: float) -> float:
    """A deviation to divide by: 1 for a channel that never changes."""
    return std if std > 1e-6 else 1.0


def _constant(mean: tuple[float, ...], std: tuple[float, ...]) -> str:
    return f"constant, mean {_list(mean)}, std {_list(std)}"


def _list(numbers: tuple[float, ...]) -> str:
    return "/".join(f"{number:.4g}" for number in dict.fromkeys(numbers))
