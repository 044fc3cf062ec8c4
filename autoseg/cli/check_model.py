"""autoseg_check_model: checks a network against the model contract."""

from __future__ import annotations

from collections.abc import Sequence

from autoseg import api
from autoseg.cli import entry
from autoseg.support.extensions import MODELS


@entry.command
def main(arguments: Sequence[str] | None = None) -> int:
    parser = entry.parser(
        "autoseg_check_model",
        "Check that a network works for planning, training and prediction: every variant, with real forward passes.\n"
        "exit code 1: a check failed; the output says what to do",
        "example: autoseg_check_model unet",
    )
    parser.add_argument("model", metavar="NAME", help=f"one of {', '.join(MODELS.names())}")
    options = parser.parse_args(arguments)
    failed = [result for result in api.check_model(options.model, on_result=_print) if not result.passed]
    print("all checks passed" if not failed else f"{len(failed)} checks failed")
    return 1 if failed else 0


def _print(result: api.ModelCheck) -> None:
    print(f"{'ok  ' if result.passed else 'FAIL'}  {result.model} {result.variant}: {result.check}")
    if not result.passed:
        print(f"      {result.fault}\n      -> {result.remedy}")
