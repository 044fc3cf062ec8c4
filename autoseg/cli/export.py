"""autoseg_export: trained networks as one file to share, as ONNX, or as a folder that predicts without autoseg."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from autoseg.cli import entry


@entry.command
def main(arguments: Sequence[str] | None = None) -> int:
    parser = entry.parser(
        "autoseg_export",
        "Write trained networks to one file for autoseg_predict --bundle; it needs nothing else.",
        "example: autoseg_export 501 segformer -o lesions.zip",
    )
    entry.add_dataset(parser)
    parser.add_argument("models", nargs="+", metavar="MODEL", help="models to average; best: what autoseg_find_best chose")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE", help="the bundle, FILE.zip")
    parser.add_argument("-f", "--folds", nargs="+", default=["all"], metavar="FOLD", help="folds to average (default: all)")
    parser.add_argument("--onnx", action="store_true", help="also FILE.<model>.fold_<k>.onnx, checked against torch on images")
    parser.add_argument(
        "--runtime", action="store_true", help="also FILE.runtime, a folder that predicts with NumPy and ONNX Runtime only"
    )
    options = parser.parse_args(arguments)
    from autoseg import api

    exported = api.export(
        options.dataset, entry.listed(options.models), options.output, entry.folds(options.folds),
        onnx=options.onnx, runtime=options.runtime, root=options.root,
    )  # fmt: skip
    print(exported)
    return 0
