"""Which normalisation a model gets: by modality, bit depth, and what its pretrained weights expect."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from autoseg.models.published_weights import PublishedWeights
from autoseg.planning import study_protocol as study
from autoseg.planning.channels import Channels
from autoseg.planning.dataset_stats import DatasetStats
from autoseg.schema.dataset import NO_NORMALISATION
from autoseg.schema.fingerprint import ChannelStatistics
from autoseg.schema.plan import Decision, Normalisation

_MAX_UINT8 = 255.0
# If 90 % of the image maxima are within this factor, values are comparable and all images get the same clipping limits.
_MAX_RATIO = 2.0
# Normalisation, its description, the reason, and the fingerprint's fields.
_Rule = tuple[Normalisation, str, str, str]
# "weights": by the data and what the weights expect, see `decide_normalisation`. The others are equal for all models: the
# dataset's mean and deviation, each image's own, or the middle and half of the range of 8 bits.
Kind = Literal["weights", "dataset", "image", "half"]
KINDS: tuple[Kind, ...] = ("weights", "dataset", "image", "half")


def decide_normalisation(
    stats: DatasetStats,
    channels: Channels,
    model: str,
    weights: PublishedWeights | None,
    kind: Kind = "weights",
    *,
    is_set: bool = False,
) -> tuple[Normalisation, Decision]:
    """Constants if values have the same meaning in all images (colour, CT), else statistics of each image.

    weights: what the model starts from, None for random weights. kind: other than "weights": one normalisation for all models.
    is_set: by the user.
    """
    if all(channel.name.casefold() == NO_NORMALISATION for channel in stats.fingerprint.channels):
        zeros, ones = (0.0,) * channels.count, (1.0,) * channels.count
        normalisation, value = Normalisation(scheme="constant", mean=zeros, std=ones), "values as they are stored"
        reason, source = "all channels are named noNorm in dataset.json", stats.cite("channels")
    elif kind == "half" and channels.dtype == "uint8":
        normalisation, value, reason, source = _half(stats, channels)
    elif kind == "dataset":
        normalisation, value, reason, source = _from_dataset(stats, channels)
    elif kind == "image":
        normalisation, value, reason, source = _per_image(stats, channels)
    elif stats.fingerprint.modality == "ct":
        normalisation, value, reason, source = _from_ct_foreground(stats, channels)
    elif channels.count == 3 and not channels.merge_gray:
        if channels.dtype == "uint8" and weights is not None and kind == "weights":
            normalisation, value, reason, source = _from_weights(stats, weights)
        else:
            normalisation, value, reason, source = _from_dataset(stats, channels)
    else:
        normalisation, value, reason, source = _per_image(stats, channels)
    if is_set:
        reason = f"set by the user: {kind}; {reason}"
    return normalisation, Decision(f"models.{model}.normalisation", value, reason, source)


def _half(stats: DatasetStats, channels: Channels) -> _Rule:
    middle = (_MAX_UINT8 / 2,) * channels.count
    reason = (
        f"one for all models, as in the study; mean and deviation 0.5 of the range are {study.HINT}; the numbers of each "
        "model's weights: --set normalisation=weights"
    )
    source = stats.cite("channels", "dtype")
    return Normalisation(scheme="constant", mean=middle, std=middle), _describe(middle, middle), reason, source


def _from_weights(stats: DatasetStats, weights: PublishedWeights) -> _Rule:
    normalisation = constants_of(weights)
    reason = f"8-bit colour, and this model's published weights ({weights.trained_on}) were trained with these numbers"
    return normalisation, _describe(normalisation.mean, normalisation.std), reason, stats.cite("channels", "dtype")


def constants_of(weights: PublishedWeights) -> Normalisation:
    """The normalisation that published weights were trained with, for values in 0..255."""
    mean = tuple(round(value * _MAX_UINT8, 3) for value in weights.mean)
    std = tuple(round(value * _MAX_UINT8, 3) for value in weights.std)
    return Normalisation(scheme="constant", mean=mean, std=std)


def _from_dataset(stats: DatasetStats, channels: Channels) -> _Rule:
    statistics = stats.fingerprint.channels
    mean = tuple(round(channel.mean, 3) for channel in statistics)
    std = tuple(round(_nonzero_std(channel.std), 3) for channel in statistics)
    clip = channels.dtype != "uint8"
    lower = tuple(channel.percentiles[0] for channel in statistics) if clip else ()
    upper = tuple(channel.percentiles[2] for channel in statistics) if clip else ()
    reason = "colour with more than 8 bits, clipped to its percentiles" if clip else "colour, and no matching published weights"
    source = stats.cite(*(("channels", c.name, field) for c in statistics for field in ("mean", "std")))
    return (
        Normalisation(scheme="constant", mean=mean, std=std, lower=lower, upper=upper),
        _describe(mean, std),
        f"{reason}: the statistics of the dataset",
        source,
    )


def _from_ct_foreground(stats: DatasetStats, channels: Channels) -> _Rule:
    """As in nnU-Net: CT values have the same meaning in all images; the foreground's values matter."""
    statistics = stats.fingerprint.channels[: channels.count]
    numbers = [_foreground_or_all(channel) for channel in statistics]
    mean, std = tuple(round(values[0], 3) for values in numbers), tuple(round(_nonzero_std(values[1]), 3) for values in numbers)
    lower, upper = tuple(values[2] for values in numbers), tuple(values[3] for values in numbers)
    reason = (
        f"CT values have the same meaning in every image: clipped to the foreground's percentiles 0.5 and 99.5 "
        f"({_list(lower)} to {_list(upper)}), then its mean and deviation"
    )
    source = stats.cite("modality", *(("channels", channel.name, "foreground_percentiles") for channel in statistics))
    return Normalisation(scheme="constant", mean=mean, std=std, lower=lower, upper=upper), _describe(mean, std), reason, source


