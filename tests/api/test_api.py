"""What every public function promises: typed parameters, and a docstring that says what each takes, returns and raises."""

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
# These take nothing, or what other functions return: there is nothing a caller could get wrong.
CANNOT_FAIL = {"decisions", "model_table"}


def resolve(name: str) -> Callable[..., object]:
    found: object = api
    for part in name.split("."):
        found = getattr(found, part)
    assert callable(found)
    return found


def section(documentation: str, title: str) -> str:
    """The indented text below "Title:"."""
    found = re.search(rf"^{title}:\n((?:[ ]+.*\n?|\n)+)", documentation, re.MULTILINE)
    return found[1] if found else ""


def test_everything_public_is_listed_and_there() -> None:
    assert set(dir(api)) == set(api.__all__) == {*FUNCTIONS, *CLASSES}
    assert {"Predictor", "AutosegError", "train", "run"} <= set(dir(api))
    with pytest.raises(AttributeError, match="no attribute 'Predicter'"):
        _ = api.Predicter


def test_the_import_stays_light() -> None:
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
def test_docstrings_say_what_goes_in_comes_out_and_can_fail(name: str) -> None:
    function = resolve(name)
    documentation = inspect.getdoc(function) or ""
    assert re.match(r"[A-Z].*\.(?:\n|$|  ?[A-Z])", documentation), f"{name} does not begin with a sentence"
    described = re.findall(r"^    (\w+):", section(documentation, "Args"), re.MULTILINE)
    assert described == [parameter for parameter in inspect.signature(function).parameters if parameter != "self"]
    assert section(documentation, "Returns").strip(), f"{name} does not say what it returns"
    if name not in CANNOT_FAIL:
        assert re.search(r"^    AutosegError: \w", section(documentation, "Raises"), re.MULTILINE), f"{name}: what is raised?"


@pytest.mark.parametrize("name", CLASSES)
def test_classes_are_described(name: str) -> None:
    documentation = getattr(api, name).__dict__["__doc__"]
    assert documentation and not documentation.startswith(f"{name}("), f"{name} has no docstring of its own"


def test_short_forms_are_taken() -> None:
    from autoseg.api.options import fold_numbers, model_names, setting_texts

    assert model_names("unet") == ["unet"] and model_names(("unet", "segformer")) == ["unet", "segformer"]
    assert fold_numbers(0) == [0] and fold_numbers(range(2)) == [0, 1]
    assert model_names(None) is None and fold_numbers(None) is None
    settings = {"training.epochs": 50, "training.cldice": 0.5, "a": True, "b": None, "models.unet.input_size": "64x64"}
    assert setting_texts(settings) == {
        "training.epochs": "50", "training.cldice": "0.5", "a": "true", "b": "none", "models.unet.input_size": "64x64",
    }  # fmt: skip


def test_an_unknown_engine_is_refused_before_anything_is_looked_for(tmp_path) -> None:
    with pytest.raises(api.AutosegError, match=r"no engine 'locl'\n.*local, ray, slurm"):
        api.run(501, engine="locl", root=tmp_path)


def returned_type(function: Callable[..., object]) -> type:
    """The class a function returns; those of TYPE_CHECKING blocks are looked up here."""
    from autoseg.evaluation.external import ExternalResult
    from autoseg.prediction.export import Exported
    from autoseg.prediction.files import PredictionReport
    from autoseg.schema.prediction import BestChoice
    from dataset_conversion.report import ConversionReport

    lazy = {one.__name__: one for one in (ExternalResult, Exported, PredictionReport, BestChoice, ConversionReport)}
    kind = eval(str(inspect.signature(function).return_annotation), {**function.__globals__, **lazy})
    return get_origin(kind) or kind


# What comes back is gradio's page.
@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - {"review_page"}))
def test_results_can_be_shown_in_a_notebook(name: str) -> None:
    kind = returned_type(getattr(api, name))
    assert issubclass(kind, Tabular) and not inspect.isabstract(kind) and kind.__repr__ is Tabular.__repr__
