"""autoseg_models: lists the architectures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from autoseg.cli import _tables, entry

if TYPE_CHECKING:
    from autoseg.api import ModelInfo


@entry.command
def main(arguments: Sequence[str] | None = None) -> int:
    parser = entry.parser("autoseg_models", "List every architecture: family, variants, parameters, sizes, weights, paper.")
    parser.add_argument(
        "models", nargs="*", metavar="MODEL", help="only these; timm:NAME is any encoder of timm, 'timm:*hiera*' all that match"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    from autoseg import api

    rows = api.model_table(options.root, models=options.models or None)
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=1, ensure_ascii=False))
        return 0
    _tables.show_table(
        "Architectures (* default variant; parameters for 3 channels and 2 classes)",
        ("name", "family", "variants", "sizes", "weights", "paper"),
        [_cells(row) for row in rows],
    )
    if not options.models:
        print("any encoder of timm is a model too, timm:NAME; for a list of some:")
        print("  autoseg_models 'timm:*convnext*'")
    return 0


def _cells(row: ModelInfo) -> list[str]:
    variants = [
        f"{name}{'*' if name == row.default_variant else ''} {parameters / 1e6:.1f} M"
        for name, parameters in row.variants.items()
    ]
    size = "any" if row.divisor == 1 else f"multiples of {row.divisor}"
    size = f"{row.fixed_size} internally" if row.fixed_size else size
    weights = "none"
    if row.weights:
        present = "present" if row.weights_present else "not present"
        weights = f"{', '.join(row.weights)}: {present} ({', '.join(row.licences)})"
    return [row.name, row.family, ", ".join(variants), size, weights, row.citation]
