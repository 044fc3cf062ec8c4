"""Tables for papers: the numbers, the captions, and names that try to be markup."""

import csv
import re
import shutil
import subprocess
from dataclasses import replace

import pytest

from autoseg import api
from autoseg.comparison.paper_files import to_csv, to_latex, to_markdown, write_paper_tables
from autoseg.comparison.paper_tables import KEYS, paper_tables
from autoseg.schema.comparison import AnnotatorAgreement, Comparison, Interval, SeedSpread

PDFLATEX = shutil.which("pdflatex")
EVIL = r"""[x]*\input{/etc/passwd}%#$&_^~<>|"`'{}a--b---?`!`,,''""" + "\n\té"
NAMES = {"unet": EVIL, "segformer": "*-5\\\\[2cm]", "segnext": "[9]@"}
CLASS = "a_b|c\n\\end{table}"


@pytest.fixture(scope="module")
def compared(experiment, tmp_path_factory):
    output = tmp_path_factory.mktemp("out")
    comparison = api.compare(
        "Polyps", root=experiment.root, output=output, stratify_by=["unet", "object_size"], share=0.25, report=False
    )
    return comparison, output


@pytest.fixture(scope="module")
def evil(compared):
    """The same comparison with names that are commands in Markdown and LaTeX."""
    (dataset,) = compared[0].datasets
    models = tuple(
        replace(one, model=NAMES[one.model], classes={CLASS: next(iter(one.classes.values()))}) for one in dataset.models
    )
    tests = tuple(replace(one, first=NAMES[one.first], second=NAMES[one.second]) for one in dataset.tests)
    ranking = replace(
        dataset.ranking,
        order=tuple(NAMES[one] for one in dataset.ranking.order),
        mean_ranks={NAMES[one]: value for one, value in dataset.ranking.mean_ranks.items()},
        first={NAMES[one]: value for one, value in dataset.ranking.first.items()},
    )
    return replace(compared[0], datasets=(replace(dataset, models=models, tests=tests, ranking=ranking, classes=(CLASS,)),))


def rows_of(output, key):
    return list(csv.DictReader((output / f"comparison_{key}.csv").read_text(encoding="utf-8").splitlines()))


def test_numbers_are_those_of_the_comparison_rounded(compared):
    comparison, output = compared
    (dataset,) = comparison.datasets
    rows = {row["model"]: row for row in rows_of(output, "models")}
    for result in dataset.models:
        row, estimate, limits = rows[result.model], result.overall["micro.dice"], result.intervals["micro.dice"]
        unit = 10.0 ** -len(row["mDSC"].partition(".")[2])
        assert float(row["mDSC"]) == pytest.approx(100 * estimate.mean, abs=unit / 2)
        assert float(row["mDSC deviation"]) == pytest.approx(100 * estimate.std, abs=unit / 2)
        assert len(row["mDSC deviation"].replace(".", "").lstrip("0")) <= 2
        assert float(row["95 % interval low"]) == pytest.approx(100 * limits.low, abs=0.51)
        assert float(row["95 % interval high"]) == pytest.approx(100 * limits.high, abs=0.51)
    assert list(rows) == ["segformer", "segnext", "unet"] and all(row["dataset"] == dataset.dataset for row in rows.values())
    pairs = {(row["first"], row["second"]): row for row in rows_of(output, "pairs")}
    for test in dataset.tests:
        row = pairs[test.first, test.second]
        assert float(row["difference"]) == pytest.approx(100 * test.difference.mean, abs=0.51)
        assert float(row["p corrected"].lstrip("<")) == pytest.approx(test.p_adjusted, abs=0.006)
    assert {row["by"] for row in rows_of(output, "strata")} == {"unet", "object_size"}
    assert len(rows_of(output, "classes")) == 2 * 3 and len(rows_of(output, "cost")) == 3


def test_every_caption_says_n_folds_seeds_averages_and_choices(compared):
    found = list(paper_tables(compared[0]))
    # Thirds of twelve cases are too small to be called the worst.
    # Nor are there other seeds and a second annotator.
    assert [one.key for one in found] == [*KEYS[:-4], "strata", "strata"] and KEYS[-1] == "worst_groups"
    assert not any("NSD" in one.caption for one in found if one.key == "strata")
    for table in found:
        assert "n = 12 cases; folds 0, 1; seed 0, one training of each model and fold" in table.caption
        assert "the epoch was chosen on scored cases, so the scores are optimistic" in table.caption
        assert table.key == "cost" or "mean" in table.caption
        assert all(len(row) == len(table.columns) for row in table.rows)


def test_captions_of_unequal_runs_and_unknown_programs_say_so(compared):
    (dataset,) = compared[0].datasets
    conditions = replace(dataset.conditions, unequal=True, unknown=("other",), saw_scored_cases=())
    changed = replace(compared[0], datasets=(replace(dataset, conditions=conditions),))
    caption = next(paper_tables(changed)).caption
    assert "no choice of the training saw the scored cases; of other this is not known; the runs are not equal" in caption


