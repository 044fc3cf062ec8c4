"""Which normalisation a model gets: by modality, bit depth, and what its pretrained weights expect."""

from __future__ import annotations

import math

import numpy as np

from autoseg.models.contract import ModelSpec
from autoseg.planning.channels import Channels
from autoseg.planning.facts import Facts
from autoseg.schema.fingerprint import ChannelStatistics
from autoseg.schema.plan import Decision, Normalisation

_EIGHT_BITS = 255.0
# Where nine tenths of the images' maxima lie within this factor, values mean the same in all of them and may be clipped alike.
_COMPARABLE = 2.0


def decide_normalisation(facts: Facts, channels: Channels, model: ModelSpec) -> tuple[Normalisation, Decision]:
    """Fixed numbers where values mean the same in every image (colour, CT), else each image by itself."""
    seen = facts.fingerprint
    statistics = seen.channels[: channels.count]
    if seen.modality == "ct":
        return _ct(statistics, model.name)
    if channels.count == 3 and not channels.merge_gray:
        if channels.dtype == "uint8" and model.weights:
            return _published(model)
        return _dataset(statistics, model, clip=channels.dtype != "uint8")
    return _each_image(facts, channels, statistics, model.name)


def _published(model: ModelSpec) -> tuple[Normalisation, Decision]:
    mean = tuple(round(value * _EIGHT_BITS, 3) for value in model.input_mean)
    std = tuple(round(value * _EIGHT_BITS, 3) for value in model.input_std)
    because = f"8-bit colour, and this model's published weights ({model.weights[0].trained_on}) were made with these numbers"
    value = f"constant, mean {_list(mean)}, std {_list(std)}"
    return Normalisation("constant", mean, std), _decision(model.name, value, because)


def _dataset(statistics: tuple[ChannelStatistics, ...], model: ModelSpec, clip: bool) -> tuple[Normalisation, Decision]:
    mean = tuple(round(channel.mean, 3) for channel in statistics)
    std = tuple(round(_spread(channel.std), 3) for channel in statistics)
    lower = tuple(channel.percentiles[0] for channel in statistics) if clip else ()
    upper = tuple(channel.percentiles[2] for channel in statistics) if clip else ()
    because = "colour with more than 8 bits, clipped to its percentiles" if clip else "colour, and no published weights to suit"
    value = f"constant, mean {_list(mean)}, std {_list(std)}"
    return Normalisation("constant", mean, std, lower, upper), _decision(model.name, value, f"{because}: the dataset's own")


def _ct(statistics: tuple[ChannelStatistics, ...], model: str) -> tuple[Normalisation, Decision]:
    """As in nnU-Net: CT numbers mean the same everywhere, and the foreground's are the ones that matter."""
    use = [_foreground_or_all(channel) for channel in statistics]
    mean, std = tuple(round(u[0], 3) for u in use), tuple(round(_spread(u[1]), 3) for u in use)
    lower, upper = tuple(u[2] for u in use), tuple(u[3] for u in use)
    because = (
        f"CT numbers mean the same in every image: clipped to the foreground's percentiles 0.5 and 99.5 "
        f"({_list(lower)} to {_list(upper)}), then its mean and deviation"
    )
    value = f"constant, mean {_list(mean)}, std {_list(std)}"
    return Normalisation("constant", mean, std, lower, upper), _decision(model, value, because)


def _foreground_or_all(channel: ChannelStatistics) -> tuple[float, float, float, float]:
    low, _, high = channel.foreground_percentiles
    numbers = (channel.foreground_mean, channel.foreground_std, low, high)
    if all(math.isfinite(number) for number in numbers) and high > low:
        return numbers
    return (channel.mean, channel.std, channel.percentiles[0], channel.percentiles[2])


def _each_image(
    facts: Facts, channels: Channels, statistics: tuple[ChannelStatistics, ...], model: str
) -> tuple[Normalisation, Decision]:
    kind = facts.fingerprint.modality
    why = f"{kind}: brightness differs from image to image with the machine's settings"
    if channels.dtype == "uint8":
        return Normalisation("image"), _decision(model, "each image to mean 0, deviation 1", why)
    highs = [case.high for case in facts.fingerprint.cases]
    low, high = (float(value) for value in np.quantile(highs, (0.05, 0.95)))
    span = f"nine tenths of the images' largest values lie in {low:g}..{high:g}"
    if low <= 0 or high / low > _COMPARABLE:
        why = f"{why}; {span}, so no limits suit all and none are set"
        return Normalisation("image"), _decision(model, "each image to mean 0, deviation 1", why)
    lower = tuple(channel.percentiles[0] for channel in statistics)
    upper = tuple(channel.percentiles[2] for channel in statistics)
    value = f"clipped to {_list(lower)}..{_list(upper)}, then each image to mean 0, deviation 1"
    return Normalisation("image", lower=lower, upper=upper), _decision(model, value, f"{why}; {span}: outliers are cut alike")


def _spread(std: float) -> float:
    """A deviation to divide by: 1 for a channel that never changes."""
    return std if std > 1e-6 else 1.0


def _decision(model: str, value: str, because: str) -> Decision:
    return Decision(f"models.{model}.normalisation", value, because)


def _list(numbers: tuple[float, ...]) -> str:
    return "/".join(f"{number:.4g}" for number in dict.fromkeys(numbers))
