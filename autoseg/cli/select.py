"""autoseg_select: the best way to train for a dataset in a number of hours."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from autoseg.cli import _tables, entry
from autoseg.cli.run import live_table

if TYPE_CHECKING:
    from autoseg.schema.selection import ModelSelection


@entry.resumable("the same command continues")
def main(arguments: Sequence[str] | None = None) -> int:
    parser = entry.parser(
        "autoseg_select",
        "Which network should I use? Try many ways to train for a short time, the better ones for longer, and confirm the "
        "best, next to the planner's default, on cases that no decision saw.",
        "example: autoseg_select 501 --hours 8",
    )
    parser.add_argument("datasets", metavar="DATASET", nargs="+", help="ids or names, one after the other")
    parser.add_argument(
        "--hours", type=float, required=True, metavar="H", help="for each dataset, since its first call; more continue it"
    )
    parser.add_argument("-m", "--models", default="all", metavar="A,B", help="model names, or all (default)")
    parser.add_argument("--objective", default="dice", metavar="M", help="what decides: dice (default), nsd, cldice, ...")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the parts of the cases and all trainings")
    parser.add_argument("--licence", default="any", choices=("any", "commercial"), help="of published weights (default: any)")
    entry.add_engine(parser)
    entry.add_deterministic(parser)
    entry.add_break_lock(parser)
    entry.add_device(parser)
    options = parser.parse_args(arguments)
    from autoseg import api

    with live_table() as watch:
        selections = api.select(
            options.datasets,
            hours=options.hours,
            models=None if options.models == "all" else entry.names(options.models),
            objective=options.objective,
            seed=options.seed,
            engine=options.engine,
            workers=options.workers,
            gpus_per_run=options.gpus_per_run,
            address=options.address,
            slurm=entry.settings(options.slurm, "--slurm"),
            retries=options.retries,
            licence=options.licence,
            deterministic=options.deterministic,
            break_lock=options.break_lock,
            device=options.device,
            watch=watch,
            handle_signals=True,
            root=options.root,
        )
    for selection in selections:
        _show(selection, options.root)
    if len(selections) > 1:
        _show_families(selections)
    return 0


def _show(selection: ModelSelection, root: str | None) -> None:
    from autoseg.selection.page import confirmed_headings, confirmed_names, confirmed_rows

    for number, rung in enumerate(selection.rounds, 1):
        best = rung.tried[0]
        first = f"{best.name} {best.value:.3f}"
        _tables.show_text(f"rung {number}: {len(rung.tried)} candidates, {rung.seconds:.0f} s each; first: {first}")
    cases = max(one.cases for one in selection.confirmed)
    title = f"{selection.dataset}: confirmed in folds, on {cases} cases or patients that no decision saw"
    _tables.show_table(title, confirmed_headings(selection), confirmed_rows(selection))
    for role, name in confirmed_names(selection):
        _tables.show_text(f"{role}: {name}")
    _tables.show_text(selection.reason)
    _tables.show_text(f"page: results/{selection.dataset}/selection/selection.html")
    suffix = "" if root is None else f" --root {shlex.quote(root)}"
    print(f"predict with these folds:\n  {selection.predict}{suffix}")
    print("final training:")
    for command in selection.train:
        print(f"  {command}{suffix}")


def _show_families(selections: Sequence[ModelSelection]) -> None:
    """Which family of models wins where: the best of each in the first rung, where all trained for the same time."""
    families = sorted({one.family for selection in selections for one in selection.candidates})
    rows = []
    for selection in selections:
        best: dict[str, float] = {}
        for one in selection.rounds[0].tried:
            family = selection.candidate(one.name).family
            if one.value == one.value:
                better = max if selection.higher_is_better else min
                best[family] = better(best.get(family, one.value), one.value)
        chosen = selection.candidate(selection.recommended)
        value = next(one.value.mean for one in selection.confirmed if one.name == selection.recommended)
        cells = [f"{best[family]:.3f}" if family in best else "–" for family in families]
        rows.append((selection.dataset, chosen.family, chosen.model, f"{value:.3f}", *cells))
    headings = ("dataset", "wins", "model", "confirmed", *(f"{family}, rung 1" for family in families))
    _tables.show_table("Which family wins where", headings, rows)
