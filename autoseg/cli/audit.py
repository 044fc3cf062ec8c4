"""autoseg_audit: probable label errors in reference masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from autoseg.cli import _tables, entry

_SHOWN = 20


@entry.command
def main(arguments: Sequence[str] | None = None) -> int:
    parser = entry.parser(
        "autoseg_audit",
        "Rank cases and objects whose reference mask is probably wrong: models trained without them contradict it.\n"
        "Writes a gallery for decisions; autoseg_convert corrections then writes a corrected dataset.",
        "example: autoseg_audit Polyp",
    )
    entry.add_dataset(parser)
    parser.add_argument(
        "-m", "--models", type=entry.names, metavar="A,B",
        help="only these (default: those with at least 80 %% of the best one's held-out Dice)",
    )  # fmt: skip
    parser.add_argument("--most", type=int, default=100, metavar="N", help="maximum number of findings (default: 100)")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="where to write (default: results/DATASET/audit)")
    entry.add_device(parser)
    options = parser.parse_args(arguments)
    from autoseg import api

    result = api.audit(
        options.dataset, models=options.models, output=options.output, most=options.most, device=options.device,
        root=options.root,
    )  # fmt: skip
    rows = [(one.case, one.kind.replace("_", " "), f"{one.score:.2f}", one.reason) for one in result.findings[:_SHOWN]]
    _tables.show_table("Most likely errors", ("case", "kind", "score", "reason"), rows)
    return 0
