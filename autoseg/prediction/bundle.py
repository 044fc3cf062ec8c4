"""Trained networks in one file, to be predicted with elsewhere: written by `export_bundle`, read without unpacking.

Weights are safetensors and all else is JSON, so that opening a bundle executes nothing. No case, patient or path of the
training set is in it.
"""

from __future__ import annotations

import hashlib
import platform
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

import autoseg
from autoseg.prediction.inference_metadata import VALIDATION, InferenceMetadata
from autoseg.prediction.predictor import Predictor
from autoseg.schema import serde
from autoseg.schema.artefact import Artefact
from autoseg.schema.bundle import Bundle, BundledFile, BundledMember
from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.fingerprint import Fingerprint
from autoseg.schema.plan import Plan
from autoseg.schema.run import RunRecord
from autoseg.schema.scores import Scores
from autoseg.support.errors import AutosegError
from autoseg.support.files import atomic_write, parse_artefact, read_artefact
from autoseg.training import checkpoint
from autoseg.training.checkpoint import Trained
from autoseg.training.device import resolve

CONTENTS = "bundle.json"
_DESCRIPTION, _FINGERPRINT = "dataset.json", "fingerprint.json"
# More than any description needs: what claims to be larger is no bundle of ours.
_LARGEST_JSON = 64 << 20
_AGAIN = "export the bundle again"
A = TypeVar("A", bound=Artefact)


