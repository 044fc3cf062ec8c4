"""A bundle: trained networks in one zip file, for prediction on another machine.

Weights are safetensors, the rest is JSON: opening a bundle executes no code. A bundle contains no case names, patients or
paths of the training set.
"""

from __future__ import annotations

import hashlib
import platform
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

import autoseg
from autoseg.models.published_weights import DERIVED_TERMS
from autoseg.prediction.inference_metadata import VALIDATION, InferenceMetadata
from autoseg.prediction.predictor import Predictor
from autoseg.schema import serde
from autoseg.schema.artefact import Artefact
from autoseg.schema.bundle import Bundle, BundledFile, BundledMember
from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.fingerprint import Fingerprint
from autoseg.schema.limits import is_path_below
from autoseg.schema.plan import Plan
from autoseg.schema.run import InitialWeights, RunRecord
from autoseg.schema.scores import Scores
from autoseg.support.archives import UnpackingBudget, check_zip
from autoseg.support.errors import AutosegError
from autoseg.support.files import atomic_write, parse_artefact, read_artefact
from autoseg.support.workspace import model_folder_name
from autoseg.training import checkpoint
from autoseg.training.checkpoint import Trained
from autoseg.training.device import resolve

CONTENTS, LICENCES, CARD = "bundle.json", "LICENCES.txt", "MODEL_CARD.md"
_DESCRIPTION, _FINGERPRINT = "dataset.json", "fingerprint.json"
# Far more than any bundle.json needs. A larger one is refused.
_LARGEST_JSON = 64 << 20
# Size of the content to that of the file. Weights hardly shrink.
_MAX_RATIO = 4
_REMEDY = "export the bundle again"
A = TypeVar("A", bound=Artefact)


