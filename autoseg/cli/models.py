"""autoseg_models: the registry."""

from __future__ import annotations

import json
from collections.abc import Sequence

from autoseg.cli import entry


@entry.command
def main(arguments: Sequence[str] | None = None) -> int:
    parser = entry.parser("autoseg_models", "List every architecture: family, variants, parameters, sizes, weights, paper.")
    parser.add_argument("--json", action="store_true", help="the same as JSON, for programs")
    options = parser.parse_args(arguments)
    from autoseg import api

    rows = api.model_table()
    if options.json:
        print(json.dumps(rows, indent=1, ensure_ascii=False))
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Architectures (parameters for 3 channels and 2 classes in the default variant)")
    for heading in ("name", "family", "variants", "parameters", "sizes", "weights", "paper"):
        table.add_column(heading, overflow="fold", justify="right" if heading == "parameters" else "left")
    for row in rows:
        variants = " ".join(f"[b]{v}[/b]" if v == row["default_variant"] else v for v in row["variants"])
        size = f"{row['fixed_size']} inside" if row["fixed_size"] else f"multiples of {row['divisor']}"
        weights = ", ".join(row["weights"]) or "none"
        table.add_row(
            row["name"], row["family"], variants, f"{row['parameters'] / 1e6:.1f} M", size, weights, row["citation"]
        )
    Console().print(table)
    return 0
