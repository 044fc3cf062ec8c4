"""Model cards: numbers of the records, what people must state, and texts of users as text."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from autoseg.card.card import methods, model_card, sections, write_page
from autoseg.card.checklists import CLAIM, TRIPOD_AI, YOU
from autoseg.card.facts import CardFacts, Member
from autoseg.evaluation.case import class_score
from autoseg.evaluation.summary import summarise
from autoseg.metrics.overlap import Counts
from autoseg.metrics.surface import UNDEFINED_SURFACE
from autoseg.schema.prediction import Calibration, PostProcessing
from autoseg.schema.run import InitialWeights
from autoseg.schema.scores import CaseScore
from tests.planning.fingerprints import FakeDataset
from tests.prediction.stand_in import Bright, trained

WEIGHTS = InitialWeights(
    file="net.safetensors", sha256="ab" * 32, licence="MIT", trained_on="ImageNet-1k", source="https://x.org/net"
)


def scores(number: int, tp: int):
    one = class_score(Counts(tp, 100 - tp, 100 - tp), UNDEFINED_SURFACE, {})
    return summarise([CaseScore(f"secret_case_{number}", {"bright": one})], "px")


@pytest.fixture
def facts() -> CardFacts:
    members = []
    for fold, tp in ((0, 80), (1, 60)):
        member = trained(Bright(), fold)
        record = replace(member.record, weights=(WEIGHTS,), saw_scored_cases=(), steps=120, batch_size=4, learning_rate=1e-3)
        member = replace(member, record=record, spec=replace(member.spec, groups={"secret_case_0": "Erika Mustermann"}))
        reason = "5 folds, patients whole"
        members.append(Member(trained=member, scores=scores(fold, tp), training_cases=30, splits_reason=reason))
    return CardFacts(
        members=tuple(members), fingerprint=FakeDataset(cases=40, modality="ultrasound").fingerprint,
        calibration=Calibration(cases=20, slope=0.5, intercept=0.4, mean_absolute_error=0.1),
        postprocessing={"bright": PostProcessing(fill_holes=True)}, versions={"autoseg": "0.1.0", "torch": "2.14"},
    )  # fmt: skip


def lines(facts: CardFacts, title: str) -> dict[str, str]:
    return dict(next(one for one in sections(facts) if one.title == title).lines)


def test_results_are_those_of_the_folds(facts: CardFacts) -> None:
    results = lines(facts, "Results")
    assert results["bright"].startswith("mDSC 0.700 ± 0.141") and "Dice 0.700 ± 0.141" in results["bright, bright"]
    text = next(one.text for one in sections(facts) if one.title == "Results")
    assert "Of 2 held-out cases" in text and "no choice of the training saw" in text and "The ensemble was not measured" in text
    alone = replace(facts, members=facts.members[:1])
    assert lines(alone, "Results")["bright"].startswith("mDSC 0.800,") and "ensemble" not in str(sections(alone)[4].text)
    unscored = replace(facts, members=tuple(replace(one, scores=None) for one in facts.members))
    assert YOU in next(one.text for one in sections(unscored) if one.title == "Results")
    assert lines(unscored, "Results")["bright"] == "not scored" and "held-out cases: " not in methods(unscored)


def test_the_network_and_what_it_started_from(facts: CardFacts) -> None:
    network = lines(facts, "Network")
    assert "folds 0, 1" in network["bright"] and "softmax" in network["output"]
    assert all(text in network["starts from"] for text in ("ImageNet-1k", "MIT", "https://x.org/net", "ab" * 32))
    assert network["post-processing of bright"] == "holes filled"
    random = replace(facts, members=tuple(
        replace(one, trained=replace(one.trained, record=replace(one.trained.record, weights=()))) for one in facts.members
    ))  # fmt: skip
    assert lines(random, "Network")["starts from"] == "random weights" and "from random weights" in methods(random)


def test_limits_follow_from_the_records(facts: CardFacts) -> None:
    assert set(lines(facts, "Limits")) == {"one source", "one seed", "unlike images", "groups of patients"}
    optimistic = replace(facts, calibration=None, members=tuple(
        replace(one, trained=replace(one.trained, record=replace(one.trained.record, seed=fold, saw_scored_cases=("epoch",))))
        for fold, one in enumerate(facts.members)
    ))  # fmt: skip
    found = lines(optimistic, "Limits")
    assert "one seed" not in found and "the epoch was chosen on scored cases" in found["optimistic scores"]
    assert "not calibrated" in found["confidence"]


def test_the_methods_have_what_a_paper_needs(facts: CardFacts) -> None:
    text = methods(facts)
    for part in ("autoseg 0.1.0", "torch 2.14", "seed 0", "40 ultrasound images", "abababababab", "120 steps of 4 images",
                 "5 folds, patients whole", "bright: mDSC 0.700 ± 0.141", "dice_ce"):  # fmt: skip
        assert part in text, part


def test_a_card_without_a_fingerprint(facts: CardFacts) -> None:
    data = lines(replace(facts, fingerprint=None), "Data")
    assert set(data) == {"dataset", "reference", "licence"} and data["licence"] == YOU


def test_no_case_and_no_patient_is_named(facts: CardFacts, tmp_path) -> None:
    write_page(tmp_path / "card.html", facts)
    for text in (model_card(facts), (tmp_path / "card.html").read_text()):
        assert "secret_case" not in text and "Erika" not in text and "Dataset501_Tiny" in text
    assert lines(facts, "Data")["patients or other groups"] == "1"


def test_texts_of_users_are_no_markup(facts: CardFacts, tmp_path) -> None:
    evil = "<script>alert(1)</script>\n# Heading [x](javascript:y) **b**"
    members = tuple(
        replace(one, trained=replace(one.trained, spec=replace(one.trained.spec, description=evil, reference=evil)))
        for one in facts.members
    )
    facts = replace(facts, members=members)
    card = model_card(facts)
    assert "<script>" not in card.replace("\\<", "") and "\n# Heading" not in card
    assert not re.search(r"(?<!\\)\[x(?<!\\)\]", card)
    write_page(tmp_path / "card.html", facts)
    page = (tmp_path / "card.html").read_text()
    assert "<script>" not in page and "&lt;script&gt;" in page and "http" not in page.replace("https://x.org", "")


# Items of TRIPOD+AI that have parts, and how many.
PARTS = {3: 3, 5: 2, 6: 3, 8: 3, 9: 3, 12: 7, 18: 6, 20: 3, 23: 2, 27: 3}
NUMBERS = [f"{number}{letter}" for number in range(1, 28) for letter in "abcdefg"[: PARTS.get(number, 0)] or [""]]


def test_studies_that_an_item_is_for() -> None:
    of = {kind: [one.number for one in TRIPOD_AI if one.studies == kind] for kind in ("D", "E", "D;E")}
    assert of["D"] == ["9a", "12a", "12b", "12c", "15", "22", "27a", "27b"] and of["E"] == ["12f", "12g", "20c", "24"]
    assert sum(map(len, of.values())) == len(TRIPOD_AI) == 52


@pytest.mark.parametrize(("items", "numbers"), [(CLAIM, [str(number) for number in range(1, 45)]), (TRIPOD_AI, NUMBERS)])
def test_checklists_are_complete_and_point_to_sections(items, numbers: list[str], facts: CardFacts) -> None:
    assert [one.number for one in items] == numbers
    titles = {one.title for one in sections(facts)}
    for one in items:
        first = re.split(r"[,:;]", one.answer)[0]
        elsewhere = ("option", "code", "the bundle itself", "plan.json in the bundle")
        assert one.answer == YOU or first in titles or first in elsewhere, one
    assert 15 < sum(one.answer == YOU for one in CLAIM) < 30, "neither all nor nothing"


def test_commands_that_are_named_exist(facts: CardFacts) -> None:
    from tests.test_architecture import COMMANDS

    named = set(re.findall(r"autoseg\\?_([a-z_]+)", model_card(facts).replace("\\", "")))
    assert named and named <= set(COMMANDS)
