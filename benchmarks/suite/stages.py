"""The stages and their commands. All sides read the same files; earlier outputs are removed before each run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.suite import processes
from benchmarks.suite.environment import Sides, cores

THEIRS = Path(__file__).with_name("theirs.py")
# BARE: only the network's passes.
OURS, NNUNET, BARE = "autoseg", "nnunet", "bare"
# The same command on a tenth of the images, to subtract the start-up.
FEW = " few"


@dataclass(frozen=True)
class Side:
    """words: the command. clear: removed before each run. reports: its last output line is JSON with the seconds."""

    words: tuple[str, ...]
    environment: dict[str, str]
    clear: tuple[Path, ...] = ()
    reports: bool = False


@dataclass(frozen=True)
class Stage:
    """against: how many times cheaper than nnU-Net v2 it should be. above: how many times the bare passes it may take.

    per: what the seconds are of. note: what a reader must know of it.
    """

    title: str
    sides: dict[str, Side]
    per: str
    against: float
    above: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Amounts:
    """Sizes of the work. predicted: low and high side of the images to predict, and the network's input."""

    images: int = 200
    many: int = 1000
    predicted: int = 40
    masks: int = 200
    sides: tuple[int, int] = (384, 768)
    gray: tuple[int, int] = (256, 640)
    small: tuple[int, int] = (256, 512)
    input: int = 256
    epochs: int = 2
    mask: int = 512
    seconds: float = 4.0
    rounds: int = 5


QUICK = Amounts(
    images=12, many=24, predicted=4, masks=6, sides=(64, 96), gray=(64, 96), small=(64, 96), input=64, mask=64, seconds=0.2,
    rounds=1,
)  # fmt: skip

# Each kind of stage once.
QUICK_STAGES = ("help", "prepare-rgb", "loader-256", "step-fp32", "train", "predict", "evaluate")


@dataclass
class Bench:
    """Folder and sizes of the work. Data are generated once."""

    root: Path
    hands: Sides
    amounts: Amounts = field(default_factory=Amounts)

    def ours(self, *words: str, clear: tuple[Path, ...] = (), reports: bool = False) -> Side:
        return Side((sys.executable, *words), self.hands.ours(), clear, reports)

    def command(self, name: str, *words: str, clear: tuple[Path, ...] = ()) -> Side:
        """One of autoseg's commands, of this checkout."""
        code = f"from autoseg.cli.{name} import main; raise SystemExit(main())"
        return self.ours("-c", code, *words, clear=clear)

    def nnunet(self, module: str, function: str, *words: str, clear: tuple[Path, ...] = ()) -> Side:
        """One of nnU-Net's commands, by its entry point."""
        code = f"import sys; from nnunetv2.{module} import {function}; sys.argv[0] = '{function}'; {function}()"
        return Side((self.hands.theirs, "-c", code, *words), self.hands.nnunet(self.root), clear)

    def theirs(self, *words: str) -> Side:
        return Side((self.hands.theirs, str(THEIRS), *words), self.hands.nnunet(self.root), reports=True)

    def must(self, side: Side, what: str) -> processes.Ended:
        return processes.must(processes.run(side.words, side.environment), what)

    def raw(self, number: int, name: str, kind: str, count: int, sides: tuple[int, int]) -> Path:
        """A raw dataset under `root`, generated if missing."""
        folder = self.root / "raw" / f"Dataset{number}_{name}{count}"
        if not (folder / "dataset.json").exists():
            words = ("raw", str(folder), "--kind", kind, "--count", str(count), "--low", str(sides[0]), "--high", str(sides[1]))
            self.must(self.ours("-m", "benchmarks.suite.images", *words), "drawing images")
        return folder

    def masks(self, count: int, side: int) -> Path:
        """references/ and predictions/, generated if missing."""
        folder = self.root / f"masks_{count}_{side}"
        if not folder.exists():
            words = ("masks", str(folder), "--count", str(count), "--high", str(side))
            self.must(self.ours("-m", "benchmarks.suite.images", *words), "drawing masks")
        return folder


def start(bench: Bench) -> Stage:
    sides = {
        OURS: bench.command("train", "--help"),
        NNUNET: bench.nnunet("run.run_training", "run_training_entry", "--help"),
    }
    return Stage("`--help` of training", sides, "command", 10.0)


def prepare(number: int, name: str, kind: str, many: bool = False) -> Callable[[Bench], Stage]:
    """Fingerprint, plan and preprocessing from nothing, on a machine whose seconds for a step are known from a plan before."""

    def stage(bench: Bench) -> Stage:
        amounts = bench.amounts
        size = amounts.sides if kind == "rgb" else amounts.gray
        count = amounts.many if many else amounts.images
        raw = bench.raw(number, name, kind, count, size)
        ours = bench.command(
            "plan_and_preprocess", raw.name, "--models", "nnunet", "--device", bench.hands.device, "--root", str(bench.root),
            clear=(bench.root / "preprocessed" / raw.name,),
        )  # fmt: skip
        bench.must(ours, "measuring a step")
        words = ("-d", str(number), "-c", "2d", "-npfp", str(cores()), "-np", str(cores()), "--no_pbar")
        nnunet = bench.nnunet(
            "experiment_planning.plan_and_preprocess_entrypoints", "plan_and_preprocess_entry", *words,
            clear=(bench.root / "theirs" / raw.name,),
        )  # fmt: skip
        title = f"fingerprint, plan, preprocess: {count} {kind} images of {size[0]}-{size[1]} px"
        return Stage(title, {OURS: ours, NNUNET: nnunet}, f"{count} images", 8.0)

    return stage


