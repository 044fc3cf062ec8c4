"""autoseg_plan_and_preprocess: fingerprint, plan, splits and arrays of a dataset."""

from __future__ import annotations

from collections.abc import Sequence

from autoseg.cli import _tables, entry
from autoseg.schema.plan import PROTOCOLS, Plan


@entry.command
def main(arguments: Sequence[str] | None = None) -> int:
    parser = entry.parser(
        "autoseg_plan_and_preprocess",
        "Fingerprint a dataset, plan for each model, write the splits and the arrays.",
        "example: autoseg_plan_and_preprocess 501 --models nnunet,segformer --explain",
    )
    entry.add_dataset(parser)
    parser.add_argument("--protocol", choices=PROTOCOLS, default="auto", help="default: auto; quick takes minutes on a CPU")
    parser.add_argument("-m", "--models", default="all", metavar="A,B", help="model names, or all (default)")
    parser.add_argument("--memory", metavar="SIZE", help="memory of a training, e.g. 8G (default: by the device)")
    limit = parser.add_mutually_exclusive_group()
    limit.add_argument(
        "--hours",
        type=float,
        metavar="H",
        help="fit a fold's training to this time (default: 1 for auto on a CPU; 0: no limit)",
    )
    limit.add_argument("--minutes", type=float, metavar="M", help="the same in minutes")
    parser.add_argument("--explain", action="store_true", help="print each decision with its reason")
    entry.add_settings(parser)
    parser.add_argument(
        "--groups", metavar="REGEX|none", help="finds the patient in a name: '(patient\\d+)'; none: one image of each patient"
    )
    parser.add_argument(
        "--licence", choices=("any", "commercial"), default="any",
        help="commercial: start from no weights whose licence forbids commercial use",
    )  # fmt: skip
    parser.add_argument(
        "--splits", metavar="FILE|canonical|official|by=COLUMN",
        help="folds: a file of autoseg (also autoseg_splits --export) or nnU-Net; by the images' content; the publisher's; one "
        "for each value of a column of --metadata (by=site), or of a part of the names ('by=case=(berlin|bern)')",
    )  # fmt: skip
    parser.add_argument("--metadata", metavar="FILE", help="CSV with a column 'case' and others, for --splits by=COLUMN")
    parser.add_argument(
        "--partial-splits", action="store_true", help="of a file by content take what fits, if images are missing or changed"
    )
    parser.add_argument("--no-preprocess", action="store_true", help="stop after the plan")
    entry.add_device(parser)
    options = parser.parse_args(arguments)
    from autoseg import api

    # As in training, because real training steps are timed.
    entry.configure_glibc_malloc(arguments, limit=None)
    plan = api.plan_and_preprocess(
        options.dataset,
        protocol=options.protocol,
        models=None if options.models == "all" else entry.names(options.models),
        memory=options.memory,
        device=options.device,
        settings=entry.settings(options.set),
        splits=options.splits,
        partial_splits=options.partial_splits,
        metadata=options.metadata,
        groups=options.groups,
        licence=options.licence,
        preprocess=not options.no_preprocess,
        processes=entry.is_own_process(arguments),
        hours=options.hours if options.minutes is None else options.minutes / 60,
        root=options.root,
    )
    if options.explain:
        _show_decisions(plan)
    _show_times(plan)
    entry.show_next(f"autoseg_train {plan.dataset.partition('_')[2]} {_first(plan)} 0", options.root)
    return 0


def _first(plan: Plan) -> str:
    """The first model that the time limit allows."""
    from autoseg.planning.time_budget import over_limit

    longer = over_limit(plan)
    return next((name for name in plan.models if name not in longer), next(iter(plan.models)))


def _steps(plan: Plan, models: Sequence[str]) -> str:
    return " or ".join(dict.fromkeys(str(timing.steps) for name in models if (timing := plan.models[name].timing)))


def _remedy(plan: Plan, longer: Sequence[str]) -> str:
    others = [name for name in plan.models if name not in longer]
    return f"give more time, or plan only the others: --models {','.join(others)}" if others else "give more time"


def _show_times(plan: Plan) -> None:
    """What a training of one fold costs, by model."""
    from autoseg.planning.time_budget import over_limit, show_time

    rows = []
    for name, model in plan.models.items():
        if model.timing is not None:
            timing, size = model.timing, f"{model.input_size[0]} x {model.input_size[1]}"
            step, trials = f"{timing.seconds_per_step:.2g} s", str(timing.trial_steps or "none")
            rows.append((name, show_time(timing.hours), str(timing.steps), step, model.variant, size, trials))
    if not rows:
        return
    headings = ("model", "one fold", "steps", "a step", "variant", "input", "of trials")
    shown = len(headings) if any(row[-1] != "none" for row in rows) else -1
    title = f"Expected time on this machine ({plan.device})"
    _tables.show_table(title, headings[:shown], [row[:shown] for row in rows])
    limit = f"limit: {show_time(plan.time_budget)} for a fold" if plan.time_budget else "no limit"
    _tables.show_text(f"{limit}; --hours or --minutes sets another")
    longer = over_limit(plan)
    if longer:
        names = ", ".join(longer)
        _tables.show_text(f"longer than the limit, with {_steps(plan, longer)} steps: {names}; {_remedy(plan, longer)}")


def _show_decisions(plan: Plan) -> None:
    from autoseg.planning.explain import grouped

    _tables.show_entries(
        "Decisions",
        (
            (
                f"{decision.subject}{_models(models, plan)}: {decision.value}",
                (decision.reason, decision.source and f"from the fingerprint: {decision.source}"),
            )
            for decision, models in grouped(plan)
        ),
    )


def _models(models: Sequence[str], plan: Plan) -> str:
    if not models or len(plan.models) == 1:
        return ""
    return " of all models" if len(models) == len(plan.models) else f" of {', '.join(models)}"
