"""Web page to review predictions: drop an image, see mask and confidence, correct the mask, save it as a training case."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from autoseg.io import Image, read_image
from autoseg.io.deidentify import pseudonym
from autoseg.prediction.bundle import load_bundle
from autoseg.prediction.corrections import ERASE, apply_strokes, class_colours, save_case, tint_mask
from autoseg.prediction.loading import BEST, load_predictor
from autoseg.prediction.overlay import draw_overlay, to_rgb8
from autoseg.prediction.predictor import PredictionWithConfidence, Predictor, trained_models
from autoseg.schema.dataset import LabelScheme
from autoseg.support.errors import AutosegError
from autoseg.support.workspace import Dataset, Root, Workspace

Array = NDArray[Any]
Load = Callable[[], Predictor]


@dataclass
class Session:
    """Networks by name, loaded on first use. corrections: dataset or folder for corrected cases."""

    networks: Mapping[str, Load]
    corrections: Dataset | Path

    def __post_init__(self) -> None:
        self._loaded: dict[str, Predictor] = {}

    def predictor(self, name: str) -> Predictor:
        """The predictor of that name."""
        if name not in self._loaded:
            self._loaded[name] = self.networks[name]()
        return self._loaded[name]

    def predict(self, path: str, name: str) -> tuple[Array, dict[str, Any], str, Array]:
        """Returns overlay (H', W', 3), the editor's first content, a Markdown table, and the label map (H, W)."""
        predictor = self.predictor(name)
        image = read_image(path)
        prediction = predictor.predict_with_confidence(image.array, image.spacing)
        overlay = draw_overlay(image.array, prediction.labels, predictor.scheme)
        # The editor shows only layers it made itself, so the mask is drawn into the background, under the strokes.
        background = tint_mask(to_rgb8(image.array), prediction.labels, predictor.scheme)
        return (
            overlay,
            {"background": background, "layers": [], "composite": None},
            summary_table(prediction, image),
            prediction.labels,
        )

    def save(self, path: str, name: str, edited: Mapping[str, Any], labels: Array) -> str:
        """Save the mask with its strokes as a training case. Returns a message for the user."""
        corrected = apply_strokes(labels, edited["layers"], self.predictor(name).scheme)
        image = read_image(path)
        path_saved = save_case(image, corrected, f"reviewed_{pseudonym(Path(path)).removeprefix('case_')}", self.corrections)
        changed = int((corrected != labels).sum())
        return (
            f"saved as {path_saved}: {int((corrected > 0).sum())} pixels of foreground, {changed} of the mask's pixels changed"
        )


def summary_table(prediction: PredictionWithConfidence, image: Image) -> str:
    """Confidence, areas and warnings in Markdown."""
    confidence = prediction.confidence
    numbers = {
        confidence.word: confidence.value,
        "expected Dice": confidence.expected_dice,
        "agreement of the networks": confidence.agreement,
    }
    lines = ["| | |", "|---|---|"]
    lines += [f"| {name} | {value:.2f} |" for name, value in numbers.items() if not math.isnan(value)]
    if confidence.note:
        lines[2] = f"| {confidence.word} | {confidence.value:.2f}, {confidence.note} |"
    for name, pixels in prediction.pixels.items():
        fraction = pixels / prediction.labels.size
        area = f", {pixels * image.spacing[0] * image.spacing[1]:.1f} mm²" if image.spacing else ""
        class_confidence = f", {confidence.word} {confidence.classes[name]:.2f}" if pixels else ""
        lines.append(f"| {name} | {pixels} pixels ({fraction:.1%}){area}{class_confidence} |")
    lines += ["", *(f"- **warning:** {warning}" for warning in prediction.warnings)]
    return "\n".join(lines)


def build(session: Session) -> Any:
    """The page as gradio Blocks; `review_server` serves it."""
    import gradio as gr

    names = list(session.networks)
    scheme = session.predictor(names[0]).scheme

    def with_errors_shown(function: Callable[..., Any]) -> Callable[..., Any]:
        """Show AutosegErrors on the page."""

        @wraps(function)
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
                table = gr.Markdown(elem_id="summary")
            with gr.Column(scale=2):
                overlay = gr.Image(label="Contours", elem_id="overlay", interactive=False, buttons=["fullscreen"])
        editor = gr.ImageEditor(
            label=_legend(scheme),
            type="numpy",
            image_mode="RGBA",
            sources=(),
            transforms=(),
            buttons=["fullscreen"],
            elem_id="editor",
            brush=gr.Brush(colors=_colours(scheme), default_color=_colours(scheme)[0], color_mode="fixed"),
        )
        with gr.Row():
            button = gr.Button("Save the correction as a training case", elem_id="save")
            note = gr.Markdown(elem_id="note")
        labels = gr.State()
        for event in (file.change, model.change):
            event(with_errors_shown(predict), [file, model], [overlay, editor, table, labels])
        button.click(with_errors_shown(save), [file, model, editor, labels], note)
    return page


def _colours(scheme: LabelScheme) -> list[Any]:
    return [
        "#{:02x}{:02x}{:02x}".format(*colour) for colour in (*(colour for _, colour in class_colours(scheme).values()), ERASE)
    ]


def _legend(scheme: LabelScheme) -> str:
    colours = ", ".join(
        f"{name} {colour}" for name, colour in zip((*class_colours(scheme), "nothing"), _colours(scheme), strict=True)
    )
    return f"Correct the mask: paint the right class ({colours}); the eraser takes strokes back"


def session_for(source: str | Path, cases: Path | None, device: str, root: Root) -> Session:
    """A session for a bundle (the ensemble and each model) or a dataset (each trained model and the best choice).

    Raises AutosegError if gradio is missing or no model is trained.
    """
    if importlib.util.find_spec("gradio") is None:
        raise AutosegError("the page needs gradio", 'pip install "autoseg[web]"')
    if Path(source).is_file():
        ensemble = load_bundle(Path(source), device=device)
        models = tuple(dict.fromkeys(member.record.model for member in ensemble.members))
        networks: dict[str, Load] = {" + ".join(models): lambda: ensemble}
        if len(models) > 1:
            networks |= {model: partial(_select_model, ensemble, model) for model in models}
        return Session(networks, cases or Path("corrected"))
    dataset = Workspace.at(root).dataset(str(source))
    models_trained = trained_models(dataset.results)
    if not models_trained:
        raise AutosegError(f"no model is trained for {dataset.name}", f"autoseg_train {dataset.number} MODEL all")
    names = [BEST, *models_trained] if (dataset.results / "best.json").is_file() else models_trained
    networks = {name: partial(load_predictor, dataset.name, name, device=device, root=dataset.root) for name in names}
    return Session(networks, cases or dataset)


def _select_model(ensemble: Predictor, model: str) -> Predictor:
    members = [member for member in ensemble.members if member.record.model == model]
    return Predictor(members, ensemble.device, metadata=ensemble.metadata)
