"""autoseg_check_model: checks a network against the model contract."""

from __future__ import annotations

from collections.abc import Sequence

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
    from autoseg.planning.model_checks import check_model

    broken = 0
    for verdict in check_model(options.model):
        print(f"{'ok  ' if not verdict.fault else 'FAIL'}  {options.model} {verdict.variant}: {verdict.promise.title}")
        if verdict.fault:
            print(f"      {verdict.fault}\n      -> {verdict.promise.remedy}")
            broken += 1
    print("all checks passed" if not broken else f"{broken} checks failed")
    return 1 if broken else 0
