"""Results in a notebook: short text, escaped HTML, a complete data frame."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import dataclass

from autoseg.schema.explanation import Explanation, HeatMap
from autoseg.schema.frame import Results, Row, Tabular, count
from autoseg.schema.runner import GridTable, Job, JobRow


@dataclass(frozen=True, repr=False)
class Measurements(Tabular):
    name: str
    values: tuple[float, ...]

    def summary(self) -> str:
        return f"{self.name}: {count(len(self.values), 'class')}"

    def to_rows(self) -> list[Row]:
        return [{"name": self.name, "value": value, "size": (2, 3)} for value in self.values]


def test_text_is_one_line_and_a_frame_has_all_rows() -> None:
    result = Measurements("a", (0.5, math.nan))
    assert repr(result) == str(result) == "Measurements(a: 2 classes)" and count(1, "case") == "1 case"
    frame = result.to_frame()
    assert list(frame.columns) == ["name", "value", "size"] and len(frame) == 2
    assert frame["value"][0] == 0.5 and math.isnan(frame["value"][1])


def test_heat_maps_are_summed_up_by_the_heat_inside() -> None:
    def heat(case: str, inside: float) -> HeatMap:
        return HeatMap(
            case=case, name="polyp", method="gradcam", region="predicted", file=f"{case}.png", inside=inside, ring=0.25,
            outside=0.25, ring_width=5,
        )  # fmt: skip

    result = Explanation(
        dataset="Dataset501_Polyp", model="unet", fold=0, identity="", layer="decoder",
        heatmaps=(heat("a", 0.5), heat("b", 0.3), heat("c", math.nan)), skipped={},
    )  # fmt: skip
    assert repr(result) == (
        "Explanation(unet fold 0 of Dataset501_Polyp: 3 heat maps, 40% of the heat inside the true region)"
    )
    assert list(result.to_frame()["case"]) == ["a", "b", "c"]


def test_a_grid_has_one_row_for_each_job() -> None:
    rows = tuple(JobRow(job=Job("Dataset501_Polyp", "unet", fold), state="done", micro_dice=0.5) for fold in (0, 1))
    frame = GridTable(engine="local", host="here", pid=1, updated="", rows=rows).to_frame()
    assert list(frame["fold"]) == [0, 1] and set(frame["model"]) == {"unet"} and set(frame["state"]) == {"done"}
    assert not {"job", "cell"} & set(frame.columns), "the job's fields are columns of their own"


def test_html_is_escaped_and_short() -> None:
    page = Measurements("<script>alert(1)</script>", (0.123456, math.nan))._repr_html_()
    assert "<script>" not in page and page.count("&lt;script&gt;") == 3
    assert "<td>0.1235</td>" in page and "<td></td>" in page and "<td>2, 3</td>" in page
    page = Measurements("many", tuple(map(float, range(50))))._repr_html_()
    assert page.count("<tr>") == 21 and "and 30 more rows" in page


def test_a_list_has_the_rows_of_all() -> None:
    both = Results([Measurements("a", (1.0,)), Measurements("b", (2.0, 3.0))])
    assert isinstance(both, list) and len(both) == 2 and both[0].name == "a"
    assert repr(both) == "Results(2: a: 1 class, b: 2 classes)" and repr(Results()) == "Results(none)"
    assert repr(Results([*both, *both])) == "Results(4: a: 1 class, ... b: 2 classes)"
    assert list(both.to_frame()["value"]) == [1.0, 2.0, 3.0]


def test_without_pandas_only_the_frame_is_missing() -> None:
    code = """
import sys
sys.modules["pandas"] = None
from tests.schema.test_frame import Measurements
print(repr(Measurements("a", ())), Measurements("a", ())._repr_html_())
try:
    Measurements("a", ()).to_frame()
except ImportError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "Measurements(a: 0 classes)" in result.stdout and "pip install pandas" in result.stdout, result.stderr
