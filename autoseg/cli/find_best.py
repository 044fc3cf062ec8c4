"""autoseg_find_best: the best model, pair or triple of a dataset, and its post-processing."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from autoseg.cli import _tables, entry

_SHOWN = 12


@entry.command
def main(arguments: Sequence[str] | None = None) -> int:
    parser = entry.parser(
        "autoseg_find_best",
        "Choose the best model, pair or triple and the post-processing of each class, on out-of-fold predictions only.",
        "example: autoseg_find_best 501; autoseg_predict -i new -o masks -d 501 -m best",
    )
    entry.add_dataset(parser)
    parser.add_argument("-m", "--models", nargs="+", metavar="MODEL", help="choose among these (default: all that are trained)")
    entry.add_device(parser)
    options = parser.parse_args(arguments)
    from autoseg import api

    models = entry.listed(options.models or ()) or None
    choice = api.find_best(options.dataset, models, device=options.device, root=options.root)
    rows = [(" + ".join(one.models), f"{one.dice:.4f}") for one in choice.candidates[:_SHOWN]]
    _tables.show_table(f"Dice on {choice.cases} out-of-fold cases, mean over classes and cases", ("models", "Dice"), rows)
    print(f"best: {' + '.join(choice.models)}, folds {', '.join(map(str, choice.folds))}: {choice.dice_before:.4f}")
    for name, step in choice.postprocessing.items():
        print(f"  {name}: {step}")
    if choice.postprocessing:
        print(f"with post-processing: {choice.dice:.4f}")
    else:
        print("no post-processing improves this")
    for note in choice.dice_notes():
        _tables.show_text(note)
    print(choice.command if options.root is None else f"{choice.command} --root {shlex.quote(options.root)}")
    return 0
