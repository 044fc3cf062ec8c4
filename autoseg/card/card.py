"""The card as sections, as Markdown (MODEL_CARD.md in every bundle) and as a page next to the bundle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from jinja2 import Environment

from autoseg.card.checklists import CLAIM, TRIPOD_AI, YOU, Item
from autoseg.card.facts import CardFacts, citation, folds_of, seeds
from autoseg.fingerprint.metric_advice import advise_metrics
from autoseg.schema.frame import count
from autoseg.schema.run import choices_text, energy_text
from autoseg.support.files import write_text

Lines = tuple[tuple[str, str], ...]
_INTENDED = (
    f"{YOU.capitalize()}: for whom, for which images, and what a person does with the masks. Networks of autoseg are research "
    "software, no medical device."
)


_WORDS = "Items in our words; numbers as in the checklist."
_MICRO_DICE = "the Dice of the pixel counts summed over a fold's held-out cases and all foreground classes"


@dataclass(frozen=True)
class Section:
    """text: a paragraph. lines: (term, text)."""

    title: str
    text: str = ""
    lines: Lines = ()


def sections(facts: CardFacts) -> tuple[Section, ...]:
    """All sections, the most asked for first."""
    return (
        Section("Intended use", _INTENDED),
        Section("Network", lines=tuple(_network(facts))),
        Section("Data", lines=tuple(_data(facts))),
        Section("Training", lines=tuple(_training(facts))),
        Section("Results", _results_text(facts), tuple(_results(facts))),
        Section("Limits", lines=tuple(_limits(facts))),
        Section("Methods, for a paper", methods(facts)),
        Section("Versions", lines=tuple(sorted(facts.versions.items())) + tuple(_identities(facts))),
        Section("CLAIM 2024", _WORDS, _items(CLAIM)),
        Section("TRIPOD+AI", f"{_WORDS} D: of the development of a model, E: of an evaluation.", _items(TRIPOD_AI)),
    )  # fmt: skip


def model_card(facts: CardFacts) -> str:
    """Markdown."""
    parts = [f"# {_title(facts)}", ""]
    for section in sections(facts):
        parts += [f"## {section.title}", ""]
        if section.text:
            parts += [_plain(section.text), ""]
        if section.lines:
            parts += [*(f"- **{_plain(term)}**: {_plain(text)}" for term, text in section.lines), ""]
    return "\n".join(parts)


def write_page(path: Path, facts: CardFacts) -> None:
    """Write the card as one page that loads nothing."""
    source = resources.files("autoseg.card").joinpath("page.html.jinja").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    write_text(path, environment.from_string(source).render(title=_title(facts), sections=sections(facts), you=YOU))


def _title(facts: CardFacts) -> str:
    return f"Model card: {' + '.join(facts.models)} on {facts.first.record.dataset}"


def _plain(text: str) -> str:
    """Text of a user or a file, without markup and line breaks."""
    shown = " ".join(text.split())
    for sign in "\\`*_[]<>|":
        shown = shown.replace(sign, f"\\{sign}")
    return shown


def _network(facts: CardFacts) -> Iterator[tuple[str, str]]:
    for model in facts.models:
        member = next(one.trained for one in facts.members if one.trained.record.model == model)
        record, planned = member.record, member.model_plan
        height, width = planned.input_size
        options = "".join(f", {name} {value}" for name, value in planned.options.items())
        yield model, (
            f"{citation(model)}; variant {record.variant}{options}, {record.parameters / 1e6:.1f} M parameters, input "
            f"{height} x {width}, {folds_of(facts.members, model)}"
        )
    spec = facts.first.spec
    labels = ", ".join(spec.label_scheme().foreground)
    yield "output", f"a mask with the labels {labels}; {facts.first.activation} probabilities"
    if len(facts.members) > 1:
        yield "ensemble", f"the mean of the probabilities of {len(facts.members)} networks"
    for one in facts.weights:
        known = "; ".join(text for text in (one.trained_on, one.licence or "licence not known", one.source) if text)
        yield "starts from", f"{one.file}: {known}; SHA-256 {one.sha256}"
    if not facts.weights:
        yield "starts from", "random weights"
    for name, steps in facts.postprocessing.items():
        yield f"post-processing of {name}", str(steps)


def _data(facts: CardFacts) -> Iterator[tuple[str, str]]:
    spec, measured = facts.first.spec, facts.fingerprint
    yield "dataset", facts.first.record.dataset + (f": {spec.description}" if spec.description else "")
    yield "reference", spec.reference or YOU
    yield "licence", spec.licence or YOU
    if measured is None:
        return
    height, width = measured.median_size
    spacing = measured.median_spacing
    resolution = f", {spacing[0]:.3g} x {spacing[1]:.3g} mm a pixel" if spacing else ""
    cases = count(len(measured.cases), "case")
    yield "images", f"{cases}, median size {height} x {width}{resolution}, stored as {measured.dtype}"
    groups = {case.group for case in measured.cases} - {""} | set(spec.groups.values())
    yield "patients or other groups", str(len(groups)) if groups else f"not known to the program; {YOU}"
    yield "kind of image", f"{measured.modality}: {measured.evidence}"
    for one in measured.classes:
        yield f"class {one.name}", f"in {one.presence:.0%} of the cases, {one.pixel_share:.2%} of all pixels"
    yield "duplicates", f"{sum(map(len, measured.duplicates))} cases in {len(measured.duplicates)} sets"
    for finding in measured.findings:
        yield f"finding: {finding.kind}", count(len(finding.cases), "case")
    yield "reference masks", f"who drew them, how, with which agreement: {YOU}"


def _training(facts: CardFacts) -> Iterator[tuple[str, str]]:
    member, record, plan = facts.members[0], facts.first.record, facts.first.plan
    config, training, model = facts.first.preprocessing, plan.training, facts.first.model_plan
    size = f" to {config.size[0]} x {config.size[1]}" if config.size else ""
    geometry = f"whole images resized{size}" if config.geometry == "resize" else "patches of resampled images"
    of = "each image" if model.normalisation.scheme == "image" else "the initial weights or the dataset"
    yield "preprocessing", f"{geometry}, normalised with mean and deviation of {of}"
    yield "protocol", f"{record.protocol}: {record.epochs_done} epochs, {record.steps} steps of {record.batch_size} images"
    yield "loss and optimiser", (
        f"{training.loss}, {training.optimizer}, learning rate {record.learning_rate:g} ({training.schedule}), "
        f"weight decay {training.weight_decay if model.weight_decay is None else model.weight_decay:g}"
    )
    if training.foreground_share:
        yield "rare classes", f"{training.foreground_share:.0%} of the images or patches are drawn to contain one"
    views = 2 ** len(training.augmentation.mirror)
    yield "prediction", f"mean of {views} mirrored views" if training.tta and views > 1 else "one view of each image"
    yield "seeds", seeds(facts)
    yield "device and precision", f"{record.device}, {record.precision}"
    if record.energy:
        yield "energy of a training", f"{energy_text(record.energy)}, of the whole machine"
    folds = member.splits_reason or "folds of unknown origin"
    yield "partitions", f"{folds}; {member.training_cases} training cases in fold {record.fold}"
    yield "weights of a training", f"{record.selection.replace('_', ' ')}; {choices_text(facts.choices)}"
    yield "changed by the user", ", ".join(f"{name}={value}" for name, value in plan.overrides.items()) or "nothing"


def _results_text(facts: CardFacts) -> str:
    if not facts.scored:
        return f"The held-out cases were not scored: {YOU}."
    text = (
        f"Of {count(facts.held_out_cases, 'held-out case')}, mean ± deviation over the folds of each network alone, without "
        f"post-processing; {choices_text(facts.choices)}."
    )
    if len(facts.members) > 1:
        text += " The ensemble was not measured on them: each of its networks has seen the cases of the other folds."
    return text


def _results(facts: CardFacts) -> Iterator[tuple[str, str]]:
    names = facts.first.spec.label_scheme().foreground
    for model in facts.models:
        keys = {"mDSC": "micro.dice", "mean of Dice over classes": "class_mean.dice", "Dice of images": "per_image.dice"}
        numbers = {title: facts.spread(model, key) for title, key in keys.items()}
        yield model, _joined(numbers)
        of_class = {"Dice": "pooled.dice", "HD95 of images": "per_image.hd95", "NSD of images": "per_image.nsd"}
        for name in names:
            yield f"{model}, {name}", _joined({title: facts.spread(model, key, name) for title, key in of_class.items()})
    yield "mDSC", _MICRO_DICE
    if facts.calibration is not None:
        yield "confidence", str(facts.calibration)
    for advice in advise_metrics(facts.fingerprint) if facts.fingerprint is not None else ():
        yield f"metrics to read{f' for {advice.of}' * bool(advice.of)}", str(advice)


def _joined(numbers: Mapping[str, str]) -> str:
    return ", ".join(f"{title} {text}" for title, text in numbers.items() if text) or "not scored"


def _limits(facts: CardFacts) -> Iterator[tuple[str, str]]:
    cases = len(facts.fingerprint.cases) if facts.fingerprint is not None else 0
    yield "one source", (
        f"trained and scored on {'one dataset' if not cases else f'one dataset of {cases} cases'}; other scanners, sites and "
        "populations were not seen: autoseg_evaluate --external measures another set"
    )
    if len({member.trained.record.seed for member in facts.members}) == 1:
        yield "one seed", "what another seed would change is in no number here"
    if facts.choices:
        yield "optimistic scores", choices_text(facts.choices)
    if facts.calibration is None:
        yield "confidence", "not calibrated: it ranks masks and is no expected Dice"
    yield "unlike images", (
        "a prediction warns if an image's brightness, colours or sharpness are far from the training set's; it does not see a "
        "wrong organ or a rare disease"
    )
    yield "groups of patients", f"performance by sex, age, site or device: autoseg_compare --metadata, else {YOU}"


def methods(facts: CardFacts) -> str:
    """A paragraph for a paper."""
    record, plan = facts.first.record, facts.first.plan
    networks = " and ".join(citation(model) for model in facts.models)
    starts = "; ".join(f"{one.file}, {one.trained_on or 'own file'} (SHA-256 {one.sha256[:12]})" for one in facts.weights)
    measured = facts.fingerprint
    data = f"{len(measured.cases)} {measured.modality} images" if measured is not None else "images"
    programs = ", ".join(f"{name} {version}" for name, version in sorted(facts.versions.items()))
    results = "; ".join(
        f"{model}: mDSC {facts.spread(model, 'micro.dice')}" for model in facts.models if facts.spread(model, "micro.dice")
    )
    return (
        f"We trained {networks} with autoseg ({programs}; protocol {record.protocol}, seed {seeds(facts)}) on {data} of "
        f"{record.dataset}{f' ({facts.first.spec.reference})' if facts.first.spec.reference else ''}, starting from "
        f"{starts or 'random weights'}. Each training took {record.steps} steps of {record.batch_size} images with "
        f"{plan.training.optimizer}, learning rate {record.learning_rate:g} and the loss {plan.training.loss}. "
        f"{facts.members[0].splits_reason.rstrip('.') or 'Folds as given'}. {choices_text(facts.choices).capitalize()}. "
        f"{f'On the held-out cases: {results}. ' if results else ''}mDSC is {_MICRO_DICE}."
    )


def _identities(facts: CardFacts) -> Iterator[tuple[str, str]]:
    for member in facts.members:
        record = member.trained.record
        yield f"{record.model}, fold {record.fold}", f"run {record.identity}"


def _items(items: tuple[Item, ...]) -> Lines:
    return tuple((f"{item.number} {item.topic}{f' ({item.studies})' * bool(item.studies)}", item.answer) for item in items)
