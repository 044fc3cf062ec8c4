"""Fills in names, channels and file ending of a plan whose source has no description."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

from dataset_conversion.conversion_plan import GRAY, RGB, ConversionPlan
from dataset_conversion.reading import read_image_entry
from dataset_conversion.source import Entry
from dataset_conversion.writer import common_ending


def normalise_cases(plan: ConversionPlan) -> None:
    """Cases with the same name in several folders are named by their paths; channels are those of the first image.

    The writer refuses images with other channels.
    """
    counts = Counter(case.name.casefold() for case in plan.cases)
    entries = []
    for place, case in enumerate(plan.cases):
        first = case.images[0]
        if isinstance(first, Entry):
            entries.append(first)
            if counts[case.name.casefold()] > 1:
                plan.cases[place] = replace(case, name=first.name.removesuffix(first.suffix))
    if not entries:
        return
    plan.ending = common_ending(Path(entry.name) for entry in entries)
    count = read_image_entry(entries[0]).array.shape[0]
    plan.channels = {1: GRAY, 3: RGB}.get(count, tuple(f"channel{number}" for number in range(count)))
