"""The page as text, and in a real browser where there is one."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from itertools import combinations

import cv2
import numpy as np
import pytest

from autoseg import api
from autoseg.comparison import plots
from autoseg.prediction import overlay
from tests.comparison.results import make

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
browser = pytest.mark.skipif(BROWSER is None, reason="no chromium here: apt-get install chromium")


class Outline(HTMLParser):
    """Tags with their attributes."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Three models, five folds, a hundred cases, as the page is meant to hold."""
    root = tmp_path_factory.mktemp("large")
    make(root, cases=100, folds=5)
    api.compare("Polyps", root=root, stratify_by=["unet"])
    return root / "results" / "Dataset501_Polyps" / "comparison" / "report.html"


def in_browser(page, folder, *options):
    command = [
        BROWSER,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        f"--user-data-dir={folder}",
    ]
    return subprocess.run([*command, *options, page.as_uri()], capture_output=True, text=True, timeout=300, check=True).stdout


def test_page_is_one_small_self_contained_file(page):
    text = page.read_text(encoding="utf-8")
    assert page.stat().st_size < 15e6
    urls = [
        value
        for _, attributes in Outline(text).tags
        for key, value in attributes.items()
        if key in ("src", "href", "xlink:href")
    ]
    assert urls and all(value.startswith(("data:", "#")) for value in urls)
    assert "@import" not in text and not re.search(r"url\((?!#)", text)


def test_page_has_summary_tables_and_pictures(page):
    text = page.read_text(encoding="utf-8")
    tags = Outline(text).tags
    assert "segformer has the highest mDSC" in text and "significant difference" in text
    for title in ("Models on", "Pairs on", "Cost on", "by unet", "Risk and coverage", "Mean ranks", "mDSC against cost"):
        assert title in text
    for kind in ("best", "median", "worst"):
        assert text.count(f"<h4>{kind}: ") == 3
    pictures = [attributes for tag, attributes in tags if tag == "img"]
    assert len(pictures) == 9 * 4 + 3 and all(one["alt"] for one in pictures)
    names = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(names) == len(set(names))


def test_the_first_screen_is_a_picture(page):
    text = page.read_text(encoding="utf-8")
    first = text[text.index('<div class="first">') : text.index("To be read with the numbers")]
    assert text.index("has the highest mDSC") < text.index('<div class="first">') < text.index("<table")
    assert all(name in first for name in ("segformer", "segnext", "unet", "mDSC in %, 95 % interval"))
    shown = re.findall(r"<figcaption>(\w+): (\w+)<br>segformer, Dice ([01]\.\d+)<", first)
    assert [kind for kind, _, _ in shown] == ["best", "median", "worst"] and len({case for _, case, _ in shown}) == 3
    best, median, worst = (float(dice) for _, _, dice in shown)
    assert best >= median >= worst


def test_without_intervals_the_first_picture_has_deviations_and_says_so(experiment, tmp_path):
    (dataset,) = api.compare("Polyps", root=experiment.root, report=False, output=tmp_path).datasets
    without = replace(dataset, models=tuple(replace(one, intervals={}) for one in dataset.models))
    assert "95 % interval" in plots.leading(dataset) and "deviation" not in plots.leading(dataset)
    # A marker and a line for each model, as with intervals.
    assert "fold deviation" in plots.leading(without) and "interval" not in plots.leading(without)
    assert plots.leading(without).count("<path") == plots.leading(dataset).count("<path")


def test_names_are_escaped(tmp_path):
    experiment = make(tmp_path, cases=6, folds=2, models=("unet", "segformer"))
    path = experiment.dataset.fold("unet", 0) / "run.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "pretrained": "<script>alert(1)</script>"}))
    api.compare("Polyps", root=tmp_path)
    text = (experiment.dataset.results / "comparison" / "report.html").read_text()
    assert "&lt;script&gt;alert(1)" in text and "<script>alert" not in text


def test_initial_weights_are_named_with_hash_and_licence(tmp_path):
    experiment = make(tmp_path, cases=6, folds=2, models=("unet", "segformer"))
    weights = {"file": "owner/net/model.safetensors", "sha256": "ab" * 32, "licence": "NC-1.0", "trained_on": "ImageNet-1k"}
    for fold in (0, 1):
        path = experiment.dataset.fold("segformer", fold) / "run.json"
        changed = {"weights": [weights], "pretrained": f"ImageNet-1k (fold {fold})"}
        path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
    comparison = api.compare("Polyps", root=tmp_path)
    text = (experiment.dataset.results / "comparison" / "report.html").read_text()
    for part in ("Initial weights on", "owner/net/model.safetensors", "NC-1.0", "ab" * 8, "random weights"):
        assert part in text
    results = {model.model: model for model in comparison.datasets[0].models}
    assert results["segformer"].weights[0].licence == "NC-1.0" and results["unet"].weights == ()
    assert "the folds of segformer started from ImageNet-1k (fold 0) or ImageNet-1k (fold 1)" in comparison.datasets[0].notes