def loader(side: int, against: float) -> Callable[[Bench], Stage]:
    def stage(bench: Bench) -> Stage:
        raw = bench.raw(920 + side // 256, f"Square{side}", "rgb", 48, (side, side))
        words = ("loader", str(raw), "--side", str(side), "--seconds", str(bench.amounts.seconds))
        sides = {
            OURS: bench.ours("-m", "benchmarks.suite.ours", *words, reports=True),
            NNUNET: bench.theirs(*words),
        }
        note = "one core; nnU-Net's probabilities on both sides; its images are in memory, autoseg's are read from the arrays"
        return Stage(f"loader and augmentation, RGB, {side} x {side}", sides, "image", against, None, note)

    return stage


def planned(bench: Bench, raw: Path, *words: str, settings: tuple[str, ...] = ()) -> None:
    """Both sides' plans; autoseg's is for nnU-Net's small network. words: for autoseg's command."""
    side, number = bench.amounts.input, raw.name[7:10]
    network = ("geometry=resize", "models.nnunet.variant=small", f"models.nnunet.input_size={side}x{side}")
    plan_options = ("--models", "nnunet", *words, *(word for pair in (*network, *settings) for word in ("--set", pair)))
    where = ("--device", bench.hands.device, "--root", str(bench.root))
    bench.must(bench.command("plan_and_preprocess", raw.name, *plan_options, *where), "planning")
    theirs = ("-d", number, "-c", "2d", "-npfp", str(cores()), "--no_pp", "--no_pbar")
    entry = ("experiment_planning.plan_and_preprocess_entrypoints", "plan_and_preprocess_entry")
    bench.must(bench.nnunet(*entry, *theirs), "nnU-Net's planning")


def trained(bench: Bench) -> tuple[Path, Path, Path]:
    """The raw dataset, autoseg's results folder and nnU-Net's, with the same network; logits are compared."""
    amounts = bench.amounts
    raw = bench.raw(930, "Predict", "rgb", amounts.predicted, amounts.small)
    fold = bench.root / "results" / raw.name / "nnunet" / "fold_0"
    theirs = bench.root / "theirs_results" / raw.name
    if (theirs / "agreed.json").exists():
        return raw, fold, theirs
    root = ("--root", str(bench.root))
    planned(bench, raw, "--no-preprocess")
    worker = ("-m", "benchmarks.suite.ours")
    bench.must(bench.ours(*worker, "network", "--dataset", raw.name, *root), "making the network")
    plans = bench.root / "theirs" / raw.name / "nnUNetPlans.json"
    files = (str(fold / "network.pt"), str(plans), str(raw / "dataset.json"), str(theirs))
    bench.must(bench.theirs("network", *files), "writing nnU-Net's network")
    agreed = bench.must(bench.ours(*worker, "compare", "--dataset", raw.name, *root), "comparing the networks")
    (theirs / "agreed.json").write_text(agreed.output.splitlines()[-1])
    return raw, fold, theirs


def step(precision: str) -> Callable[[Bench], Stage]:
    def stage(bench: Bench) -> Stage:
        amounts = bench.amounts
        _, fold, theirs = trained(bench)
        words = ("--side", str(amounts.input), "--rounds", str(amounts.rounds), "--device", bench.hands.device)
        ours = ("-m", "benchmarks.suite.ours", "step", *words, "--precision", precision)
        sides = {
            OURS: bench.ours(*ours, reports=True),
            NNUNET: bench.theirs("step", str(fold / "network.pt"), str(theirs), *words),
            BARE: bench.ours(*ours, "--bare", reports=True),
        }
        title = f"training step, 4 x 3 x {amounts.input} x {amounts.input}, {precision}"
        note = "bare: forward, cross entropy on the full size, backward, optimiser; nnU-Net trains in fp32 on processors"
        return Stage(title, sides, "step", 1.0, 1.05, note)

    return stage


def train(bench: Bench) -> Stage:
    """A whole training of few epochs: same network, images, batch and number of steps."""
    amounts = bench.amounts
    images, batch = max(10, amounts.predicted), 4  # Folds and splits need ten.
    raw = bench.raw(940, "Train", "rgb", images, amounts.small)
    _, fold, _ = trained(bench)
    steps = images * 4 // 5 // batch
    prepared = bench.root / "theirs" / raw.name
    if not (prepared / "nnUNetPlans_2d").exists():
        settings = (f"models.nnunet.batch_size={batch}", f"training.epochs={amounts.epochs}", "training.learning_rates=0.0003")
        planned(bench, raw, settings=settings)
        words = ("fit", str(fold / "network.pt"), str(prepared / "nnUNetPlans.json"), "--batch", str(batch))
        bench.must(bench.theirs(*words), "fitting nnU-Net's plan")
        entry = ("experiment_planning.plan_and_preprocess_entrypoints", "preprocess_entry")
        bench.must(bench.nnunet(*entry, "-d", "940", "-c", "2d", "-np", str(cores()), "--no_pbar"), "nnU-Net's preprocessing")
    device = bench.hands.device
    results = bench.root / "results" / raw.name
    words = ("train", "940", "--rounds", str(amounts.epochs), "--steps", str(steps), "--device", device)
    sides = {
        OURS: bench.command("train", raw.name, "nnunet", "0", "--device", device, "--root", str(bench.root), clear=(results,)),
        NNUNET: replace(bench.theirs(*words), clear=(bench.root / "theirs_results" / raw.name,), reports=False),
    }
    title = f"training, {amounts.epochs} epochs of {steps} steps, 4 x 3 x {amounts.input} x {amounts.input}, and its validation"
    note = "the command, start-up included; nnU-Net trains in fp32 on processors, and mirrors when it validates"
    return Stage(title, sides, "training", 1.0, None, note)


def predict(mirrored: bool) -> Callable[[Bench], Stage]:
    def stage(bench: Bench) -> Stage:
        amounts, root = bench.amounts, ("--root", str(bench.root))
        raw, _, model = trained(bench)
        device = ("--device", bench.hands.device)
        first = sorted((raw / "imagesTr").iterdir())[: max(1, amounts.predicted // 10)]
        output, elsewhere = bench.root / "masks", bench.root / "theirs_masks"

        def ours(*images: Path) -> Side:
            words = ("-i", *map(str, images), "-o", str(output), "-d", raw.name, "-m", "nnunet", *device, *root)
            return bench.command("predict", *words, "--tta" if mirrored else "--no-tta", clear=(output,))

        words = (
            "-i", str(raw / "imagesTr"), "-o", str(elsewhere), "-m", str(model), "-f", "0", "-device", bench.hands.device,
            "-npp", str(cores()), "-nps", str(cores()), "--disable_progress_bar", *(() if mirrored else ("--disable_tta",)),
        )  # fmt: skip
        alone = (
            "--dataset", raw.name, "--images", str(amounts.predicted - len(first)), "--views", "4" if mirrored else "1",
            *device, *root,
        )  # fmt: skip
        entry = ("inference.predict_from_raw_data", "predict_entry_point_modelfolder")
        sides = {
            OURS: ours(raw / "imagesTr"),
            NNUNET: bench.nnunet(*entry, *words, clear=(elsewhere,)),
            BARE: bench.ours("-m", "benchmarks.suite.ours", "forward", *alone, reports=True),
            OURS + FEW: ours(*first),
        }
        low, high = amounts.small
        title = f"prediction of {amounts.predicted} images of {low}-{high} px{', mirrored' if mirrored else ''}"
        note = "bare: the network alone at its input size, against autoseg beyond start-up"
        return Stage(title, sides, f"{amounts.predicted} images", 8.0 if mirrored else 4.0, 1.25, note)

    return stage


def evaluate(bench: Bench) -> Stage:
    amounts = bench.amounts
    folder = bench.masks(amounts.masks, amounts.mask)
    references, predictions = str(folder / "references"), str(folder / "predictions")
    words = (references, predictions, "-l", "1", "2", "-np", str(cores()), "-o", str(bench.root / "summary.json"))
    sides = {
        OURS: bench.command("evaluate", predictions, references, "-o", str(bench.root / "scores")),
        NNUNET: bench.nnunet("evaluation.evaluate_predictions", "evaluate_simple_entry_point", *words),
    }
    note = "nnU-Net computes Dice and IoU only; autoseg HD95, surface Dice and surface distance too"
    title = f"evaluation, {amounts.masks} masks of {amounts.mask} x {amounts.mask}"
    return Stage(title, sides, f"{amounts.masks} pairs", 3.0, None, note)


STAGES: dict[str, Callable[[Bench], Stage]] = {
    "help": start,
    "prepare-rgb": prepare(901, "Rgb", "rgb"),
    "prepare-gray8": prepare(903, "Gray", "gray8"),
    "prepare-gray16": prepare(905, "Deep", "gray16"),
    "prepare-many": prepare(907, "Many", "gray8", many=True),
    "loader-256": loader(256, 3.0),
    "loader-512": loader(512, 2.0),
    "step-fp32": step("fp32"),
    "step-bf16": step("bf16"),
    "train": train,
    "predict": predict(mirrored=False),
    "predict-mirrored": predict(mirrored=True),
    "evaluate": evaluate,
}
