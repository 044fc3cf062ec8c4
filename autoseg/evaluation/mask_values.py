"""What the values of two folders of masks mean, if they are not plainly class numbers: read as `autoseg_convert` reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from autoseg.evaluation.pairing import Pair
from autoseg.fingerprint.mask_coding import MAX_CLASSES, LabelCoding, MaskFacts, count_mask_values, decide_coding
from autoseg.io import read_label
from autoseg.schema.dataset import LabelScheme
from autoseg.support.errors import AutosegError, SeveralProblems
from autoseg.support.log import progress_bar
from autoseg.support.parallel import parallel_map

_REMEDY = "give masks whose pixels are class numbers: 0 background, 1, 2, ..."


@dataclass(frozen=True)
class Codings:
    """How the values of the predictions and of the references become class numbers. notes: what was changed."""

    prediction: LabelCoding
    reference: LabelCoding
    notes: tuple[str, ...]


def decide_codings(pairs: Sequence[Pair], scheme: LabelScheme | None, workers: int | None = None) -> Codings:
    """Read all masks and decide. Unreadable ones are left out: scoring reports them.

    Raises SeveralProblems for values that are no labels, and for values whose class is ambiguous.
    """
    facts = [list(progress_bar(parallel_map(partial(_survey, side), pairs, workers), "read", len(pairs))) for side in (0, 1)]
    predicted, reference = ([fact for fact in side if fact is not None] for side in facts)
    if scheme is None:
        codings = _without_names(predicted, reference)
    else:
        codings = [_with_names(predicted, scheme, may_ignore=False), _with_names(reference, scheme, may_ignore=True)]
    sides = ("predictions", "references")
    problems = [f"{side}: {text}" for side, coding in zip(sides, codings, strict=True) for text in coding.problems]
    if problems:
        raise SeveralProblems("these masks cannot be read as classes:", problems, _REMEDY)
    notes = [f"{side}: {text}" for side, coding in zip(sides, codings, strict=True) for text in coding.notes]
    return Codings(codings[0], codings[1], tuple(notes))


def _survey(side: int, pair: Pair) -> MaskFacts | None:
    path = (pair.prediction, pair.reference)[side]
    try:
        return count_mask_values(path, "", read_label(path))
    except AutosegError:
        return None


def _with_names(facts: Sequence[MaskFacts], scheme: LabelScheme, may_ignore: bool) -> LabelCoding:
    plain = _values_of(facts)
    if plain is not None and plain <= set(scheme.values):
        return _identity(scheme.values)
    names = {member[0]: name for name, member in zip(scheme.names, scheme.members, strict=True) if len(member) == 1}
    classes = [value for value in scheme.values if value != scheme.ignore]
    labels = ["background", *(names.get(value, f"value {value}") for value in classes[1:])]
    coding = _decide(facts, labels)
    if coding.problems and may_ignore and scheme.ignore is not None:
        with_ignore = _decide(facts, [*labels, "ignore"])
        return coding if with_ignore.problems else with_ignore
    return coding


def _without_names(predicted: Sequence[MaskFacts], reference: Sequence[MaskFacts]) -> list[LabelCoding]:
    codings = [_decide(facts, None) for facts in (predicted, reference)]
    if any(coding.problems for coding in codings):
        return codings
    values = [sorted(value for value in coding.table if value) for coding in codings]
    common = sorted({*values[0], *values[1]})
    if values[0] == values[1] or max(common, default=0) < MAX_CLASSES:
        # The values agree, or are class numbers. A JPEG is still read by its levels.
        for coding in codings:
            coding.table = {value: value for value in (0, *common)}
            coding.notes = [note for note in coding.notes if "JPEG" in note]
    elif values[0] and values[1] and len(values[0]) != len(values[1]):
        codings[1].problems.append(f"they have the values {values[1]}, the predictions {values[0]}: the classes are ambiguous")
    else:
        for coding in codings:
            coding.notes = [note for note in coding.notes if not note.startswith("labels named")]
    return codings


def _decide(facts: Sequence[MaskFacts], labels: Sequence[str] | None) -> LabelCoding:
    if all(set(fact.counts) <= {0} for fact in facts):
        return _identity((0,))
    return decide_coding(facts, labels)


def _identity(values: Sequence[int]) -> LabelCoding:
    return LabelCoding(table={value: value for value in values})


def _values_of(facts: Sequence[MaskFacts]) -> set[int] | None:
    """All values; None if some are not exact."""
    if any(fact.lossy for fact in facts):
        return None
    return {value for fact in facts for value in fact.counts}
