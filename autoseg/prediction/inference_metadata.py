"""What training left beside the weights and prediction should know: how images looked, how far confidence can be believed."""

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
    """appearance: of the training images, as the first member saw them. None or empty: nothing is known."""

    appearance: Appearance | None = None
    calibration: Calibration | None = None
    postprocessing: Mapping[str, PostProcessing] = field(default_factory=dict)

    def warnings(self, measured: Mapping[str, float], pixels: Mapping[str, int], confidence: Confidence) -> tuple[str, ...]:
        """What a person should know before trusting a mask of these pixels."""
        found = list(ood_detection.warnings(dict(measured), self.appearance)) if self.appearance and measured else []
        if not any(pixels.values()):
            found.append("nothing was found")
        if confidence.agreement < DISAGREEMENT:
            found.append(f"the networks disagree: the mean Dice between their masks is {confidence.agreement:.2f}")
        return tuple(found)


def read_inference_metadata(
    folders: Sequence[Path], members: Sequence[Trained], postprocessing: Mapping[str, PostProcessing]
) -> InferenceMetadata:
    """From the results folders of the members; what a folder lacks is left out."""
    first = members[0].preparation
    alike = [folder for folder, member in zip(folders, members, strict=True) if member.preparation == first]
    seen = [
        read_artefact(folder / ood_detection.FILE, Appearance) for folder in alike if (folder / ood_detection.FILE).is_file()
    ]
    return InferenceMetadata(merge(seen), calibrate(folder / VALIDATION for folder in folders), postprocessing)


def merge(seen: Sequence[Appearance]) -> Appearance | None:
    """One appearance that covers all, None for none. A measure that one of them lacks is left out."""
    if not seen:
        return None
    shared = set.intersection(*(set(one.measures) for one in seen))
    spans = {
        name: Span(
            min(one.measures[name].low for one in seen),
            sorted(one.measures[name].median for one in seen)[len(seen) // 2],
            max(one.measures[name].high for one in seen),
        )
        for name in sorted(shared)
    }
    return Appearance(max(one.cases for one in seen), spans)
