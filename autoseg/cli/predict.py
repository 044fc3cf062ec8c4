"""autoseg_predict: masks for new images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from autoseg.cli import entry

_SOME_FAILED = 1


@entry.command
def main(arguments: Sequence[str] | None = None) -> int:
    parser = entry.parser(
        "autoseg_predict",
        "Write a mask for each image, in the image's own size and geometry.",
        "example: autoseg_predict -i new_images -o masks -d 501 -m segformer",
    )
    parser.add_argument("-i", "--input", required=True, type=Path, metavar="IN", help="an image or a folder of images")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="OUT", help="folder for the masks")
    parser.add_argument("-d", "--dataset", required=True, metavar="DATASET", help="the dataset the model was trained on")
    parser.add_argument("-m", "--model", required=True, metavar="MODEL", help="the model")
    parser.add_argument("-f", "--folds", nargs="+", default=["all"], metavar="FOLD", help="folds to average (default: all)")
    parser.add_argument("--probabilities", action="store_true", help="also write each class's probability (.npz)")
    parser.add_argument("--overlays", action="store_true", help="also write pictures with the contours")
    parser.add_argument("--references", type=Path, metavar="DIR", help="masks to draw into the pictures")
    parser.add_argument("--recursive", action="store_true", help="subfolders too")
    parser.add_argument("--keep", action="store_true", help="leave masks that are there already")
    parser.add_argument("--tta", action="store_true", help="average over mirrored views: slower, a little better")
    entry.add_device(parser)
    options = parser.parse_args(arguments)
    from autoseg import api

    report = api.predict(
        options.input,
        options.output,
        options.dataset,
        options.model,
        entry.folds(options.folds),
        probabilities=options.probabilities,
        overlays=options.overlays or options.references is not None,
        references=options.references,
        tta=options.tta,
        recursive=options.recursive,
        overwrite=not options.keep,
        device=options.device,
        root=options.root,
    )
    print(report)
    return _SOME_FAILED if report.failed else 0
