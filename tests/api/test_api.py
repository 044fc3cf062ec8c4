"""Every public function has typed parameters and a docstring with parameters, results and errors."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Callable
from typing import get_origin

import pytest

from autoseg import api
from autoseg.schema.frame import Tabular

FUNCTIONS = [name for name in api.__all__ if inspect.isfunction(getattr(api, name))]
CLASSES = [name for name in api.__all__ if inspect.isclass(getattr(api, name))]
METHODS = [
    f"Predictor.{name}"
    for name, _ in inspect.getmembers(api.Predictor, callable)
    if name == "__call__" or not name.startswith("_")
]
# No parameters, or only results of other functions: no user error is possible.
CANNOT_FAIL = {"decisions", "model_table"}


def resolve(name: str) -> Callable[..., object]:
    function: object = api
    for part in name.split("."):
        function = getattr(function, part)
    assert callable(function)
    return function


def section(documentation: str, title: str) -> str:
    """The indented text below "Title:"."""
    match = re.search(rf"^{title}:\n((?:[ ]+.*\n?|\n)+)", documentation, re.MULTILINE)
    return match[1] if match else ""


def test_public_names_exist_and_are_listed() -> None:
    assert set(dir(api)) == set(api.__all__) == {*FUNCTIONS, *CLASSES}
    assert {"Predictor", "AutosegError", "train", "run"} <= set(dir(api))
    with pytest.raises(AttributeError, match="no attribute 'Predicter'"):
        _ = api.Predicter


def test_import_is_light() -> None:
    code = """
import sys
from autoseg import api
from autoseg.schema.frame import Tabular
dir(api), api.__all__
heavy = {"torch", "numpy", "cv2", "pandas", "scipy", "matplotlib"} & set(sys.modules)
assert not heavy, heavy
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", [*FUNCTIONS, *METHODS])
def test_signatures_are_typed(name: str) -> None:
    signature = inspect.signature(resolve(name))
    for parameter in signature.parameters.values():
        assert parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL), f"{name} takes anything"
        if parameter.name != "self":
            assert parameter.annotation is not parameter.empty, f"{name}: {parameter.name} has no type"
            assert not re.search(r"\bAny\b|^object$", re.sub(r"NDArray\[Any\]", "", str(parameter.annotation))), parameter
    returned = signature.return_annotation
    assert returned is not signature.empty and not re.fullmatch("Any|object", str(returned)), f"{name} -> {returned}"


@pytest.mark.parametrize("name", [*FUNCTIONS, *METHODS])
def test_docstrings_describe_parameters_results_and_errors(name: str) -> None:
    function = resolve(name)
    documentation = inspect.getdoc(function) or ""
    assert re.match(r"[A-Z].*\.(?:\n|$|  ?[A-Z])", documentation), f"{name} does not begin with a sentence"
    described = re.findall(r"^    (\w+):", section(documentation, "Args"), re.MULTILINE)
    assert described == [parameter for parameter in inspect.signature(function).parameters if parameter != "self"]
    assert section(documentation, "Returns").strip(), f"{name} does not say what it returns"
    if name not in CANNOT_FAIL:
        assert re.search(r"^    AutosegError: \w", section(documentation, "Raises"), re.MULTILINE), f"{name}: what is raised?"


@pytest.mark.parametrize("name", CLASSES)
def test_classes_have_docstrings(name: str) -> None:
    documentation = getattr(api, name).__dict__["__doc__"]
    assert documentation and not documentation.startswith(f"{name}("), f"{name} has no docstring of its own"


def test_single_values_stand_for_lists() -> None:
    from autoseg.api.options import fold_numbers, model_names, setting_texts

    assert model_names("unet") == ["unet"] and model_names(("unet", "segformer")) == ["unet", "segformer"]
    assert fold_numbers(0) == [0] and fold_numbers(range(2)) == [0, 1]
    assert model_names(None) is None and fold_numbers(None) is None
    settings = {"training.epochs": 50, "training.cldice": 0.5, "a": True, "b": None, "models.unet.input_size": "64x64"}
    assert setting_texts(settings) == {
        "training.epochs": "50", "training.cldice": "0.5", "a": "true", "b": "none", "models.unet.input_size": "64x64",
    }  # fmt: skip


def test_unknown_engine_is_refused_first(tmp_path) -> None:
    with pytest.raises(api.AutosegError, match=r"no engine 'locl'\n.*local, ray, slurm"):
        api.run(501, engine="locl", root=tmp_path)


def returned_type(function: Callable[..., object]) -> type:
    """The class a function returns; those of TYPE_CHECKING blocks are looked up here."""
    from autoseg.evaluation.external import ExternalResult
    from autoseg.planning.split_file import SplitMatch
    from autoseg.prediction.export import Exported
    from autoseg.prediction.files import PredictionReport
    from autoseg.schema.prediction import BestChoice
    from dataset_conversion.report import ConversionReport

    lazy = {one.__name__: one for one in (ExternalResult, Exported, PredictionReport, BestChoice, ConversionReport, SplitMatch)}
    kind = eval(str(inspect.signature(function).return_annotation), {**function.__globals__, **lazy})
    return get_origin(kind) or kind


# `review_page` returns a gradio page.
@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - {"review_page"}))
def test_results_have_a_table(name: str) -> None:
    kind = returned_type(getattr(api, name))
    assert issubclass(kind, Tabular) and not inspect.isabstract(kind) and kind.__repr__ is Tabular.__repr__
