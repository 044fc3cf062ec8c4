"""autoseg_audit: reference masks that trained models contradict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from autoseg.cli import entry

_SHOWN = 20


@entry.command
def main(arguments: Sequence[str] | None = None) -> int:
    parser = entry.parser(
        "autoseg_audit",
        "Rank cases and objects whose reference mask is probably wrong: models that never saw them contradict it.\n"
        "Writes a gallery to click through; autoseg_convert corrections makes a corrected dataset of the decisions.",
        "example: autoseg_audit Polyp",
    )
    entry.add_dataset(parser)
    parser.add_argument(
        "-m", "--models", type=entry.names, metavar="A,B",
        help="only these (default: those with at least 80 %% of the best one's held-out Dice)",
    )  # fmt: skip
    parser.add_argument("--most", type=int, default=100, metavar="N", help="findings to keep (default: 100)")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="where to write (default: results/DATASET/audit)")
    entry.add_device(parser)
    options = parser.parse_args(arguments)
    from autoseg import api

    found = api.audit(
        options.dataset, models=options.models, output=options.output, most=options.most, device=options.device,
        root=options.root,
    )  # fmt: skip
    rows = [(one.case, one.kind.replace("_", " "), f"{one.score:.2f}", one.reason) for one in found.findings[:_SHOWN]]
    entry.show_table("Most likely faults", ("case", "what", "score", "why"), rows)
    return 0