def test_one_class_and_one_fold(compared):
    (dataset,) = compared[0].datasets
    (name, _) = dataset.classes

    def one_fold(estimate):
        return replace(estimate, std=float("nan"))

    models = tuple(
        replace(one, classes={name: one.classes[name]}, overall={key: one_fold(value) for key, value in one.overall.items()})
        for one in dataset.models
    )
    changed = replace(compared[0], datasets=(replace(dataset, classes=(name,), models=models),))
    tables = {table.key: table for table in paper_tables(changed)}
    assert "class mean of Dice" not in [column.heading for column in tables["images"].columns]
    text = to_csv([tables["models"]])
    # The mean is rounded by its interval then.
    row = list(csv.DictReader(text.splitlines()))[-1]
    low, high = float(row["95 % interval low"]), float(row["95 % interval high"])
    assert row["model"] == "unet" and row["mDSC deviation"] == "" and row["mDSC"].isdigit() and 20 < high - low < 30


def test_a_table_of_an_earlier_comparison_is_removed(compared, tmp_path):
    write_paper_tables(tmp_path, compared[0])
    (tmp_path / "comparison_mine.csv").write_text("mine")
    (dataset,) = compared[0].datasets
    write_paper_tables(tmp_path, replace(compared[0], datasets=(replace(dataset, strata=(), tests=()),)))
    left = {path.name for path in tmp_path.iterdir()}
    assert not left & {"comparison_strata.csv", "comparison_pairs.csv"} and "comparison_mine.csv" in left
    assert {"comparison.md", "comparison.tex", "comparison_models.csv"} <= left


def test_several_datasets_share_a_csv(compared):
    (dataset,) = compared[0].datasets
    second = replace(dataset, dataset="Dataset502_Other", classes=dataset.classes[:1])
    tables = [table for table in paper_tables(replace(compared[0], datasets=(dataset, second))) if table.key == "images"]
    rows = list(csv.DictReader(to_csv(tables).splitlines()))
    assert [row["dataset"] for row in rows] == ["Dataset501_Polyps"] * 3 + ["Dataset502_Other"] * 3
    # One dataset has no class mean of its own.
    assert rows[0]["class mean of Dice"] and rows[3]["class mean of Dice"] == "" and rows[3]["NSD"]


