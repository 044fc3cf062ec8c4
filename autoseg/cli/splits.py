"""autoseg_splits: shows the folds of a dataset, writes them for others, compares those of others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from autoseg.cli import _tables, entry

if TYPE_CHECKING:
    from autoseg.planning.split_file import SplitMatch
    from autoseg.schema.plan import Splits


@entry.command
def main(arguments: Sequence[str] | None = None) -> int:
    parser = entry.parser(
        "autoseg_splits",
        "Show the folds of a dataset with the id to quote; write them by the content of the images, or compare such a file.",
        "example: autoseg_splits 501 --export busi_folds.txt; others: autoseg_plan_and_preprocess 501 --splits busi_folds.txt",
    )
    entry.add_dataset(parser)
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--export", metavar="FILE", help="write the folds as text that names images by their content")
    action.add_argument("--check", metavar="FILE", help="list missing, extra and changed images of such a file; exit code 1")
    parser.add_argument("--without-names", action="store_true", help="leave the names of the cases out of the file")
    options = parser.parse_args(arguments)
    from autoseg import api

    if options.check:
        match = api.compare_splits(options.dataset, options.check, root=options.root)
        _show_match(match, options.check)
        if match.exact:
            entry.show_next(f"autoseg_plan_and_preprocess {options.dataset} --splits {options.check}", options.root)
        return 0 if match.exact else 1
    if options.export:
        folds = api.export_splits(options.dataset, options.export, names=not options.without_names, root=options.root)
        print(f"{options.export}: folds {folds.id}")
        return 0
    _show(api.splits_of(options.dataset, options.root))
    return 0


def _show(splits: Splits) -> None:
    rows = [
        (str(number), str(len(fold.train)), str(len(fold.inner)), str(len(fold.validation)))
        for number, fold in enumerate(splits.folds)
    ]
    _tables.show_table(f"Folds {splits.id}", ("fold", "trained on", "of them inner", "validated"), rows)
    _tables.show_text(splits.reason)


def _show_match(match: SplitMatch, file: str) -> None:
    lines = [("matched", str(len(match.sides)))]
    lines += [(what, str(len(cases))) for what, cases in _differences(match).items()]
    _tables.show_table(f"{file}: folds {match.id}, {match.folds} of them", ("images", "number"), lines)
    for line in match.differences():
        print(f"  {line}")


def _differences(match: SplitMatch) -> dict[str, tuple[str, ...]]:
    return {"missing": match.missing, "changed": match.changed, "extra": match.extra}