def export_bundle(
    predictor: Predictor, folders: Sequence[Path], path: Path, fingerprint: Path | None = None, card: str = ""
) -> Bundle:
    """Write the predictor's networks, and everything prediction needs, to a zip file. The write is atomic.

    folders: results folder of each member. fingerprint: path of the training set's fingerprint.json; it may be missing. card:
    the model card, for people only.
    """
    files: dict[str, bytes] = {}
    members = []
    for member, folder in zip(predictor.members, folders, strict=True):
        prefix = f"{model_folder_name(member.record.model)}/fold_{member.record.fold}"
        entry = BundledMember(
            model=member.record.model,
            fold=member.record.fold,
            weights=f"{prefix}/weights.safetensors",
            run=f"{prefix}/run.json",
            plan=f"{prefix}/plan.json",
            scores=_read_pooled_dice(folder),
        )
        files[entry.weights] = save(_weights(member))
        files[entry.run] = _json(member.record)
        files[entry.plan] = _json(replace(member.plan, models={entry.model: member.model_plan}))
        members.append(entry)
    spec = replace(predictor.spec, groups={})
    files[_DESCRIPTION] = _json(spec)
    if fingerprint is not None and fingerprint.is_file():
        measured = read_artefact(fingerprint, Fingerprint)
        files[_FINGERPRINT] = _json(replace(measured, cases=(), duplicates=(), findings=()))
    metadata = predictor.metadata
    bundle = Bundle(
        dataset=predictor.members[0].record.dataset,
        members=tuple(members),
        files={name: BundledFile(_hash(content), len(content)) for name, content in files.items()},
        description=_DESCRIPTION,
        fingerprint=_FINGERPRINT if _FINGERPRINT in files else "",
        licence=spec.licence,
        appearance=metadata.appearance,
        calibration=metadata.calibration,
        postprocessing=dict(metadata.postprocessing),
        versions={"autoseg": autoseg.__version__, "torch": torch.__version__, "python": platform.python_version()},
        initial_weights=tuple(dict.fromkeys(one for member in predictor.members for one in member.record.weights)),
    )
    with atomic_write(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(CONTENTS, _json(bundle))
        if card:
            archive.writestr(CARD, card)
        if bundle.initial_weights:
            archive.writestr(LICENCES, licence_text(bundle.initial_weights))
        for name, content in files.items():
            archive.writestr(name, content)
    return bundle


def licence_text(weights: Iterable[InitialWeights]) -> str:
    """For whoever gets the bundle: what its networks started from, under which licences."""
    lines = ["The networks in this file were trained from these weights, whose licences go on to apply:", ""]
    for one in weights:
        terms = DERIVED_TERMS.get(one.licence)
        lines.append(f"{one.file}: {one.licence or 'licence not known'}" + (f", {terms}" if terms else ""))
        lines += [f"  {text}" for text in (one.trained_on, one.source, f"SHA-256 {one.sha256}") if text]
    return "\n".join(lines) + "\n"


def load_bundle(path: Path, *, device: str = "auto", tta: bool | None = None) -> Predictor:
    """Load the networks of a bundle. Unpacks nothing to disk and executes no code.

    Raises AutosegError if the file is not a bundle, contains unsafe paths or wrong hashes, or needs a newer release.
    """
    bundle, files = read_bundle(path)
    spec = _parse(path, files, bundle.description, DatasetSpec)
    torch_device = resolve(device)
    members = [_load_member(path, files, member, spec) for member in bundle.members]
    for member in members:
        member.network.to(torch_device)
    metadata = InferenceMetadata(bundle.appearance, bundle.calibration, bundle.postprocessing)
    return Predictor(members, torch_device, tta, metadata)


def read_bundle(path: Path) -> tuple[Bundle, dict[str, bytes]]:
    """The description and the files of a bundle, checked against their hashes. Raises as `load_bundle`."""
    if not path.is_file():
        raise AutosegError(f"{path} does not exist", "give a file written by autoseg_export")
    try:
        with zipfile.ZipFile(path) as archive:
            infos = _check_members(path, archive)
            if CONTENTS not in infos:
                raise AutosegError(f"{path} is not a bundle of autoseg", "give a file written by autoseg_export")
            bundle = parse_artefact(archive.read(CONTENTS).decode(), Bundle, f"{path}: {CONTENTS}", _REMEDY)
            _check_files(path, bundle, infos)
            files = {name: archive.read(name) for name in bundle.files}
    except (zipfile.BadZipFile, zlib.error, UnicodeDecodeError, ValueError, EOFError, OSError) as error:
        raise AutosegError(f"{path} is damaged: {error}", "copy or download it again") from error
    changed = [name for name, content in files.items() if _hash(content) != bundle.files[name].sha256]
    if changed:
        raise AutosegError(
            f"{path}: {', '.join(changed)} was changed after the export (its hash differs)", "copy or download the bundle again"
        )
    return bundle, files


def _check_members(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The members by name. Raises AutosegError for anything that autoseg_export does not write, before a byte is unpacked."""
    members, size = archive.infolist(), path.stat().st_size
    _check_paths(path, [member.filename for member in members])
    # A bundle is stored as it is; one that somebody packed again is a little smaller than its weights.
    check_zip(members, size, str(path), UnpackingBudget(where=str(path), size=size, ratio=_MAX_RATIO, harmless=_LARGEST_JSON))
    for member in members:
        if member.flag_bits & 1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise AutosegError(f"{path} is encrypted, or packed in a way that autoseg_export does not use", _REMEDY)
        if member.filename.endswith(".json") and member.file_size > _LARGEST_JSON:
            raise AutosegError(f"{path}: {member.filename} would unpack to {member.file_size} bytes", "do not use this file")
    infos = {member.filename: member for member in members}
    if len(infos) < len(members):
        raise AutosegError(f"{path} holds two files of one name", "do not use this file")
    return infos


def _check_paths(path: Path, names: Iterable[str]) -> None:
    for name in names:
        if not is_path_below(name):
            raise AutosegError(f"{path} was not opened: its entry {name!r} leads out of the bundle", "do not use this file")


def _check_files(path: Path, bundle: Bundle, infos: Mapping[str, zipfile.ZipInfo]) -> None:
    for name, described in bundle.files.items():
        if name not in infos:
            raise AutosegError(f"{path}: {name} is missing", "copy or download the bundle again")
        if infos[name].file_size != described.size:
            raise AutosegError(
                f"{path}: {name} was changed after the export (its size differs)", "copy or download the bundle again"
            )


def _load_member(path: Path, files: Mapping[str, bytes], member: BundledMember, spec: DatasetSpec) -> Trained:
    record = _parse(path, files, member.run, RunRecord)
    plan = _parse(path, files, member.plan, Plan)
    if record.model not in plan.models:
        raise AutosegError(f"{path}: {member.plan} has no entry for {record.model}", _REMEDY)
    if (record.model, record.fold) != (member.model, member.fold):
        raise AutosegError(f"{path}: {member.run} is not of {member.model}, fold {member.fold}", _REMEDY)
    model_plan = plan.models[record.model]
    preprocessing, scheme = plan.preprocessing[model_plan.preprocessing], spec.label_scheme()
    with torch.random.fork_rng([]):  # Same as `load_network`: do not change the global seed.
        network = checkpoint.build_network(model_plan, preprocessing, scheme, f"{path}: {member.plan}")
    try:
        network.load_state_dict(load(files[member.weights]))
    except (KeyError, RuntimeError, SafetensorError) as error:
        raise AutosegError(f"{path}: {member.weights} does not fit {record.model}: {error}", "export it again") from error
    return Trained(
        network=network.eval(),
        plan=plan,
        model_plan=model_plan,
        preprocessing=preprocessing,
        scheme=scheme,
        spec=spec,
        record=record,
    )


def _weights(member: Trained) -> dict[str, torch.Tensor]:
    # safetensors refuses tensors that share memory, so copy each one.
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in member.network.state_dict().items()}


def _read_pooled_dice(folder: Path) -> dict[str, float]:
    path = folder / VALIDATION / "scores.json"
    if not path.is_file():
        return {}
    return {name: score.pooled["dice"] for name, score in read_artefact(path, Scores).classes.items()}


def _parse(path: Path, files: Mapping[str, bytes], name: str, kind: type[A]) -> A:
    try:
        text = files[name].decode()
    except (KeyError, UnicodeDecodeError) as error:
        raise AutosegError(f"{path}: {name} is missing or damaged: {error}", _REMEDY) from error
    return parse_artefact(text, kind, f"{path}: {name}", _REMEDY)


def _json(artefact: Artefact) -> bytes:
    return serde.to_json(artefact).encode()


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