def markdown_cells(line):
    """Cells of a table's row as a reader sees them."""
    cells = re.split(r"(?<!\\)(?:\\\\)*\|", line)[1:-1]
    return [re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", cell.strip()) for cell in cells]


def test_markdown_shows_names_as_they_are(evil):
    text = to_markdown(evil)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    shown = {markdown_cells(row)[0] for row in rows} | {markdown_cells(row)[1] for row in rows}
    assert {" ".join(name.replace("\n", " ").replace("\t", " ").split()) for name in [*NAMES.values(), CLASS]} <= {
        " ".join(name.split()) for name in shown
    }
    for table in text.split("\n\n"):
        if table.startswith("| "):
            assert len({len(markdown_cells(row)) for row in table.splitlines()}) == 1


COMMANDS = {
    "begin", "end", "centering", "setlength", "belowcaptionskip", "caption", "label", "footnotesize", "tabcolsep", "toprule",
    "midrule", "bottomrule", "textbackslash", "textasciitilde", "textasciicircum", "textless", "textgreater", "textbar",
    "char", "mbox", "pm", "resizebox", "ifdim", "width", "linewidth", "else", "fi", "shortstack",
}  # fmt: skip


def test_latex_has_only_commands_of_its_own_and_whole_rows(evil):
    text = to_latex(list(paper_tables(evil)))
    # A line's end that is no space is the only comment within.
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%")).replace("{!}{%\n", "{!}{\n")
    assert set(re.findall(r"\\([a-zA-Z]+)", body)) <= COMMANDS
    plain = re.sub(r"\\[^a-zA-Z]", "", body)
    assert plain.count("{") == plain.count("}") and "#" not in plain and "%" not in plain and "~" not in plain
    assert body.count(r"\begin{table}") == body.count(r"\end{table}") == len(list(paper_tables(evil)))
    for table in re.findall(r"\\begin{tabular}{@{}(\w+)@{}}\n(.*?)\\end{tabular}", body, re.DOTALL):
        rows = [line for line in table[1].splitlines() if line.endswith(r"\\")]
        assert len(rows) > 1
        for row in rows:
            assert len(re.findall(r"(?<!\\)&", row)) == len(table[0]) - 1
            # These would be arguments of the line's end before.
            assert not row.startswith(("[", "*"))


def test_long_tables_are_divided_and_unusual_letters_named(compared):
    (dataset,) = compared[0].datasets
    many = tuple(replace(dataset.tests[0], second=f"model {number}") for number in range(95))
    text = to_latex(list(paper_tables(replace(compared[0], datasets=(replace(dataset, tests=many),)))))
    assert [text.count(f"Part {number} of 3. ") for number in (1, 2, 3)] == [1, 1, 1]
    labels = re.findall(r"\\label{(.*?)}", text)
    assert len(labels) == len(set(labels)) and all(text.count(f"model {number} &") == 1 for number in range(95))
    assert "LuaLaTeX" not in text and r"\autosegletter" not in text
    foreign = replace(dataset, tests=(replace(dataset.tests[0], second="息 ąŁþ α µ ² e\u0301"),))
    text = to_latex(list(paper_tables(replace(compared[0], datasets=(foreign,)))))
    assert "% pdfLaTeX cannot print U+00B2, U+00B5, U+00FE, U+0105, U+03B1, U+606F; LuaLaTeX and XeLaTeX can" in text
    for letter, near in (("息", r"\textless{}U+606F\textgreater{}"), ("ą", "a"), ("α", r"\ensuremath{\alpha}"),
                         ("µ", r"\ensuremath{\mu}"), ("²", "2")):  # fmt: skip
        assert rf"\autosegletter{{{letter}}}{{{near}}}" in text
    assert "Ł" in text and "é" in text and r"\autosegletter{Ł}" not in text


def test_seeds_and_annotators_have_tables(compared):
    (dataset,) = compared[0].datasets
    seeds = SeedSpread(
        model="unet", seeds=(0, 1), folds=(0, 1), values=(0.61234, 0.64321), mean=0.62777, std=0.0218, fold_std=0.05
    )  # fmt: skip
    one, ceiling = Interval(0.8, 0.75, 0.85), Interval(0.9, 0.88, 0.92)
    people = AnnotatorAgreement(
        model="unet", cases=9, units=9, first=one, second=one, both=one, people=ceiling, difference=Interval(-0.1, -0.14, -0.06)
    )
    changed = replace(compared[0], datasets=(replace(dataset, seeds=(seeds,), annotators=(people,)),))
    tables = {table.key: table for table in paper_tables(changed)}
    (row,) = csv.DictReader(to_csv([tables["seeds"]]).splitlines())
    assert row["seed: mDSC"] == "0: 61.2, 1: 64.3" and (row["over seeds"], row["over seeds deviation"]) == ("62.8", "2.2")
    assert row["fold deviation"] == "5" and row["folds"] == "0, 1"
    (row,) = csv.DictReader(to_csv([tables["annotators"]]).splitlines())
    assert (row["n"], row["with the first"], row["annotators"], row["difference"]) == ("9", "80", "90.0", "-10")
    assert (row["95 % interval low"], row["95 % interval high"]) == ("-14", "-6")


def test_a_comparison_of_an_older_release_has_tables_too():
    from autoseg.support.files import read_artefact
    from tests.schema.test_artefacts import SAMPLES

    for version in (2, 3, 4):
        old = read_artefact(SAMPLES / f"comparison_v{version}.json", Comparison)
        assert "which choices saw the scored cases is not recorded" in to_markdown(old)
        assert r"\toprule" in to_latex(list(paper_tables(old)))


# Letters of many scripts, without one space at which a table could break: Polish, Icelandic, Turkish, Vietnamese, Greek,
# Cyrillic, Chinese, Arabic, a ligature, an emoji, a letter beyond Unicode's first plane, an accent alone.
LETTERS = "ąĄęłŻÐþđħŋŀıİệảΑαΩςжЯ息肉سﬁ²µ°×½…—‘’“”€😀𝔘\u0301"


def compile_tables(folder, comparison):
    """The output of pdflatex. Fails if it stops."""
    write_paper_tables(folder, comparison)
    lines = (r"\documentclass{article}", r"\usepackage[a4paper,margin=2.2cm]{geometry}",
             r"\usepackage{booktabs,graphicx}", r"\begin{document}", r"\listoftables", r"\input{comparison}",
             r"\end{document}")  # fmt: skip
    (folder / "document.tex").write_text("\n".join(lines))
    for _ in range(2):
        command = [PDFLATEX, "-interaction=nonstopmode", "-halt-on-error", "document.tex"]
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
        assert result.returncode == 0, result.stdout[-2000:]
    return result.stdout


@pytest.mark.skipif(PDFLATEX is None, reason="no pdflatex here: apt-get install texlive-latex-recommended")
def test_latex_compiles(evil, compared, tmp_path):
    assert "Overfull" not in compile_tables(tmp_path / "plain", compared[0])
    # A line of a caption cannot be divided within a name without spaces.
    compile_tables(tmp_path / "evil", evil)


@pytest.mark.skipif(PDFLATEX is None, reason="no pdflatex here: apt-get install texlive-latex-recommended")
def test_latex_compiles_with_letters_of_all_scripts(compared, tmp_path):
    (dataset,) = compared[0].datasets
    names = {name: f"{name} {LETTERS}" for name in dataset.classes}
    models = tuple(
        replace(one, model=LETTERS, classes={names[name]: value for name, value in one.classes.items()})
        for one in dataset.models
    )
    tests = tuple(replace(one, first=LETTERS) for one in dataset.tests)
    changed = replace(dataset, dataset=LETTERS, models=models, classes=tuple(names.values()), tests=tests, ranking=None)
    output = compile_tables(tmp_path, replace(compared[0], datasets=(changed,)))
    assert "Missing character" not in output and "Missing character" not in (tmp_path / "document.log").read_text("latin-1")
