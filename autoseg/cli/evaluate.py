"""autoseg_evaluate: masks against references."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from autoseg.cli import entry


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
    options = parser.parse_args(arguments)
    from autoseg import api

    scores = api.evaluate(options.predictions, options.references, options.output)
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{len(scores.cases)} cases; distances in {scores.unit}")
    for heading in ("class", "metric", "pooled", "per image", "sd", "undefined"):
        table.add_column(heading, justify="left" if heading in ("class", "metric") else "right")
    for name, summary in scores.classes.items():
        for metric, spread in summary.per_image.items():
            pooled = summary.pooled.get(metric)
            table.add_row(
                name,
                metric,
                "" if pooled is None else f"{pooled:.4f}",
                f"{spread.mean:.4f}",
                f"{spread.std:.4f}",
                str(spread.undefined),
            )
    console = Console()
    console.print(table)
    console.print(scores.rule)
    return 0
