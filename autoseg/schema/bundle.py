"""Content of a bundle: `bundle.json` in the zip file of trained networks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from autoseg.schema.appearance import Appearance
from autoseg.schema.artefact import Artefact, Content
from autoseg.schema.limits import Count, FileName, PathBelow, PathBelowOrNone, ShareResult
from autoseg.schema.prediction import Calibration, PostProcessing, calibration_of_version_1
from autoseg.schema.run import InitialWeights


@dataclass(frozen=True)
class BundledFile:
    """A file of the bundle. sha256 and size are of its content."""

    sha256: str
    size: Count


@dataclass(frozen=True, kw_only=True)
class BundledMember:
    """One trained fold: files within the bundle. scores: class -> pooled Dice on its held-out cases, as far as scored."""

    model: FileName
    fold: Count
    weights: PathBelow
    run: PathBelow
    plan: PathBelow
    scores: dict[FileName, ShareResult] = field(default_factory=dict)


def _to_version_2(content: Content) -> Content:
    """Version 1 had a second number, `format`, that always equalled it."""
    content.pop("format")
    return calibration_of_version_1(content)


@dataclass(frozen=True, kw_only=True)
class Bundle(Artefact):
    """`bundle.json`. files: path -> its content.

    description: the path of the dataset's description, without cases or patients. fingerprint: the path of the
    fingerprint of the training set, without cases. licence: of the data the networks were trained on. initial_weights: the
    published files that the networks started from, each with its own licence.
    """

    NAME = "bundle"
    VERSION = 2
    MIGRATIONS = (_to_version_2,)

    dataset: FileName
    members: tuple[BundledMember, ...]
    files: dict[PathBelow, BundledFile]
    description: PathBelow
    fingerprint: PathBelowOrNone
    licence: str
    appearance: Appearance | None = None
    calibration: Calibration | None = None
    postprocessing: dict[FileName, PostProcessing] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    initial_weights: tuple[InitialWeights, ...] = ()

    def problems(self) -> Iterator[str]:
        """No members, and files that are not in the list."""
        if not self.members:
            yield "members: expected at least one, found []"
        named = {"description": self.description} | ({"fingerprint": self.fingerprint} if self.fingerprint else {})
        for number, member in enumerate(self.members):
            named |= {f"members[{number}].{name}": getattr(member, name) for name in ("weights", "run", "plan")}
        for path, name in named.items():
            if name not in self.files:
                yield f"{path}: expected one of the files of the bundle, found {name!r}"
