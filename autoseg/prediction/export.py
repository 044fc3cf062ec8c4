"""Export a dataset's networks as a bundle, and optionally as ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg.io import RawDataset, read_case
from autoseg.models.published_weights import DERIVED_TERMS
from autoseg.prediction.bundle import LICENCES, export_bundle
from autoseg.prediction.loading import load_predictor
from autoseg.prediction.onnx_file import OnnxFile, export_onnx
from autoseg.prediction.predictor import Predictor
from autoseg.schema.frame import Row, Tabular
from autoseg.support.errors import AutosegError
from autoseg.support.workspace import Dataset, model_folder_name

# Images on which an ONNX file is compared with torch.
_CHECK_IMAGES = 5


@dataclass(frozen=True, repr=False)
class Exported(Tabular):
    """The files written. licences: of the weights the networks started from, if their terms reach what is made from them.
    str() gives a text for people."""

    bundle: Path
    members: tuple[str, ...]
    onnx: tuple[OnnxFile, ...]
    licences: tuple[str, ...] = ()

    def __str__(self) -> str:
        size = self.bundle.stat().st_size / 1e6
        lines = [f"{self.bundle} ({size:.1f} MB): {', '.join(self.members)}"]
        lines += [str(file) for file in self.onnx]
        if self.licences:
            licences = ", ".join(self.licences)
            lines.append(f"keep {LICENCES} with every copy: the networks were trained from weights under {licences}")
        return "\n".join(lines)

    def summary(self) -> str:
        return f"{self.bundle}: {', '.join(self.members)}"

    def to_rows(self) -> list[Row]:
        return [{"network": name, "bundle": str(self.bundle)} for name in self.members]


def export(
    dataset: Dataset, models: Sequence[str], path: Path, folds: Sequence[int] | None = None, onnx: bool = False
) -> Exported:
    """Write the bundle, and with `onnx` an ONNX file per member into the same folder.

    ONNX files are checked against torch on the first images of the dataset. Raises AutosegError, before it writes the
    bundle, if `path` does not end in .zip or a network cannot be exported.
    """
    if path.suffix.lower() != ".zip":
        raise AutosegError(f"{path} does not end in .zip", "name the bundle FILE.zip")
    predictor = load_predictor(dataset.name, list(models), folds, device="cpu", root=dataset.root)
    onnx_files = _export_onnx_files(predictor, dataset, path) if onnx else ()
    folders = [dataset.fold(member.record.model, member.record.fold) for member in predictor.members]
    bundle = export_bundle(predictor, folders, path, dataset.fingerprint)
    licences = dict.fromkeys(one.licence for one in bundle.initial_weights if one.licence in DERIVED_TERMS)
    titles = tuple(f"{member.record.model} fold {member.record.fold}" for member in predictor.members)
    return Exported(path, titles, onnx_files, tuple(licences))


def _export_onnx_files(predictor: Predictor, dataset: Dataset, path: Path) -> tuple[OnnxFile, ...]:
    cases = RawDataset.open(dataset).cases[:_CHECK_IMAGES]
    images = [read_case(case.images) for case in cases]
    return tuple(
        export_onnx(
            member,
            path.with_name(f"{path.stem}.{model_folder_name(member.record.model)}.fold_{member.record.fold}.onnx"),
            images,
        )
        for member in predictor.members
    )
