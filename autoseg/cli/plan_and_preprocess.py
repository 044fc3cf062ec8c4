"""autoseg_plan_and_preprocess: look at a dataset, decide for it, prepare its arrays."""

from __future__ import annotations

from collections.abc import Sequence

from autoseg.cli import entry
from autoseg.schema.plan import PROTOCOLS


@entry.command
def main(arguments: Sequence[str] | None = None) -> int:
    parser = entry.parser(
        "autoseg_plan_and_preprocess",
        "Fingerprint a dataset, plan for each model, make the splits, prepare the arrays.",
        "example: autoseg_plan_and_preprocess 501 --models nnunet,segformer --explain",
    )
    entry.add_dataset(parser)
    parser.add_argument("--protocol", choices=PROTOCOLS, default="auto", help="auto (default), the first study's, or minutes on a CPU")
    parser.add_argument("--models", default="all", metavar="A,B", help="model names, or all (default)")
    parser.add_argument("--memory", metavar="SIZE", help="memory a training may take, e.g. 8G (default: what the device has)")
    parser.add_argument("--explain", action="store_true", help="print each decision with its reason")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="set any field, e.g. training.epochs=50")
    parser.add_argument("--no-preprocess", action="store_true", help="stop after the plan")
    entry.add_device(parser)
    options = parser.parse_args(arguments)
    from autoseg import api

    plan = api.plan_and_preprocess(
        options.dataset,
        protocol=options.protocol,
        models=None if options.models == "all" else entry.names(options.models),
        memory=options.memory,
        device=options.device,
        settings=entry.settings(options.set),
        preprocess=not options.no_preprocess,
        root=options.root,
    )
    if options.explain:
        _explain(plan)
    return 0


def _explain(plan: object) -> None:
    from rich.console import Console
    from rich.table import Table

    from autoseg import api

    table = Table(title="What was decided, and why", show_lines=False)
    for heading in ("decision", "value", "because"):
        table.add_column(heading, overflow="fold")
    for decision in api.decisions(plan):
        table.add_row(decision.subject, decision.value, decision.because)
    Console().print(table)
