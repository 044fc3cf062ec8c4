"""A folder that predicts without autoseg and PyTorch: ONNX networks, settings as data, and one program."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

import autoseg
from autoseg.inference.tiles import SIGMA, STEP
from autoseg.io import Image
from autoseg.prediction.bundle import CARD, LICENCES, licence_text
from autoseg.prediction.onnx_file import OnnxFile, write_onnx
from autoseg.prediction.overlay import mask_colours
from autoseg.prediction.predictor import Predictor
from autoseg.prediction.standalone import run as program
from autoseg.schema.runtime import RuntimeDescription, RuntimeMember, RuntimePostProcessing
from autoseg.support.errors import AutosegError
from autoseg.support.files import atomic_directory, hash_file, write_artefact
from autoseg.support.workspace import model_folder_name
from autoseg.training.checkpoint import Trained

SETTINGS = "runtime.json"
# Largest accepted fraction of pixels whose class differs: those whose probabilities are equal but for rounding.
_TOLERANCE = 1e-3
_INPUT, _OUTPUT = "image", "logits"
_PYDICOM = "pydicom>=3.0"


@dataclass(frozen=True)
class RuntimeFolder:
    """The folder and its check: pixels of the masks of `images`, and how many have another class than autoseg's in float32."""

    path: Path
    images: int
    pixels: int
    different: int

    def __str__(self) -> str:
        checked = f"on {self.images} images {self.different} of {self.pixels} pixels differ from autoseg's masks in float32"
        return f"{self.path}: needs NumPy, ONNX Runtime and Pillow only; {checked}"


def export_runtime(
    predictor: Predictor, path: Path, images: Sequence[Image], card: str, onnx: Sequence[OnnxFile] = ()
) -> RuntimeFolder:
    """Write the folder `path`, which replaces an older one, and compare its masks with the predictor's.

    images: of the training set, to check it. card: the model card, in Markdown. onnx: the members' files, if they have been
    written already. Raises AutosegError, and leaves the older folder, if a network cannot be exported or masks differ.
    """
    files = [f"model_{number}.onnx" for number in range(len(predictor.members))]
    with atomic_directory(path, SETTINGS, RuntimeDescription) as folder:
        for number, (member, name) in enumerate(zip(predictor.members, files, strict=True)):
            _check_input_size(member)
            if onnx:
                shutil.copyfile(onnx[number].path, folder / name)
            else:
                write_onnx(member, folder / name, images)
            _write_triton(folder, folder / name, member)
        settings = _describe(predictor, folder, files)
        write_artefact(folder / SETTINGS, settings)
        for name in ("run.py", "Dockerfile"):
            text = resources.files("autoseg.prediction.standalone").joinpath(name).read_text(encoding="utf-8")
            (folder / name).write_text(text, encoding="utf-8")
        (folder / "requirements.txt").write_text(_requirements(predictor.spec.file_ending), encoding="utf-8")
        (folder / "README.md").write_text(_readme(settings), encoding="utf-8")
        (folder / CARD).write_text(card, encoding="utf-8")
        if settings.initial_weights:
            (folder / LICENCES).write_text(licence_text(settings.initial_weights), encoding="utf-8")
        checked = _check(predictor, folder, path, images)
    return checked


def _check_input_size(member: Trained) -> None:
    """An ONNX network takes images of one size only."""
    size = member.preprocessing.size
    if size is not None and size != member.model_plan.input_size:
        raise AutosegError(
            f"{member.record.model} has inputs of {member.model_plan.input_size}, but its images are resized to {size}",
            "export the bundle without --runtime",
        )


def _describe(predictor: Predictor, folder: Path, files: Sequence[str]) -> RuntimeDescription:
    spec, scheme = predictor.spec, predictor.scheme
    painted = scheme.paint if scheme.regions else tuple(member[0] for member in scheme.foreground.values())
    return RuntimeDescription(
        producer=f"autoseg {autoseg.__version__}",
        dataset=predictor.dataset,
        members=tuple(_member(one, folder / name) for one, name in zip(predictor.members, files, strict=True)),
        channel_names=tuple(spec.channel_names.values()),
        labels=spec.labels,
        names=scheme.names,
        values=scheme.paint if scheme.regions else tuple(member[0] for member in scheme.members),
        regions=scheme.regions,
        tile_step=STEP,
        tile_sigma=SIGMA,
        postprocessing=tuple(
            RuntimePostProcessing(
                name=name,
                members=members,
                value=value,
                min_object_fraction=steps.min_object_fraction,
                keep_largest=steps.keep_largest,
                fill_holes=steps.fill_holes,
            )
            for (name, members), value in zip(scheme.foreground.items(), painted, strict=True)
            if (steps := predictor.metadata.postprocessing.get(name)) is not None
        ),
        colours={str(value): colour for value, colour in mask_colours(scheme).items()},
        licence=spec.licence,
        initial_weights=tuple(dict.fromkeys(one for member in predictor.members for one in member.record.weights)),
        versions=dict(predictor.members[0].record.versions),
    )


