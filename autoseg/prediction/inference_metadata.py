"""What prediction needs besides the weights: appearance of the training images, calibration, post-processing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from autoseg.prediction import ood_detection
from autoseg.prediction.calibration import calibrate
from autoseg.prediction.confidence import DISAGREEMENT
from autoseg.schema.appearance import Appearance, Span
from autoseg.schema.prediction import Calibration, Confidence, PostProcessing
from autoseg.support.files import read_artefact
from autoseg.training.checkpoint import Trained

VALIDATION = "validation"


@dataclass(frozen=True)
class InferenceMetadata:
    """appearance: of the training images, as the first member sees them. None or empty: not known."""

    appearance: Appearance | None = None
    calibration: Calibration | None = None
    postprocessing: Mapping[str, PostProcessing] = field(default_factory=dict)

    def warnings(self, measured: Mapping[str, float], pixels: Mapping[str, int], confidence: Confidence) -> tuple[str, ...]:
        """Warnings for a mask. measured: see `ood_detection.measure`. pixels: class -> area."""
        messages = list(ood_detection.warnings(dict(measured), self.appearance)) if self.appearance and measured else []
        if not any(pixels.values()):
            messages.append("nothing was found")
        if confidence.agreement < DISAGREEMENT:
            messages.append(f"the networks disagree: the mean Dice between their masks is {confidence.agreement:.2f}")
        return tuple(messages)


def read_inference_metadata(
    folders: Sequence[Path], members: Sequence[Trained], postprocessing: Mapping[str, PostProcessing]
) -> InferenceMetadata:
    """Read from the results folders of the members; missing files are skipped."""
    first = members[0].preprocessing
    same_preprocessing = [folder for folder, member in zip(folders, members, strict=True) if member.preprocessing == first]
    paths = [folder / ood_detection.FILE for folder in same_preprocessing]
    appearances = [read_artefact(path, Appearance) for path in paths if path.is_file()]
    return InferenceMetadata(merge(appearances), calibrate(folder / VALIDATION for folder in folders), postprocessing)


def merge(appearances: Sequence[Appearance]) -> Appearance | None:
    """One appearance that covers all; None for an empty list. Keeps the measures that all of them have."""
    if not appearances:
        return None
    shared = set.intersection(*(set(one.measures) for one in appearances))
    spans = {
        name: Span(
            min(one.measures[name].low for one in appearances),
            sorted(one.measures[name].median for one in appearances)[len(appearances) // 2],
            max(one.measures[name].high for one in appearances),
        )
        for name in sorted(shared)
    }
    return Appearance(max(one.cases for one in appearances), spans)
