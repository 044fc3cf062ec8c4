"""Which published weights a model of the plan starts from: present or not, and allowed or not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from autoseg.models.base import ModelSpec
from autoseg.models.published_weights import PublishedWeights
from autoseg.planning.study_protocol import HINT
from autoseg.schema.plan import Decision
from autoseg.weights.catalogue import candidates
from autoseg.weights.pretrained import AUTO, NONE, STUDY, Choice, find_start


@dataclass(frozen=True)
class WeightsPolicy:
    """folder: of published weights, None if there is none. commercial: only weights whose licence allows commercial use."""

    folder: Path | None = None
    commercial: bool = False


@dataclass(frozen=True)
class InitialWeightsPlan:
    """choice: for the training. expected: the file it starts from, present or to be fetched; None for random weights."""

    choice: Choice
    expected: PublishedWeights | None
    decision: Decision


def decide_weights(
    model: ModelSpec, variant: str, policy: WeightsPolicy, choice: str = AUTO, *, study_too: bool = False
) -> InitialWeightsPlan:
    """Published weights if there are any for the variant. choice: "auto", or what the user set. study_too: instead of none, the
    encoder that only the first study used."""
    subject = f"models.{model.name}.pretrained"
    if choice == NONE:
        return InitialWeightsPlan(NONE, None, Decision(subject, NONE, "random weights were asked for"))
    stands_in = study_too and choice == AUTO and not model.weights_for(variant) and bool(model.weights_for(variant, study=True))
    study = choice == STUDY or stands_in
    published = candidates(model, variant, study=study)
    if not published:
        reason = "no published weights are known for this architecture"
        if model.weights_for(variant, study=True):
            reason = "its authors published none; --set " + subject + "=study takes an encoder that the first study used"
        return InitialWeightsPlan(NONE, None, Decision(subject, NONE, reason))
    allowed = candidates(model, variant, study=study, commercial=policy.commercial)
    if not any(allowed.values()):
        licences = ", ".join(sorted({one.licence or "not known" for files in published.values() for one in files}))
        reason = f"left out by --licence commercial: the licence of its weights does not allow it ({licences})"
        return InitialWeightsPlan(NONE, None, Decision(subject, NONE, reason))
    wanted: Choice = STUDY if study else AUTO
    start = find_start(model, variant, policy.folder, study=study, commercial=policy.commercial)
    present = start.source.published if start.source is not None else ()
    texts = [f"present: {start.source.description}, licence {_licences(present)}"] if start.source is not None else []
    missing = [files[0] for files in start.missing.values()]
    if missing:
        what = " and ".join(dict.fromkeys(one.trained_on for one in missing))
        texts.append(f"not present: {what}, licence {_licences(missing)}; autoseg_weights fetch {model.name}:{variant} gets it")
    if stands_in:
        texts.append(f"the study starts it from ImageNet, and this encoder is {HINT}; random weights: --set {subject}=none")
    expected = next(iter((*present, *missing)))
    return InitialWeightsPlan(wanted, expected, Decision(subject, wanted, "; ".join(texts)))


def _licences(files: tuple[PublishedWeights, ...] | list[PublishedWeights]) -> str:
    return " and ".join(dict.fromkeys(one.licence or "not known" for one in files))
