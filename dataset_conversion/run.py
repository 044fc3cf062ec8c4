"""Runs a converter on a source and writes the raw dataset."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import autoseg
from autoseg.fingerprint.name_groups import NO_GROUPS, find_groups
from autoseg.io.deidentify import Names
from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.limits import without_separators
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.files import hash_text, restore_directories
from autoseg.support.workspace import Dataset, Workspace
from dataset_conversion.case_names import name_converted_cases, neutral_groups
from dataset_conversion.conversion_plan import ConversionPlan
from dataset_conversion.registry import REGISTRY, Converter, converter
from dataset_conversion.report import ConversionReport, read_matching_record
from dataset_conversion.source import Source
from dataset_conversion.storing import NewCase
from dataset_conversion.writer import check_free, next_number, write_dataset


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
    names: Names = "auto",
    workers: int | None = None,
) -> ConversionReport:
    """raw/DatasetXXX_Name from a folder or archive, by a converter of `registry`.

    name: default: the dataset's own. number: default: the next free one from 501. merge_test: test cases that have a
    reference become training cases, for cross-validation on all cases. names: of the cases of layouts, see
    `case_names`; a published dataset keeps its own. Converting the same files with the same options
    again does nothing. Raises SeveralProblems with all problems, and then writes nothing.
    """
    converter_row = converter(which)
    title = name or converter_row.title
    if not title:
        raise AutosegError(f"{converter_row.name} is a layout, not a dataset: it needs a name", "give one with --name")
    chosen = _options(converter_row, options or {})
    with Source(Path(source)) as opened:
        how = [*sorted(chosen.items()), ("merge_test", merge_test), *([("names", names)] if names != "auto" else [])]
        key = conversion_key(converter_row.name, title, how, opened.signature())
        dataset = target_dataset(workspace, title, number)
        if not overwrite and (existing := existing_report(dataset, key)) is not None:
            return existing
        check_free(dataset, overwrite)
        plan: ConversionPlan = REGISTRY.get(converter_row.name).find(opened, chosen)
        _rename_labels(plan)
        cases, renamed = _cases(plan, chosen.get("groups"), merge_test, names if converter_row.general else "keep")
        if plan.problems:
            count = f"{len(plan.problems)} problem{'s' if len(plan.problems) > 1 else ''}"
            raise SeveralProblems(f"{source} has {count}; nothing was written", plan.problems, "fix these and convert again")
        return write_dataset(
            dataset, _spec(plan, converter_row, title, chosen), cases, overwrite, workers,
            key=key, notes=plan.notes, renamed=renamed, dry_run=dry_run,
        )  # fmt: skip


def conversion_key(what: str, title: str, how: object, signature: str) -> str:
    """Hash of the converter, the options and the files: equal keys give equal datasets."""
    return hash_text(autoseg.__version__, what, title, json.dumps(how, default=str), signature)


def target_dataset(workspace: Workspace, title: str, number: int | None) -> Dataset:
    """The dataset to write: of this number, else the one with this name, else the next free number."""
    restore_directories(workspace.raw)
    if number is None:
        same = [dataset for dataset in workspace.datasets() if dataset.short_name.casefold() == title.casefold()]
        if len(same) == 1:
            return same[0]
    return workspace.new_dataset(next_number(workspace) if number is None else number, title)


def existing_report(dataset: Dataset, key: str) -> ConversionReport | None:
    """The report of a dataset that was made with the same key, else None."""
    from autoseg.io.raw_dataset import read_description

    record = read_matching_record(dataset, key)
    if record is None:
        return None
    return ConversionReport(dataset=dataset, spec=read_description(dataset.description), record=record, unchanged=True)


def _options(converter_row: Converter, values: Mapping[str, Any]) -> dict[str, Any]:
    """Every option of the converter, with its default. Raises AutosegError for unknown ones and bad choices."""
    options = {option.name: option for option in converter_row.options}
    for name, value in values.items():
        if name not in options:
            raise AutosegError(f"{converter_row.name} has no option {name!r}", f"it has {', '.join(options) or 'none'}")
        choices = options[name].choices
        if value is not None and choices and str(value) not in choices:
            raise AutosegError(f"{options[name].flag} is {value!r}", f"one of {', '.join(choices)}")
    return {name: value if (value := values.get(name)) is not None else option.default for name, option in options.items()}


def _rename_labels(plan: ConversionPlan) -> None:
    """Classes name files too, such as heat maps: a class bladder/uterus becomes bladder_uterus, with a note."""
    names = [without_separators(label) for label in plan.labels]
    renamed = [f"{old!r} is written as {new!r}" for old, new in zip(plan.labels, names, strict=True) if old != new]
    plan.notes += [f"the class {text}" for text in renamed]
    plan.problems += [f"several classes would be named {name!r}" for name, count in Counter(names).items() if count > 1]
    plan.labels = names


def _cases(
    plan: ConversionPlan, groups: str | None, merge_test: bool, kept: Names
) -> tuple[list[NewCase], dict[str, str]]:
    names = name_converted_cases(plan.cases, kept)
    plan.notes += names.notes() if names.hidden else []
    counts = Counter(case.name for case in plan.cases)
    plan.problems += [f"{count} cases have the name {name}" for name, count in counts.items() if count > 1]
    cases = [replace(case, name=names.cases[case.name], private=case.name in names.hidden) for case in plan.cases]
    if merge_test:
        # The only place that still says which cases the publisher tests on.
        cases = [_with_part(case) for case in cases] if any(case.part == "Ts" for case in cases) else cases
        cases = [replace(case, part="Tr") if case.label is not None else case for case in cases]
    if groups and groups != NO_GROUPS:
        matched = find_groups(groups, [case.name for case in plan.cases])
        plan.problems += [
            f"{name}: the expression for groups, {groups!r}, does not match" for name, group in matched.items() if group is None
        ]
        numbered = neutral_groups(names, {name: group or "" for name, group in matched.items()})
        cases = [replace(case, group=numbered[old.name]) for case, old in zip(cases, plan.cases, strict=True)]
    return cases, names.renamed


def _with_part(case: NewCase) -> NewCase:
    """The case with its part of the official split as an attribute, unless the converter gave it."""
    part = case.attributes.get("split") or ("test" if case.part == "Ts" else "training")
    return replace(case, attributes={**case.attributes, "split": part})


def _spec(plan: ConversionPlan, converter_row: Converter, title: str, chosen: Mapping[str, Any]) -> DatasetSpec:
    labels = {label: value for value, label in enumerate(plan.labels)}
    if plan.ignore:
        labels["ignore"] = len(labels)
    spec = DatasetSpec(
        channel_names={str(number): channel for number, channel in enumerate(plan.channels)},
        labels=dict(labels),
        numTraining=0,
        file_ending=plan.ending,
        name=title,
        modality=chosen.get("modality") or converter_row.modality,
        licence=converter_row.licence,
        reference="" if converter_row.general else converter_row.paper,
    )
    return replace(spec, independent_cases=chosen.get("groups") == NO_GROUPS, **plan.spec)