@browser
def test_tables_sort_and_page_fits_a_phone(page, tmp_path):
    script = """<script>
const table = document.querySelector("table"), head = table.querySelectorAll("thead button")[2];
const read = () => [...table.tBodies[0].rows].map(row => parseFloat(row.cells[2].textContent));
document.querySelectorAll(".first figcaption").forEach(one => one.textContent = "patient".repeat(9));
head.click(); const up = read(); head.click(); const down = read();
document.title = JSON.stringify({up, down, sort: head.closest("th").getAttribute("aria-sort"),
  wide: document.documentElement.scrollWidth, screen: innerWidth,
  ends: [...document.querySelectorAll(".first figure")].map(one => one.getBoundingClientRect().right),
  inner: document.querySelector(".first").getBoundingClientRect().right});
</script>"""
    copy = tmp_path / "sorted.html"
    copy.write_text(page.read_text(encoding="utf-8") + script, encoding="utf-8")
    html = in_browser(copy, tmp_path / "profile", "--window-size=420,900", "--dump-dom")
    state = json.loads(re.search(r"<title>(.*?)</title>", html).group(1))
    assert state["up"] == sorted(state["up"]) and state["down"] == state["up"][::-1] and state["sort"] == "descending"
    assert state["wide"] <= state["screen"] and max(state["ends"]) <= state["inner"] + 1


@browser
def test_page_prints_to_pdf(page, tmp_path):
    in_browser(page, tmp_path / "profile", f"--print-to-pdf={tmp_path / 'page.pdf'}")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")


def test_each_colour_of_a_picture_has_its_class_in_readable_text(page):
    text = page.read_text(encoding="utf-8")
    for name, colour in (("neoplastic", "#56b4e9"), ("non_neoplastic", "#f0e442")):
        # On the first screen, above the gallery, and for the enlarged picture a copy.
        assert text.count(f'<i style="color: {colour}"></i>{name}</span>') == 2
    assert ".legend" in text and text.count('<i class="dashed"></i>reference</span>') == 2


# How readers without green-sensitive (deuteranopia) or red-sensitive cones (protanopia) see linear RGB: Machado et al., IEEE
# TVCG 2009, severity 1.
SIGHT = {
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
}


def seen(colour, sight):
    """CIE L*a*b* of an sRGB colour as a reader sees it."""
    share = np.array(colour) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.array(SIGHT[sight]) @ linear, 0, 1)
    shown = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return cv2.cvtColor(np.float32(shown)[None, None], cv2.COLOR_RGB2Lab)[0, 0]


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("colours", [overlay.COLOURS, [tuple(bytes.fromhex(one[1:])) for one in plots.COLOURS]])
def test_colours_differ_for_colour_blind_readers(colours, sight):
    # Differences of 2.3 are just seen side by side; contours and markers are small and apart.
    for one, other in combinations(colours, 2):
        assert np.linalg.norm(seen(one, sight) - seen(other, sight)) > 14, (one, other)


@browser
def test_a_click_enlarges_a_picture(page, tmp_path):
    script = """<script>
const button = document.querySelector(".row .zoom"), dialog = document.querySelector("dialog");
button.click();
const picture = dialog.querySelector("img");
const state = {open: dialog.open, legend: dialog.querySelector(".legend").textContent,
  same: picture.src === button.querySelector("img").src, alt: picture.alt};
// A frame may never come in a browser without a screen, a timer always does.
setTimeout(() => {
  state.grows = picture.getBoundingClientRect().width / button.getBoundingClientRect().width;
  dialog.click(); state.closed = !dialog.open; document.title = JSON.stringify(state);
});
</script>"""
    copy = tmp_path / "enlarged.html"
    copy.write_text(page.read_text(encoding="utf-8") + script, encoding="utf-8")
    html = in_browser(copy, tmp_path / "profile", "--window-size=1280,900", "--virtual-time-budget=3000", "--dump-dom")
    state = json.loads(re.search(r"<title>(.*?)</title>", html).group(1))
    assert "non_neoplastic" in state["legend"] and "reference" in state["legend"]
    assert state["open"] and state["same"] and state["closed"] and "reference" in state["alt"]
    assert state["grows"] > 1.8
