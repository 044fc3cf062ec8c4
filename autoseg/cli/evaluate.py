"""autoseg_evaluate: masks against references."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autoseg.cli import entry

if TYPE_CHECKING:
    from autoseg.schema.scores import Scores


@entry.command
def main(arguments: Sequence[str] | None = None) -> int:
    parser = entry.parser(
        "autoseg_evaluate",
        "Score masks against references: per case, per class and overall; writes scores.json and scores.csv beside the masks.",
        "example: autoseg_evaluate masks autoseg_data/raw/Dataset501_Polyp/labelsTs",
    )
    parser.add_argument("predictions", type=Path, metavar="PRED", help="folder of predicted masks")
    parser.add_argument("references", type=Path, metavar="REF", help="folder of reference masks")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="where the scores go (default: beside the masks)")
    parser.add_argument(
        "--tolerance", type=float, default=2.0, metavar="T", help="of the surface Dice, in pixels or mm (default: 2)"
    )
    options = parser.parse_args(arguments)
    from autoseg import api

    scores = api.evaluate(options.predictions, options.references, options.output, options.tolerance)
    entry.show_table(
        f"{len(scores.cases)} cases; distances in {scores.unit}",
        ("class", "metric", "pooled", "per image", "deviation", "undefined"),
        _rows(scores),
    )
    print(scores.rule)
    return 0


def _rows(scores: Scores) -> Iterator[tuple[str, ...]]:
    for name, summary in scores.classes.items():
        for metric, spread in summary.per_image.items():
            pooled = _number(summary.pooled[metric]) if metric in summary.pooled else ""
            yield name, metric, pooled, _number(spread.mean), _number(spread.std), str(spread.undefined)
    for key, value in scores.overall.items():
        kind, _, metric = key.partition(".")
        yield "all classes", metric, *(_number(value) if kind == column else "" for column in ("pooled", "per_image")), "", ""


def _number(value: float) -> str:
    return "undefined" if value != value else f"{value:.4f}"
