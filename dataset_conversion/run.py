"""From a source and a converter's name to a raw dataset: what all converters share around their own script."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import autoseg
from autoseg.schema.dataset import DatasetSpec
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.files import hash_text
from autoseg.support.workspace import Dataset, Workspace
from dataset_conversion.conversion_plan import ConversionPlan
from dataset_conversion.registry import REGISTRY, Converter, converter
from dataset_conversion.report import ConversionReport, finished
from dataset_conversion.source import Source
from dataset_conversion.storing import NewCase
from dataset_conversion.writer import check_free, next_number, safe_names, write_dataset


def convert(
    which: str,
    source: Path,
    workspace: Workspace,
    name: str = "",
    number: int | None = None,
    options: Mapping[str, Any] | None = None,
    *,
    merge_test: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    workers: int | None = None,
) -> ConversionReport:
    """raw/DatasetXXX_Name from a folder or archive, by one of the converters in `registry`.

    name: by default the dataset's own. number: by default the next free one from 501. merge_test: test cases that have a
    reference become training cases, as cross-validation of the whole set wants it. Converting the same files in the same
    way again does nothing. Raises SeveralProblems with everything that is wrong; nothing is written then.
    """
    known = converter(which)
    title = name or known.title
    if not title:
        raise AutosegError(f"{known.name} is a layout, not a dataset: it needs a name", "give one with --name")
    chosen = _options(known, options or {})
    with Source(Path(source)) as opened:
        key = conversion_key(known.name, title, [*sorted(chosen.items()), ("merge_test", merge_test)], opened.signature())
        dataset = place_for(workspace, title, number)
        if not overwrite and (there := already_there(dataset, key)) is not None:
            return there
        check_free(dataset, overwrite)
        draft: ConversionPlan = REGISTRY.get(known.name).find(opened, chosen)
        cases, renamed = _cases(draft, chosen.get("groups"), merge_test)
        if draft.problems:
            count = f"{len(draft.problems)} problem{'s' if len(draft.problems) > 1 else ''}"
            raise SeveralProblems(
                f"{source} has {count}; nothing was written", draft.problems, "mend these and convert again"
            )
        return write_dataset(
            dataset, _spec(draft, known, title, chosen), cases, overwrite, workers,
            key=key, notes=draft.notes, renamed=renamed, dry_run=dry_run,
        )  # fmt: skip


def conversion_key(what: str, title: str, how: object, signature: str) -> str:
    """Hash of what is converted, and how: the same one gives the same dataset."""
    return hash_text(autoseg.__version__, what, title, json.dumps(how, default=str), signature)


def place_for(workspace: Workspace, title: str, number: int | None) -> Dataset:
    """The dataset to write: of the given number, else the one that has this name, else the next free number."""
    if number is None:
        same = [dataset for dataset in workspace.datasets() if dataset.short_name.casefold() == title.casefold()]
        if len(same) == 1:
            return same[0]
    return workspace.new_dataset(next_number(workspace) if number is None else number, title)


def already_there(dataset: Dataset, key: str) -> ConversionReport | None:
    """The report of a dataset that was made from the same files in the same way."""
    from autoseg.io.raw_dataset import read_description

    record = finished(dataset, key)
    if record is None:
        return None
    return ConversionReport(dataset=dataset, spec=read_description(dataset.description), record=record, unchanged=True)


def _options(known: Converter, given: Mapping[str, Any]) -> dict[str, Any]:
    """Every option of the converter, with its default. Raises AutosegError for unknown ones and bad choices."""
    options = {option.name: option for option in known.options}
    for name, value in given.items():
        if name not in options:
            raise AutosegError(f"{known.name} has no option {name!r}", f"it has {', '.join(options) or 'none'}")
        choices = options[name].choices
        if value is not None and choices and str(value) not in choices:
            raise AutosegError(f"{options[name].flag} is {value!r}", f"one of {', '.join(choices)}")
    return {name: value if (value := given.get(name)) is not None else option.default for name, option in options.items()}


def _cases(draft: ConversionPlan, groups: str | None, merge_test: bool) -> tuple[list[NewCase], dict[str, str]]:
    names = safe_names([case.name for case in draft.cases])
    counts = Counter(case.name for case in draft.cases)
    draft.problems += [f"{count} cases are called {name}" for name, count in counts.items() if count > 1]
    cases = [replace(case, name=names[case.name]) for case in draft.cases]
    if merge_test:
        cases = [replace(case, part="Tr") if case.label is not None else case for case in cases]
    if groups:
        pattern = group_expression(groups)
        found = {case.name: pattern.search(old.name) for case, old in zip(cases, draft.cases, strict=True)}
        draft.problems += [
            f"{name}: the expression for groups, {groups!r}, finds nothing in it" for name, match in found.items() if not match
        ]
        cases = [replace(case, group=match[1] if (match := found[case.name]) else "") for case in cases]
    return cases, {old: new for old, new in names.items() if old != new}


def group_expression(text: str) -> re.Pattern[str]:
    """Raises AutosegError for one that is not valid, or has not exactly one group."""
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise AutosegError(
            f"the expression for groups, {text!r}, is not valid: {error}", r"for example (patient\d+)"
        ) from error
    if pattern.groups != 1:
        raise AutosegError(
            f"the expression for groups, {text!r}, needs exactly one group in ()", r"for example (patient\d+)"
        )
    return pattern


def _spec(draft: ConversionPlan, known: Converter, title: str, chosen: Mapping[str, Any]) -> DatasetSpec:
    labels = {label: value for value, label in enumerate(draft.labels)}
    if draft.ignore:
        labels["ignore"] = len(labels)
    spec = DatasetSpec(
        channel_names={str(number): channel for number, channel in enumerate(draft.channels)},
        labels=dict(labels),
        numTraining=0,
        file_ending=draft.ending,
        name=title,
        modality=chosen.get("modality") or known.modality,
        licence=known.licence,
        reference="" if known.general else known.paper,
    )
    return replace(spec, **draft.spec)