def _member(member: Trained, file: Path) -> RuntimeMember:
    plan, preprocessing = member.model_plan, member.preprocessing
    return RuntimeMember(
        model=member.record.model,
        fold=member.record.fold,
        file=file.name,
        sha256=hash_file(file),
        input=_INPUT,
        output=_OUTPUT,
        channels=preprocessing.channels,
        input_size=plan.input_size,
        geometry=preprocessing.geometry,
        size=preprocessing.size,
        scale=preprocessing.scale,
        spacing=preprocessing.spacing,
        pad=preprocessing.pad,
        dtype=preprocessing.dtype,
        normalisation=plan.normalisation,
        activation=member.activation,
        mirror=tuple(member.plan.training.augmentation.mirror),
        tta=member.plan.training.tta,
        precision=plan.precision,
    )


def _check(predictor: Predictor, folder: Path, path: Path, images: Sequence[Image]) -> RuntimeFolder:
    reference, model = Predictor(predictor.members, "cpu", metadata=predictor.metadata), program.Model(folder)
    pixels = different = 0
    for image in images:
        try:
            labels = model.predict(np.moveaxis(image.array, 0, 2), image.spacing)
        except program.UserError as error:
            raise AutosegError(f"{path} cannot predict an image of the training set: {error}", "report this bug") from error
        different += int((labels != reference(image.array, image.spacing)).sum())
        pixels += labels.size
    if different > _TOLERANCE * pixels:
        raise AutosegError(
            f"{path} differs from autoseg: {different} of {pixels} pixels have another class",
            "export the bundle without --runtime, and report this bug",
        )
    return RuntimeFolder(path, len(images), pixels, different)


def _write_triton(folder: Path, file: Path, member: Trained) -> None:
    """A model of a Triton repository: its configuration, and the network as version 1."""
    name = f"{member.record.dataset}_{model_folder_name(member.record.model)}_fold_{member.record.fold}"
    name = re.sub(r"[^\w.-]", "_", name)
    version = folder / "triton" / name / "1"
    version.mkdir(parents=True)
    try:
        os.link(file, version / "model.onnx")  # The same bytes: no second copy on this disk.
    except OSError:
        shutil.copyfile(file, version / "model.onnx")
    (version.parent / "config.pbtxt").write_text(_triton_config(name, file), encoding="utf-8")


def _triton_config(name: str, file: Path) -> str:
    """The names, types and shapes are the ONNX file's own."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # Errors only.
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    lines = [f'name: "{name}"', 'backend: "onnxruntime"', "max_batch_size: 0  # the shapes below include the batch, which is 1"]
    for kind, tensors in (("input", session.get_inputs()), ("output", session.get_outputs())):
        for tensor in tensors:
            assert tensor.type == "tensor(float)", tensor.type
            dims = ", ".join(str(int(side)) for side in tensor.shape)
            lines += [f"{kind} [", f'  {{ name: "{tensor.name}" data_type: TYPE_FP32 dims: [ {dims} ] }}', "]"]
    return "\n".join(lines) + "\n"


def _requirements(file_ending: str) -> str:
    dicom = _PYDICOM if file_ending.lower() == ".dcm" else f"# only for DICOM images:\n# {_PYDICOM}"
    return f"numpy>=1.24\nonnxruntime>=1.20\nPillow>=10.1\n{dicom}\n"


def _readme(settings: RuntimeDescription) -> str:
    template = resources.files("autoseg.prediction.standalone").joinpath("README.md.in").read_text(encoding="utf-8")
    labels = ", ".join(f"{value} {name}" for name, value in settings.labels.items())
    networks = ", ".join(f"{one.model} fold {one.fold} (`{one.file}`)" for one in settings.members)
    spacing = any(one.spacing for one in settings.members)
    needs = "\nThe networks need each image's spacing: DICOM files have it; for others give `--spacing ROW COLUMN` in mm.\n"
    low = any(one.precision != "fp32" for one in settings.members)
    precision = (
        " On a GPU autoseg_predict computes these networks in half\nprecision, as they were planned, so some pixels at borders"
        " differ there."
    )
    return template.format(
        dataset=settings.dataset,
        networks=networks,
        channels=", ".join(settings.channel_names),
        labels=labels,
        spacing=needs if spacing else "",
        precision=precision if low else "",
        producer=settings.producer,
        licence=settings.licence or "not stated",
    )
