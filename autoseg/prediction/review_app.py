"""A page to try trained networks: drop an image, see the mask and how far to trust it, correct it, keep the correction."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from autoseg.io import Image, read_image
from autoseg.prediction.bundle import load_bundle
from autoseg.prediction.corrections import NOTHING, corrected, painted, save_case, tinted
from autoseg.prediction.deidentify import pseudonym
from autoseg.prediction.loading import BEST, load_predictor
from autoseg.prediction.overlay import draw_overlay, shown
from autoseg.prediction.predictor import PredictionWithConfidence, Predictor, trained_folds
from autoseg.schema.dataset import LabelScheme
from autoseg.support.errors import AutosegError
from autoseg.support.workspace import Dataset, Root, Workspace

Array = NDArray[Any]
Load = Callable[[], Predictor]


@dataclass
class Session:
    """Networks by name, loaded when they are first asked for; where corrections go."""

    networks: Mapping[str, Load]
    corrections: Dataset | Path

    def __post_init__(self) -> None:
        self._loaded: dict[str, Predictor] = {}

    def predictor(self, name: str) -> Predictor:
        """The network of that name."""
        if name not in self._loaded:
            self._loaded[name] = self.networks[name]()
        return self._loaded[name]

    def predict(self, path: str, name: str) -> tuple[Array, dict[str, Any], str, Array]:
        """Overlay (H', W', 3); what the editor starts with; a table in Markdown; the label map (H, W)."""
        predictor = self.predictor(name)
        image = read_image(path)
        judged = predictor.judged(image.array, image.spacing)
        overlay = draw_overlay(image.array, judged.labels, predictor.scheme)
        # The mask is part of the background, since the editor shows no layer that it did not make; strokes go over it.
        background = tinted(shown(image.array), judged.labels, predictor.scheme)
        return overlay, {"background": background, "layers": [], "composite": None}, said(judged, image), judged.labels

    def save(self, path: str, name: str, edited: Mapping[str, Any], labels: Array) -> str:
        """Keep the mask with the strokes over it as a training case; what to tell the user."""
        mended = corrected(labels, edited["layers"], self.predictor(name).scheme)
        image = read_image(path)
        written = save_case(image, mended, f"reviewed_{pseudonym(Path(path)).removeprefix('case_')}", self.corrections)
        changed = int((mended != labels).sum())
        return f"saved as {written}: {int((mended > 0).sum())} pixels of foreground, {changed} of the mask's pixels changed"


def said(judged: PredictionWithConfidence, image: Image) -> str:
    """Confidence, areas and warnings in Markdown."""
    found = judged.confidence
    numbers = {"confidence": found.value, "expected Dice": found.expected_dice, "agreement of the networks": found.agreement}
    lines = ["| | |", "|---|---|"]
    lines += [f"| {name} | {value:.2f} |" for name, value in numbers.items() if not math.isnan(value)]
    for name, pixels in judged.pixels.items():
        share = pixels / judged.labels.size
        area = f", {pixels * image.spacing[0] * image.spacing[1]:.1f} mm²" if image.spacing else ""
        sure = f", confidence {found.classes[name]:.2f}" if pixels else ""
        lines.append(f"| {name} | {pixels} pixels ({share:.1%}){area}{sure} |")
    lines += ["", *(f"- **warning:** {warning}" for warning in judged.warnings)]
    return "\n".join(lines)


def build(session: Session) -> Any:
    """The page as gradio's Blocks; `launch` shows it."""
    import gradio as gr

    names = list(session.networks)
    scheme = session.predictor(names[0]).scheme

    def told(function: Callable[..., Any]) -> Callable[..., Any]:
        """Mistakes a user can mend are shown on the page."""

        def call(*arguments: Any) -> Any:
            try:
                return function(*arguments)
            except AutosegError as error:
                raise gr.Error(str(error)) from error

        return call

    def predict(path: str | None, name: str) -> tuple[Any, Any, str, Any]:
        return session.predict(path, name) if path else (None, None, "", None)

    def save(path: str | None, name: str, edited: dict[str, Any] | None, labels: Array | None) -> str:
        return session.save(path, name, edited, labels) if path and edited and labels is not None else "no image yet"

    with gr.Blocks(title="autoseg review", analytics_enabled=False) as page:
        gr.Markdown("# autoseg review\nA research tool, not a medical device. Images stay on this machine.")
        with gr.Row():
            with gr.Column(scale=1):
                file = gr.File(label="Image (drop one here)", type="filepath", elem_id="image")
                model = gr.Dropdown(names, value=names[0], label="Networks", elem_id="networks")
                table = gr.Markdown(elem_id="said")
            with gr.Column(scale=2):
                overlay = gr.Image(label="Contours", elem_id="overlay", interactive=False, buttons=["fullscreen"])
        editor = gr.ImageEditor(
            label=_legend(scheme), type="numpy", image_mode="RGBA", sources=(), transforms=(),
            buttons=["fullscreen"], elem_id="editor",
            brush=gr.Brush(colors=_colours(scheme), default_color=_colours(scheme)[0], color_mode="fixed"),
        )
        with gr.Row():
            button = gr.Button("Save the correction as a training case", elem_id="save")
            note = gr.Markdown(elem_id="note")
        labels = gr.State()
        for event in (file.change, model.change):
            event(told(predict), [file, model], [overlay, editor, table, labels])
        button.click(told(save), [file, model, editor, labels], note)
    return page


