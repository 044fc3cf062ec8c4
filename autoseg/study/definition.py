"""Reads study files: small YAML, checked as strictly as every other file, with all faults in one message.

Three short forms: a model is a name, an archive is one name, and a published number is a number without its deviation.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from autoseg.schema import serde
from autoseg.schema.faults import faults
from autoseg.schema.study import Study
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.extensions import MODELS

_SUFFIXES = (".yaml", ".yml")
_LARGEST = 1 << 20
_REMEDY = "correct the file; documentation/study.md describes each field"


def published_studies() -> tuple[str, ...]:
    """Names of the studies that come with autoseg."""
    folder = resources.files("autoseg.study") / "published"
    return tuple(sorted(one.name.removesuffix(".yaml") for one in folder.iterdir() if one.name.endswith(".yaml")))


def read_study(which: str) -> tuple[Study, Path | None]:
    """The study of a file, or one that comes with autoseg by name; and the folder its relative paths belong to, None for the
    latter. Raises AutosegError or SeveralProblems, once, with every fault of the file."""
    path = Path(which)
    if path.suffix.lower() in _SUFFIXES or path.is_file():
        return _parsed(_text(path), str(path)), path.absolute().parent
    names = published_studies()
    if which not in names:
        near = difflib.get_close_matches(which, names, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise AutosegError(
            f"there is no study {which!r}", f"{hint}Give a YAML file, or one of {', '.join(names)}"
        )
    text = (resources.files("autoseg.study") / "published" / f"{which}.yaml").read_text(encoding="utf-8")
    return _parsed(text, f"{which}.yaml"), None


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST:
            raise AutosegError(f"{path} has {path.stat().st_size >> 20} MiB: no study file", "give the YAML file of a study")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise AutosegError(f"there is no study file {path}", f"or one of {', '.join(published_studies())}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise AutosegError(f"{path} cannot be read: {error}", "give a YAML file in UTF-8") from error


def _parsed(text: str, where: str) -> Study:
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        problems = list(islice(_structure(node), 10)) if node is not None else ["it is empty"]
        content = yaml.safe_load(text) if not problems else None
    except yaml.YAMLError as error:
        raise AutosegError(f"{where} is no YAML: {_at(error)}", _REMEDY) from error
    except RecursionError as error:
        raise AutosegError(f"{where} is nested too deeply", _REMEDY) from error
    if not problems:
        problems = list(_faults(_expanded(content)))
    if problems:
        raise SeveralProblems(f"{where} is no study:", problems, _REMEDY)
    return serde.from_dict(_expanded(content), Study)


def _at(error: yaml.YAMLError) -> str:
    """The problem with its line, on one line."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    text = " ".join(str(problem or error).split())
    return f"line {mark.line + 1}, column {mark.column + 1}: {text}" if mark is not None else text


def _structure(node: yaml.Node) -> Iterator[str]:
    """Names given twice, of which YAML would keep the last one; and references, which could make a short file endless."""
    seen: set[int] = set()
    stack = [node]
    while stack:
        one = stack.pop()
        if isinstance(one, yaml.CollectionNode) and id(one) in seen:
            yield f"line {one.start_mark.line + 1}: references (&, *) are not supported"
            return
        seen.add(id(one))
        if isinstance(one, yaml.MappingNode):
            keys: set[str] = set()
            for key, value in one.value:
                name = str(key.value)
                if name in keys:
                    yield f"line {key.start_mark.line + 1}: {name!r} is given twice"
                keys.add(name)
                stack.append(value)
        elif isinstance(one, yaml.SequenceNode):
            stack += one.value


def _faults(content: Any) -> Iterator[str]:
    found = list(faults(content, Study))
    if found:
        yield from found
        return
    study = serde.from_dict(content, Study)
    yield from study.problems()
    for number, model in enumerate(study.models):
        try:
            MODELS.check(model.name)
        except AutosegError as error:
            yield f"models[{number}].name: {error.problem}; {error.remedy}"


def _expanded(content: Any) -> Any:
    """The content with the short forms written out. What has another form stays, for the message."""
    if not isinstance(content, dict):
        return content
    content = dict(content)
    if isinstance(content.get("models"), list):
        content["models"] = [{"name": one} if isinstance(one, str) else one for one in content["models"]]
    if isinstance(content.get("datasets"), list):
        content["datasets"] = [_with_list(one, "archive") for one in content["datasets"]]
    if isinstance(content.get("published"), list):
        content["published"] = [_with_number_lists(one) for one in content["published"]]
    return content


def _with_list(dataset: Any, key: str) -> Any:
    if isinstance(dataset, dict) and isinstance(dataset.get(key), str):
        return {**dataset, key: [dataset[key]]}
    return dataset


def _with_number_lists(table: Any) -> Any:
    if not isinstance(table, dict) or not isinstance(table.get("rows"), dict):
        return table
    rows = {
        model: {name: [value] if isinstance(value, int | float) else value for name, value in row.items()}
        if isinstance(row, dict)
        else row
        for model, row in table["rows"].items()
    }
    return {**table, "rows": rows}
