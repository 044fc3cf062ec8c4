"""autoseg_demo: the full pipeline in a few minutes, on images that come with an installed package."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autoseg.cli import _tables, entry

if TYPE_CHECKING:
    from autoseg.schema.scores import Scores

_NUMBER = 500
# Fewer than in the quick protocol: the tissues are easy, and a demo should be short.
_EPOCHS = 20


@entry.resumable("the same command resumes the training")
def main(arguments: Sequence[str] | None = None) -> int:
    parser = entry.parser(
        "autoseg_demo",
        "Fingerprint, plan, train, predict and score gray and white matter in slices of the MNI152 average brain.",
        "An average brain demonstrates the program; it is no evidence about patients.",
    )
    parser.add_argument("--model", default="efficientnet_lite0_upernet", help="default: efficientnet_lite0_upernet")
    parser.add_argument("--epochs", type=int, default=_EPOCHS, metavar="N", help=f"passes over the slices (default: {_EPOCHS})")
    entry.add_device(parser)
    options = parser.parse_args(arguments)
    from autoseg import api
    from autoseg.support.workspace import Workspace, images_folder, labels_folder
    from dataset_conversion.mni152 import convert_mni152

    start = time.perf_counter()
    workspace = Workspace.at(options.root)
    print("1/5  axial slices of the MNI152 average brain (a demonstration, not evidence)")
    dataset = convert_mni152(_NUMBER, workspace, overwrite=True)
    print("2/5  fingerprint, plan, arrays")
    settings = {"training.epochs": str(options.epochs)}
    api.plan_and_preprocess(
        dataset.name, protocol="quick", models=[options.model], device=options.device, settings=settings, root=options.root
    )
    print(f"3/5  training {options.model} on fold 0 (an interrupted demo resumes here)")
    api.train(dataset.name, options.model, [0], device=options.device, handle_signals=True, root=options.root)
    print("4/5  predicting slices that were not in the training")
    masks = dataset.model(options.model) / "test"
    api.predict(
        images_folder(dataset, "Ts"), masks, dataset.name, options.model, [0],
        overlays=True, references=labels_folder(dataset, "Ts"), device=options.device, root=options.root,
    )  # fmt: skip
    print("5/5  scores")
    scores = api.evaluate(masks, labels_folder(dataset, "Ts"))
    _print_results(scores, masks, dataset.plan, dataset.fold(options.model, 0), time.perf_counter() - start)
    return 0


def _print_results(scores: Scores, masks: Path, plan: Path, fold: Path, seconds: float) -> None:
    _tables.show_table(
        "",
        ("class", "Dice", f"HD95 ({scores.unit})"),
        [
            (name, f"{summary.pooled['dice']:.3f}", f"{summary.per_image['hd95'].mean:.1f}")
            for name, summary in scores.classes.items()
        ],
    )
    print(f"done in {seconds / 60:.1f} minutes. Results:")
    for title, path in {
        "prediction and reference on the image": masks / "overlays",
        "training curves": fold / "progress.png",
        "decisions and reasons": plan,
        "scores of each slice": masks / "scores.csv",
    }.items():
        print(f"  {title:38s} {path}")