def launch(page: Any, port: int | None = None, wait: bool = True) -> str:
    """Serve the page on this machine only; returns its address. wait: until it is stopped."""
    _, address, _ = page.launch(
        server_name="127.0.0.1", server_port=port, prevent_thread_lock=not wait, quiet=True, share=False, inbrowser=False
    )
    return str(address)


def _colours(scheme: LabelScheme) -> list[Any]:
    return ["#{:02x}{:02x}{:02x}".format(*colour) for colour in (*(colour for _, colour in painted(scheme).values()), NOTHING)]


def _legend(scheme: LabelScheme) -> str:
    listed = ", ".join(f"{name} {colour}" for name, colour in zip((*painted(scheme), "nothing"), _colours(scheme), strict=True))
    return f"Correct the mask: paint what it should be ({listed}); the eraser takes strokes back"


def session_for(what: str | Path, cases: Path | None, device: str, root: Root) -> Session:
    """Networks of a bundle (all together, and each model) or of a dataset (each trained model, and the best).

    Raises AutosegError where gradio is missing or there is nothing trained.
    """
    if importlib.util.find_spec("gradio") is None:
        raise AutosegError("the page needs gradio", 'pip install "autoseg[web]"')
    if Path(what).is_file():
        together = load_bundle(Path(what), device=device)
        models = tuple(dict.fromkeys(member.record.model for member in together.members))
        networks: dict[str, Load] = {" + ".join(models): lambda: together}
        if len(models) > 1:
            networks |= {model: partial(_only, together, model) for model in models}
        return Session(networks, cases or Path("corrected"))
    dataset = Workspace.at(root).dataset(str(what))
    found = sorted(path.name for path in dataset.results.glob("*") if trained_folds(path)) if dataset.results.is_dir() else []
    if not found:
        raise AutosegError(f"no model is trained for {dataset.name}", f"autoseg_train {dataset.number} MODEL all")
    named = [BEST, *found] if (dataset.results / "best.json").is_file() else found
    networks = {name: partial(load_predictor, dataset.name, name, device=device, root=dataset.root) for name in named}
    return Session(networks, cases or dataset)


def _only(together: Predictor, model: str) -> Predictor:
    members = [member for member in together.members if member.record.model == model]
    return Predictor(members, together.device, knowledge=together.knowledge)
