"""Objects read piece by piece, however the pieces fall, are those that json reads at once."""

import dataclasses
import io
import json
import random

import pytest

from autoseg.schema import reading, serde
from autoseg.schema.reading import read_object
from autoseg.schema.scores import CaseScore, ClassScore

TEXTS = [
    "{}",
    ' {"a": [], "b": 1}\n',
    '{"a" : [ {"x": 1.25e-3, "y": [1, -2.5, null, true]} , {"x": "}],{\\"\\\\ä"} ], "a2": [1, 2], "é": {"a": [3]}}',
    json.dumps({"a": [{"x": i / 7, "n": "n" * (i % 50)} for i in range(300)], "z": [i * 1.5 for i in range(200)]}, indent=1),
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("more", [1, 2, 3, 17, 1 << 16])
def test_pieces_give_what_the_whole_gives(text, more, monkeypatch):
    monkeypatch.setattr(reading, "_MORE", more)
    wanted = json.loads(text)
    if "a" in wanted:
        wanted["a"] = tuple(("made", item) for item in wanted["a"])
    assert read_object(io.StringIO(text), {"a": lambda item: ("made", item)}) == wanted


@pytest.mark.parametrize(
    "text",
    ["", "[1]", "{", '{"a": [1}', '{"a": 1,}', '{"a" 1}', '{"a": 1} {}', '{"a": [1, ]}', '{"a": tru}', '{,"a": 1}', "{1: 2}"],
)
def test_what_json_refuses_is_refused(text):
    with pytest.raises(ValueError):
        read_object(io.StringIO(text), {"a": int})


@dataclasses.dataclass(frozen=True)
class Table:
    name: str
    cases: tuple[CaseScore, ...]
    pair: tuple[CaseScore, CaseScore] | None = None


def table():
    draw = random.Random(0)

    def score(tp):
        share = draw.random()
        return ClassScore(
            tp=tp, fp=1, fn=2, dice=draw.random(), iou=share, precision=share, recall=share, hd95=float("nan")
        )

    scores = [score(i) for i in range(50)]
    return Table("x", tuple(CaseScore(f"c{i}", {"a": score, "b": scores[0]}) for i, score in enumerate(scores)))


@pytest.mark.parametrize("more", [1, 100, 1 << 16])
def test_a_stream_gives_the_dataclass_of_the_text(more, monkeypatch):
    monkeypatch.setattr(reading, "_MORE", more)
    text = serde.to_json(table())
    assert serde.to_json(serde.from_stream(io.StringIO(text), Table)) == text
    # Item by item, not by falling back on the whole text.
    monkeypatch.setattr(serde, "from_json", None)
    assert len(serde.from_stream(io.StringIO(text), Table).cases) == 50


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"name": "x"', '"nmae": "x"'),
        ('"tp": 7', '"tp": "7"'),
        ('"tp": 7,', ""),
        ("}", ""),
        ('version": 1', 'version": 9'),
        ("[", "{"),
    ],
)
def test_faults_are_told_as_those_of_the_whole_text(before, after):
    text = serde.to_json(table()).replace(before, after, 1)
    with pytest.raises(serde.SchemaError) as whole:
        serde.from_json(text, Table)
    with pytest.raises(serde.SchemaError) as pieces:
        serde.from_stream(io.StringIO(text), Table)
    assert str(pieces.value) == str(whole.value)
