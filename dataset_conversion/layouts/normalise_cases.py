"""What the images of a set without a description are called, have for channels, and are stored as."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

from dataset_conversion.conversion_plan import GRAY, RGB, ConversionPlan
from dataset_conversion.reading import image_of
from dataset_conversion.source import Entry
from dataset_conversion.writer import common_ending


def normalise_cases(draft: ConversionPlan) -> None:
    """Cases of one name in several folders are called by their paths; channels are the first image's.

    The writer refuses images with other channels.
    """
    counts = Counter(case.name.casefold() for case in draft.cases)
    entries = []
    for place, case in enumerate(draft.cases):
        first = case.images[0]
        if isinstance(first, Entry):
            entries.append(first)
            if counts[case.name.casefold()] > 1:
                draft.cases[place] = replace(case, name=first.name.removesuffix(first.suffix))
    if not entries:
        return
    draft.ending = common_ending(Path(entry.name) for entry in entries)
    count = image_of(entries[0]).array.shape[0]
    draft.channels = {1: GRAY, 3: RGB}.get(count, tuple(f"channel{number}" for number in range(count)))