def _foreground_or_all(channel: ChannelStatistics) -> tuple[float, float, float, float]:
    low, _, high = channel.foreground_percentiles
    numbers = (channel.foreground_mean, channel.foreground_std, low, high)
    if all(math.isfinite(number) for number in numbers) and high > low:
        return numbers
    return (channel.mean, channel.std, channel.percentiles[0], channel.percentiles[2])


def _per_image(stats: DatasetStats, channels: Channels) -> _Rule:
    value, modality = "each image to mean 0, deviation 1", stats.fingerprint.modality
    reason = f"{modality}: brightness differs from image to image with the machine's settings"
    source = stats.cite("modality", "dtype")
    if channels.dtype == "uint8":
        return Normalisation(scheme="image"), value, reason, source
    highs = [case.high for case in stats.fingerprint.cases]
    low, high = (float(limit) for limit in np.quantile(highs, (0.05, 0.95)))
    span = f"90 % of the image maxima are in {low:g}..{high:g}"
    source = f"{source}; cases.high {min(highs):g} to {max(highs):g}"
    if low <= 0 or high / low > _MAX_RATIO:
        return Normalisation(scheme="image"), value, f"{reason}; {span}, so values are not clipped", source
    statistics = stats.fingerprint.channels[: channels.count]
    lower = tuple(channel.percentiles[0] for channel in statistics)
    upper = tuple(channel.percentiles[2] for channel in statistics)
    normalisation = Normalisation(scheme="image", lower=lower, upper=upper)
    value = f"clipped to {_list(lower)}..{_list(upper)}, then {value}"
    return normalisation, value, f"{reason}; {span}: outliers are clipped", source


def _nonzero_std(std: float) -> float:
    """The divisor: 1 for a constant channel."""
    return std if std > 1e-6 else 1.0


def _describe(mean: tuple[float, ...], std: tuple[float, ...]) -> str:
    return f"constant, mean {_list(mean)}, std {_list(std)}"


def _list(numbers: tuple[float, ...]) -> str:
    return "/".join(f"{number:.4g}" for number in dict.fromkeys(numbers))
