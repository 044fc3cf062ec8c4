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
    parser.add_argument("--protocol", choices=PROTOCOLS, default="auto", help="default: auto; quick takes minutes on a CPU")
    parser.add_argument("--models", default="all", metavar="A,B", help="model names, or all (default)")
    parser.add_argument("--memory", metavar="SIZE", help="for a training, e.g. 8G (default: by the device)")
    parser.add_argument("--explain", action="store_true", help="print each decision with its reason")
    entry.add_settings(parser)
    parser.add_argument("--splits", metavar="FILE", help="folds of your own: autoseg's or nnU-Net's splits file")
    parser.add_argument("--no-preprocess", action="store_true", help="stop after the plan")
    entry.add_device(parser)
    options = parser.parse_args(arguments)
    from autoseg import api

    entry.configure_glibc_malloc(arguments)
    plan = api.plan_and_preprocess(
        options.dataset,
        protocol=options.protocol,
        models=None if options.models == "all" else entry.names(options.models),
        memory=options.memory,
        device=options.device,
        settings=entry.settings(options.set),
        splits=options.splits,
        preprocess=not options.no_preprocess,
        processes=entry.is_own_process(arguments),
        root=options.root,
    )
    if options.explain:
        rows = [(found.subject, found.value, found.reason, found.source) for found in api.decisions(plan)]
        entry.show_table("What was decided, and why", ("decision", "value", "reason", "from the fingerprint"), rows)
    return 0
