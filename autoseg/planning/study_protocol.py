"""The protocol of the first study (Borst & Kounev, arXiv 2603.13044), item by item: what is known of it, and from where.

The study states the sizes, the loss, the optimiser and schedule, the candidates of the learning rate, five folds, and that
duplicates are removed. Notes of others on it, second hand, add the length of the search. `woundambit`, an earlier public
benchmark code of the same first author with the same input size, optimiser, schedule, batch and rates, is a strong hint for the
rest, and no proof. Each reason says which of them it rests on, and names the setting that does otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from autoseg.schema.dataset import DatasetSpec
from autoseg.schema.fingerprint import Fingerprint
from autoseg.schema.plan import Decision

HINT = "a hint from woundambit"
EPOCHS, PATIENCE, MIN_DELTA, SEARCH_EPOCHS = 150, 20, 0.001, 100
RATES = (1e-4, 5e-5, 1e-5)
SIDE = 512
# Images of each set before and after duplicates were removed; part of a dataset's name -> numbers.
_COUNTS = {"isic": ("ISIC 2018", 3694, 3565), "neopolyp": ("NeoPolyp", 1000, 945), "camus": ("CAMUS", 2000, 1996)}

# Subject of a decision -> its reason.
REASONS = {
    "protocol": (
        "Borst & Kounev, arXiv 2603.13044; where the study is silent, woundambit: an earlier public benchmark code of its "
        "first author with the same size, optimiser, schedule, batch and rates, so its settings are strong hints and no proof"
    ),
    "training.epochs": "the study's protocol: up to 150 with early stopping",
    "training.optimizer": "the study's protocol",
    "training.schedule": "the study's protocol",
    "training.learning_rates": "the study's candidates",
    "training.search_epochs": (
        "each candidate is trained that long on fold 0, by notes of others on the study; woundambit trains 120: "
        "--set training.search_epochs=120. The best by {monitor} on its scored cases is used for all folds, as in the study; "
        "the search takes {fraction:.0%} of a fold's budget"
    ),
    "training.monitor": (
        "chooses epoch and learning rate; the study averages over images and classes, and does not say by what ({hint}: the "
        "micro IoU); mDSC, which orders epochs alike: --set training.monitor=micro.dice"
    ),
    "training.patience": (
        "the study has one early-stopping rule for all and does not give its length ({hint}: 20 validations); another one: "
        "--set training.patience=10"
    ),
    "training.min_delta": (
        "the least gain that patience counts; not given by the study ({hint}: 0.001); every gain: --set training.min_delta=0"
    ),
    "training.gradient_clip": "none is named by the study ({hint}: none); to clip: --set training.gradient_clip=1",
    "training.auxiliary_losses": (
        "none are named by the study ({hint}: no auxiliary losses, no deep supervision); as each architecture was published: "
        "--set training.auxiliary_losses=true. A network with a loss of its own keeps it"
    ),
    "training.foreground_share": (
        "no oversampling of rare classes is named by the study; cases with one of them for a third of the samples: "
        "--set training.foreground_share=0.33"
    ),
    "training.validate_every": "early stopping needs every epoch",
    "training.selection": (
        "the best epoch on the scored cases, so scores are optimistic: the study names five folds and no test part ({hint}: "
        "three parts train, one chooses, one is scored: --set training.selection=next_fold)"
    ),
    "training.scored_size": (
        "masks are scored at the images' own size; the study names none ({hint}: the size of the network's input: "
        "--set training.scored_size=input)"
    ),
    "training.tta": "no test-time augmentation is named by the study; to average over mirrored views: --set training.tta=true",
    "warmup_epochs": "none is named by the study ({hint}: none); one epoch: --set models.NAME.warmup_epochs=1",
    "augmentation": (
        "one pipeline for each dataset, as in the study, by this planner's rules: the study does not name the transforms "
        "({hint}: affine with any angle, shift 0.25, shear 17.5 degrees, scale 0.75 to 1.25, blur, tones, flips: "
        "--set augmentation=affine)"
    ),
    "geometry": (
        "the study's protocol: every image at this size, for every model ({hint}: padded to a square first: --set geometry=pad)"
    ),
}
# What is said of a model next to its variant: the study's architecture where a hint differs from what was published.
MODEL_NOTES = {
    "unet": (
        "31 M parameters, as in the study; without norm layers, a hint from woundambit: "
        "--set models.unet.options.norm=false"
    ),
    "missformer": (
        "works at 224 inside, as in the study; shrinking with antialiasing, a hint from woundambit: "
        "--set models.missformer.options.antialias=true"
    ),
    "hiformer": "works at 224 inside, as in the study",
    "vwformer_convnext": (
        "one attention head, as published; 16, a hint from woundambit: --set models.vwformer_convnext.options.heads=16"
    ),
}


def decision(subject: str, value: str, source: str = "", **numbers: Any) -> Decision:
    """The decision of the protocol on a subject of `REASONS`."""
    return Decision(subject, value, REASONS[subject].format(hint=HINT, **numbers), source)


@dataclass(frozen=True)
class Expected:
    """Images of a set of the study, before and after duplicates were removed."""

    name: str
    before: int
    after: int


def expected_cases(fingerprint: Fingerprint, spec: DatasetSpec) -> Expected | None:
    """What the study counted, for a dataset with the name of one of its sets."""
    names = "".join(char for char in f"{fingerprint.dataset} {spec.name}".lower() if char.isalnum())
    return next((Expected(*numbers) for part, numbers in _COUNTS.items() if part in names), None)