def export_bundle(
    predictor: Predictor, folders: Sequence[Path], path: Path, fingerprint: Path | None = None
) -> Bundle:
    """Write the predictor's networks and all that predicting with them needs to a zip file, whole or not at all.

    folders: the results folder of each member. fingerprint: of the training set, where it is still there.
    """
    files: dict[str, bytes] = {}
    members = []
    for member, folder in zip(predictor.members, folders, strict=True):
        place = f"{member.record.model}/fold_{member.record.fold}"
        written = BundledMember(
            model=member.record.model,
            fold=member.record.fold,
            weights=f"{place}/weights.safetensors",
            run=f"{place}/run.json",
            plan=f"{place}/plan.json",
            scores=_scores(folder),
        )
        files[written.weights] = save(_weights(member))
        files[written.run] = _json(member.record)
        files[written.plan] = _json(replace(member.plan, models={written.model: member.model_plan}))
        members.append(written)
    spec = replace(predictor.spec, groups={})
    files[_DESCRIPTION] = _json(spec)
    if fingerprint is not None and fingerprint.is_file():
        measured = read_artefact(fingerprint, Fingerprint)
        files[_FINGERPRINT] = _json(replace(measured, cases=(), duplicates=(), findings=()))
    knowledge = predictor.knowledge
    bundle = Bundle(
        dataset=predictor.members[0].record.dataset,
        members=tuple(members),
        files={name: BundledFile(_hash(content), len(content)) for name, content in files.items()},
        description=_DESCRIPTION,
        fingerprint=_FINGERPRINT if _FINGERPRINT in files else "",
        licence=spec.licence,
        appearance=knowledge.appearance,
        calibration=knowledge.calibration,
        postprocessing=dict(knowledge.postprocessing),
        versions={"autoseg": autoseg.__version__, "torch": torch.__version__, "python": platform.python_version()},
    )
    with atomic_write(path) as beside, zipfile.ZipFile(beside, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(CONTENTS, _json(bundle))
        for name, content in files.items():
            archive.writestr(name, content)
    return bundle


def load_bundle(path: Path, *, device: str = "auto", tta: bool = False) -> Predictor:
    """The networks of a bundle, ready to predict; nothing is unpacked to disk and nothing executed.

    Raises AutosegError for what is no bundle, for paths that leave it, wrong hashes, and bundles of newer releases.
    """
    bundle, files = read_bundle(path)
    spec = _parsed(path, files, bundle.description, DatasetSpec)
    where = resolve(device)
    members = [_member(path, files, member, spec) for member in bundle.members]
    for member in members:
        member.network.to(where)
    knowledge = InferenceMetadata(bundle.appearance, bundle.calibration, bundle.postprocessing)
    return Predictor(members, where, tta, knowledge)


def read_bundle(path: Path) -> tuple[Bundle, dict[str, bytes]]:
    """What a bundle says of itself, and its files, checked. Raises as `load_bundle`."""
    if not path.is_file():
        raise AutosegError(f"{path} does not exist", "give a file that autoseg_export wrote")
    try:
        with zipfile.ZipFile(path) as archive:
            infos = {info.filename: info for info in archive.infolist()}
            _refuse_leaving(path, infos)
            if CONTENTS not in infos or infos[CONTENTS].file_size > _LARGEST_JSON:
                raise AutosegError(f"{path} is not a bundle of autoseg", "give a file that autoseg_export wrote")
            bundle = parse_artefact(archive.read(CONTENTS).decode(), Bundle, f"{path}: {CONTENTS}", _AGAIN)
            _check_files(path, bundle, infos)
            files = {name: archive.read(name) for name in bundle.files}
    except (zipfile.BadZipFile, UnicodeDecodeError, EOFError, OSError) as error:
        raise AutosegError(f"{path} is damaged: {error}", "fetch it again") from error
    wrong = [name for name, content in files.items() if _hash(content) != bundle.files[name].sha256]
    if wrong:
        raise AutosegError(f"{path}: {', '.join(wrong)} is not what was exported (its hash differs)", "fetch the bundle again")
    return bundle, files


def _refuse_leaving(path: Path, names: Mapping[str, object]) -> None:
    for name in names:
        parts = PurePosixPath(name.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts or ":" in name:
            raise AutosegError(f"{path} holds {name!r}, which leads out of the bundle, and was not opened", "do not trust it")


def _check_files(path: Path, bundle: Bundle, infos: Mapping[str, zipfile.ZipInfo]) -> None:
    for name, known in bundle.files.items():
        if name not in infos:
            raise AutosegError(f"{path} lacks {name}", "fetch the bundle again")
        if infos[name].file_size != known.size:
            raise AutosegError(f"{path}: {name} is not what was exported (its size differs)", "fetch the bundle again")


def _member(path: Path, files: Mapping[str, bytes], member: BundledMember, spec: DatasetSpec) -> Trained:
    record = _parsed(path, files, member.run, RunRecord)
    plan = _parsed(path, files, member.plan, Plan)
    if record.model not in plan.models or plan.models[record.model].preprocessing not in plan.preprocessing:
        raise AutosegError(f"{path}: {member.plan} does not plan {record.model}", "export the bundle again")
    model_plan = plan.models[record.model]
    preparation, scheme = plan.preprocessing[model_plan.preprocessing], spec.label_scheme()
    with torch.random.fork_rng([]):  # As in `load_network`.
        network = checkpoint.build_network(model_plan, preparation, scheme)
    try:
        network.load_state_dict(load(files[member.weights]))
    except (KeyError, RuntimeError, SafetensorError) as error:
        raise AutosegError(f"{path}: {member.weights} does not fit {record.model}: {error}", "export it again") from error
    return Trained(
        network=network.eval(),
        plan=plan,
        model_plan=model_plan,
        preparation=preparation,
        scheme=scheme,
        spec=spec,
        record=record,
    )


def _weights(member: Trained) -> dict[str, torch.Tensor]:
    # Tensors that share memory cannot stand in one safetensors file; each becomes a copy of its own.
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in member.network.state_dict().items()}


def _scores(folder: Path) -> dict[str, float]:
    path = folder / VALIDATION / "scores.json"
    if not path.is_file():
        return {}
    return {name: found.pooled["dice"] for name, found in read_artefact(path, Scores).classes.items()}


def _parsed(path: Path, files: Mapping[str, bytes], name: str, kind: type[A]) -> A:
    try:
        text = files[name].decode()
    except (KeyError, UnicodeDecodeError) as error:
        raise AutosegError(f"{path}: {name} is missing or damaged: {error}", _AGAIN) from error
    return parse_artefact(text, kind, f"{path}: {name}", _AGAIN)


def _json(artefact: Artefact) -> bytes:
    return serde.to_json(artefact).encode()


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
