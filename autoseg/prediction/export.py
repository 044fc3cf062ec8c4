"""Export a dataset's networks as a bundle, and optionally as ONNX, and as a folder that predicts without autoseg."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg.card.card import model_card, write_page
from autoseg.card.facts import CardFacts, Member
from autoseg.io import Image, RawDataset, read_case
from autoseg.models.published_weights import DERIVED_TERMS
from autoseg.prediction.bundle import LICENCES, export_bundle
from autoseg.prediction.loading import load_predictor
from autoseg.prediction.onnx_file import OnnxFile, export_onnx
from autoseg.prediction.predictor import Predictor
from autoseg.prediction.runtime_folder import RuntimeFolder, export_runtime
from autoseg.prediction.validation import FOLDER as VALIDATION
from autoseg.schema.fingerprint import Fingerprint
from autoseg.schema.frame import Row, Tabular
from autoseg.schema.plan import Splits
from autoseg.schema.scores import Scores
from autoseg.support.errors import AutosegError
from autoseg.support.files import read_artefact
from autoseg.support.workspace import Dataset, model_folder_name
from autoseg.training import checkpoint

# Images on which an ONNX file is compared with torch, and the masks of a folder with autoseg's.
_CHECK_IMAGES = 5


@dataclass(frozen=True, kw_only=True, repr=False)
class Exported(Tabular):
    """The files written. licences: of the weights the networks started from, if their terms reach what is made from them. card:
    the model card as a page; the bundle has it too. runtime: the folder that predicts without autoseg. str() gives a text for
    people."""

    bundle: Path
    members: tuple[str, ...]
    onnx: tuple[OnnxFile, ...]
    licences: tuple[str, ...] = ()
    card: Path | None = None
    runtime: RuntimeFolder | None = None

    def __str__(self) -> str:
        size = self.bundle.stat().st_size / 1e6
        lines = [f"{self.bundle} ({size:.1f} MB): {', '.join(self.members)}"]
        lines += [str(file) for file in self.onnx]
        if self.runtime is not None:
            lines.append(str(self.runtime))
        if self.card is not None:
            lines.append(f"{self.card}: model card, also in the bundle; read what you must state before you share it")
        if self.licences:
            licences = ", ".join(self.licences)
            lines.append(f"keep {LICENCES} with every copy: the networks were trained from weights under {licences}")
        return "\n".join(lines)

    def summary(self) -> str:
        return f"{self.bundle}: {', '.join(self.members)}"

    def to_rows(self) -> list[Row]:
        return [{"network": name, "bundle": str(self.bundle)} for name in self.members]


def export(
    dataset: Dataset,
    models: Sequence[str],
    path: Path,
    folds: Sequence[int] | None = None,
    onnx: bool = False,
    runtime: bool = False,
) -> Exported:
    """Write the bundle; with `onnx` an ONNX file per member, with `runtime` a folder `<stem>.runtime`, next to it.

    Both are checked against torch on the first images of the dataset. Raises AutosegError, before it writes the
    bundle, if `path` does not end in .zip or a network cannot be exported.
    """
    if path.suffix.lower() != ".zip":
        raise AutosegError(f"{path} does not end in .zip", "name the bundle FILE.zip")
    predictor = load_predictor(dataset.name, list(models), folds, device="cpu", root=dataset.root)
    images = [read_case(case.images) for case in RawDataset.open(dataset).cases[:_CHECK_IMAGES]] if onnx or runtime else []
    onnx_files = _export_onnx_files(predictor, images, path) if onnx else ()
    folders = [dataset.fold(member.record.model, member.record.fold) for member in predictor.members]
    facts = _facts(predictor, folders, dataset)
    card, page = model_card(facts), path.with_name(f"{path.stem}.card.html")
    folder = None
    if runtime:
        folder = export_runtime(predictor, path.with_name(f"{path.stem}.runtime"), images, card, onnx_files)
    bundle = export_bundle(predictor, folders, path, dataset.fingerprint, card)
    write_page(page, facts)
    licences = dict.fromkeys(one.licence for one in bundle.initial_weights if one.licence in DERIVED_TERMS)
    titles = tuple(f"{member.record.model} fold {member.record.fold}" for member in predictor.members)
    return Exported(
        bundle=path, members=titles, onnx=onnx_files, licences=tuple(licences), card=page, runtime=folder
    )


def _facts(predictor: Predictor, folders: Sequence[Path], dataset: Dataset) -> CardFacts:
    """What the bundle's model card tells."""
    members = []
    for trained, folder in zip(predictor.members, folders, strict=True):
        scores, fold = folder / VALIDATION / "scores.json", trained.record.fold
        members.append(
            Member(
                trained=trained,
                scores=read_artefact(scores, Scores) if scores.is_file() else None,
                training_cases=len(checkpoint.read_split(folder, fold).train),
                splits_reason=read_artefact(folder / checkpoint.SPLITS, Splits).reason,
            )
        )
    has_fingerprint = dataset.fingerprint.is_file()
    return CardFacts(
        members=tuple(members),
        fingerprint=read_artefact(dataset.fingerprint, Fingerprint) if has_fingerprint else None,
        calibration=predictor.metadata.calibration,
        postprocessing=dict(predictor.metadata.postprocessing),
        versions=dict(members[0].trained.record.versions),
    )


def _export_onnx_files(predictor: Predictor, images: Sequence[Image], path: Path) -> tuple[OnnxFile, ...]:
    return tuple(
        export_onnx(
            member,
            path.with_name(f"{path.stem}.{model_folder_name(member.record.model)}.fold_{member.record.fold}.onnx"),
            images,
        )
        for member in predictor.members
    )
