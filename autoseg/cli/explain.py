"""autoseg_explain: where a trained network looks."""

from __future__ import annotations

import math
from collections.abc import Sequence

from autoseg.cli import _tables, entry


@entry.command
def main(arguments: Sequence[str] | None = None) -> int:
    parser = entry.parser(
        "autoseg_explain",
        "Heat maps of a trained fold: Grad-CAM and a gradient-free method, as pictures and as fractions of the heat.",
        "example: autoseg_explain Polyp segformer 0 --cases polyp_001,polyp_007",
    )
    entry.add_dataset(parser)
    parser.add_argument("model", metavar="MODEL", help="a trained model")
    parser.add_argument("fold", type=int, metavar="FOLD", help="0, 1, ...")
    parser.add_argument("--cases", type=entry.names, metavar="A,B", help="default: the first held-out cases")
    parser.add_argument("--layer", default="auto", metavar="NAME", help="a module of the network (default: the model's own)")
    parser.add_argument(
        "--region", choices=("predicted", "reference"), default="predicted", help="where the class's logits are averaged"
    )
    entry.add_device(parser)
    options = parser.parse_args(arguments)
    from autoseg import api

    explanation = api.explain(
        options.dataset,
        options.model,
        options.fold,
        options.cases,
        layer=options.layer,
        region=options.region,
        device=options.device,
        root=options.root,
    )
    _tables.show_table(
        f"{explanation.model}, fold {explanation.fold}, layer {explanation.layer}: fractions of the heat",
        ("case", "class", "method", "inside", "ring", "outside"),
        [
            (one.case, one.name, one.method, *map(_fraction, (one.inside, one.ring, one.outside)))
            for one in explanation.heatmaps
        ],
    )
    if any(math.isnan(one.inside) for one in explanation.heatmaps):
        print("–: the reference has no such class, or the map has no heat")
    for subject, reason in explanation.skipped.items():
        print(f"skipped: {subject}: {reason}")
    return 0


def _fraction(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"
