"""What a GPU does with autoseg, in at most four minutes: `python -m benchmarks.gpu [--out FILE] [--device cuda] [--smoke]`.

For a bare machine with a GPU and autoseg's packages (nilearn for its three files of the MNI152 brain). Sections, each with
its own time limit; one that fails does not stop the others, and the file is written after each result:

    device        name, memory, rates of matrix products and copies
    networks      training steps of every model: memory against the planner's, images a second
    memory        training and prediction where the memory ends
    quick         autoseg_demo: Dice on held-out slices
    predict       autoseg_predict, plain, mirrored, and on the CPU; tiles a second
    side by side  two folds on one GPU
    loader        images a second of threads and worker processes
    two processes one training by two processes: SyncBatchNorm
    rules         precision and memory format
    repeats       whether the same steps give the same weights
    compile       torch.compile

--smoke: everything small, also on a CPU, to see that the script runs.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

Row = dict[str, Any]
FAST = ("unet", "nnunet", "segformer", "efficientnet_lite0_upernet")
SLOW = ("swin_umamba",)
_COMMAND = "import sys; from autoseg.cli.{name} import main; sys.exit(main(sys.argv[1:]))"


class TimeIsUp(BaseException):
    """Not an Exception, so that no section's own handling catches it. of_outer: the time of the whole section."""

    def __init__(self, text: str, of_outer: bool) -> None:
        super().__init__(text)
        self.of_outer = of_outer


@dataclass
class Report:
    """Results by section, in a file that is complete after each `add`."""

    path: Path
    began: float = field(default_factory=time.perf_counter)
    results: Row = field(default_factory=dict)

    def add(self, section: str, key: str, value: Any) -> None:
        self.results.setdefault(section, {})[key] = value
        temporary = self.path.with_suffix(".part")
        temporary.write_text(json.dumps(self.results, indent=1, default=str))
        temporary.replace(self.path)
        print(f"[{time.perf_counter() - self.began:5.1f} s] {section}: {key}: {_short(value)}", flush=True)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What all sections read. root: of the demonstration."""

    device: str
    smoke: bool
    root: Path
    report: Report
    plans: Any = None

    @property
    def patience(self) -> float:
        """Factor of all limits: a smoke test may run on a busy machine."""
        return 10.0 if self.smoke else 1.0

    @property
    def torch_device(self) -> Any:
        import torch

        # The limits of memory need a number.
        return torch.device("cuda:0" if self.device == "cuda" else self.device)

    def models(self) -> tuple[str, ...]:
        from autoseg.models import registry

        # The slowest last: what it takes is missed by no other.
        return FAST[-2:] if self.smoke else (*(name for name in registry.names() if name not in SLOW), *SLOW)

    def fast(self) -> tuple[str, ...]:
        return FAST[-1:] if self.smoke else FAST

    @property
    def side(self) -> int:
        return 64 if self.smoke else 512

    @property
    def batch(self) -> int:
        return 2 if self.smoke else 8

    @property
    def seconds(self) -> float:
        return 0.1 if self.smoke else 1.0


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raises TimeIsUp in the block after so many seconds, or when the time of an outer block is over."""

    outer, _ = signal.getitimer(signal.ITIMER_REAL)

    def stop(*_: object) -> None:
        of_outer = bool(outer) and outer < seconds
        raise TimeIsUp("the section's time was over" if of_outer else f"stopped after {seconds:.0f} s", of_outer)

    before, began = signal.signal(signal.SIGALRM, stop), time.perf_counter()
    signal.setitimer(signal.ITIMER_REAL, min(seconds, outer) if outer else seconds)
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, before)
        left = outer - (time.perf_counter() - began)
        signal.setitimer(signal.ITIMER_REAL, max(left, 0.01) if outer else 0)


def each(options: Options, section: str, name: str, work: Callable[[], Any], limit: float = 30.0) -> None:
    """One result of a section, or the reason why there is none."""
    try:
        with limited(limit * options.patience):
            value = work()
    except TimeIsUp as stopped:
        if stopped.of_outer:
            raise
        value = {"error": str(stopped)}
    except Exception as error:
        lines = traceback.format_exc().strip().splitlines()
        value = {"error": f"{type(error).__name__}: {error}"[:500], "where": lines[-6:]}
    options.report.add(section, name, value)


def command(options: Options, name: str, *arguments: str, limit: float, device: str = "") -> Row:
    """Run one of autoseg's commands in a process of its own."""
    words = [sys.executable, "-c", _COMMAND.format(name=name), *arguments, "--root", str(options.root)]
    began = time.perf_counter()
    process = subprocess.Popen(
        [*words, "--device", device or options.device], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=limit * options.patience)
    except (subprocess.TimeoutExpired, TimeIsUp):
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        output += f"\nstopped after {limit:.0f} s"
    row = {"code": process.returncode, "seconds": time.perf_counter() - began}
    return row if process.returncode == 0 else {**row, "output": output[-1500:]}


def device(options: Options) -> None:
    from benchmarks.suite.gpu_networks import device_facts

    for name, value in device_facts(options.torch_device, options.smoke).items():
        options.report.add("device", name, value)


def networks(options: Options) -> None:
    from benchmarks.suite.gpu_networks import one_model

    for model in options.models():
        work = lambda model=model: one_model(  # noqa: E731
            model, options.plans[model], options.batch, options.torch_device, options.seconds
        )
        each(options, "networks", model, work, 15)


def memory(options: Options) -> None:
    from benchmarks.suite.gpu_networks import prediction_out_of_memory, training_out_of_memory

    if options.device == "cpu":
        options.report.add("memory", "skipped", "PyTorch limits the memory of GPUs only")
        return
    work = options.side, 2 * options.batch, options.torch_device
    each(options, "memory", "training", lambda: training_out_of_memory(*work))
    each(options, "memory", "prediction", lambda: prediction_out_of_memory(*work))


def quick(options: Options) -> None:
    each(options, "quick", "demo", lambda: demo(options), 80)


def demo(options: Options) -> Row:
    row = command(options, "demo", *(("--epochs", "2") if options.smoke else ()), limit=75)
    results = next(options.root.glob("results/*"), None)
    for path in results.glob("*/fold_0/run.json") if results else ():
        record = json.loads(path.read_text())
        names = (
            "class_mean_dice", "micro_dice", "epochs_done", "seconds", "images_per_second", "peak_device_memory",
            "peak_step_memory", "planned_memory", "memory_format", "precision", "accumulate", "batch_size", "epoch_seconds",
        )  # fmt: skip
        row["run"] = {name: record.get(name) for name in names}
    for path in results.glob("*/test/scores.json") if results else ():
        classes = json.loads(path.read_text())["classes"]
        row["dice"] = {name: summary["pooled"]["dice"] for name, summary in classes.items()}
    return row


def predict(options: Options) -> None:
    from benchmarks.suite.gpu_networks import prediction_rate

    for model in options.fast()[:3]:
        work = lambda model=model: prediction_rate(  # noqa: E731
            model, options.side, options.batch, options.torch_device, options.seconds / 2
        )
        each(options, "predict", model, work, 15)
    dataset = next(options.root.glob("raw/*"))
    images = str(dataset / "imagesTr")
    for name, views, where in (("plain", "--no-tta", ""), ("mirrored", "--tta", ""), ("cpu", "--no-tta", "cpu")):
        arguments = ("-i", images, "-o", str(options.root / name), "-d", dataset.name, "-m", FAST[-1], "-f", "0", views)
        work = lambda arguments=arguments, where=where: command(  # noqa: E731
            options, "predict", *arguments, limit=35, device=where
        )
        each(options, "predict", f"autoseg_predict {name}", work, 40)
    each(options, "predict", "pixels equal to the CPU's", lambda: agreement(options.root / "plain", options.root / "cpu"))


def agreement(one: Path, other: Path) -> float:
    """Fraction of equal pixels of the masks in two folders."""
    import numpy as np

    from autoseg.io import read_label

    pairs = [(read_label(path).array, read_label(other / path.name).array) for path in sorted(one.glob("*.nii.gz"))]
    return float(np.mean([np.mean(first == second) for first, second in pairs])) if pairs else 0.0


def side_by_side(options: Options) -> None:
    dataset = next(options.root.glob("raw/*"))
    epochs = ("--set", f"training.epochs={2 if options.smoke else 10}")
    for name, folds, workers in (("one fold", "1", "1"), ("two folds", "2,3", "2")):
        arguments = ("--datasets", dataset.name, "--folds", folds, "--workers", workers, *epochs)
        work = lambda arguments=arguments: command(options, "run", *arguments, limit=55)  # noqa: E731
        each(options, "side by side", name, work, 60)
    for path in sorted(options.root.glob("results/*/*/fold_[123]/run.json")):
        record = json.loads(path.read_text())
        names = ("status", "class_mean_dice", "micro_dice", "seconds", "images_per_second", "peak_device_memory")
        row = {name: record.get(name) for name in names}
        options.report.add("side by side", path.parent.name, row)


def loader(options: Options) -> None:
    from benchmarks.suite.gpu_processes import loader_rates

    options.report.add("loader", "cores", os.cpu_count())
    for side in (256, 512):
        workers = [1, 2] if options.smoke else [1, 2, 4, 8, 15] if side == 256 else [1, 4, 15]
        for name, value in loader_rates(side, 8, workers, options.seconds):
            options.report.add("loader", name, value)


def two_processes(options: Options) -> None:
    from benchmarks.suite.gpu_processes import two_processes as train

    each(options, "two processes", "unet", lambda: train(options.torch_device, options.side // 2, 4), 40)


def rules(options: Options) -> None:
    from benchmarks.suite.gpu_networks import rules as rates

    for name, row in rates(options.fast(), options.side, options.batch, options.torch_device, options.seconds / 2):
        options.report.add("rules", name, row)


def repeats(options: Options) -> None:
    from benchmarks.suite.gpu_networks import repeats as compare

    for model in options.models():
        work = lambda model=model: compare(model, options.side // 2, 2, options.torch_device)  # noqa: E731
        each(options, "repeats", model, work, 10)


def compiling(options: Options) -> None:
    from benchmarks.suite.gpu_networks import compiled_rate

    for model in options.fast()[:2]:
        work = lambda model=model: compiled_rate(  # noqa: E731
            model, options.side, options.batch, options.torch_device, options.seconds
        )
        each(options, "compile", model, work, 40)


# Section and its limit in seconds.
SECTIONS: dict[str, tuple[Callable[[Options], None], float]] = {
    "device": (device, 30),
    "networks": (networks, 110),
    "memory": (memory, 15),
    "quick": (quick, 60),
    "predict": (predict, 50),
    "side by side": (side_by_side, 60),
    "loader": (loader, 40),
    "two processes": (two_processes, 25),
    "rules": (rules, 25),
    "repeats": (repeats, 25),
    "compile": (compiling, 45),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=240, help="for all sections together (default: 240)")
    parser.add_argument("--sections", default=",".join(SECTIONS), help="default: all")
    parser.add_argument("--smoke", action="store_true", help="everything small")
    arguments = parser.parse_args()
    names = arguments.sections.split(",")
    unknown = [name for name in names if name not in SECTIONS]
    if unknown:
        parser.error(f"there is no section {unknown[0]!r}; sections: {', '.join(SECTIONS)}")
    from benchmarks.suite.gpu_networks import Plans

    with tempfile.TemporaryDirectory() as folder:
        options = Options(device=arguments.device, smoke=arguments.smoke, root=Path(folder), report=Report(arguments.out))
        workers = max(1, min(8, (os.cpu_count() or 1) - 2))
        models = options.models() if "networks" in names else ()
        plans = Plans(models, options.side, options.batch, options.device.split(":")[0], workers)
        try:
            run(replace(options, plans=plans), names, arguments.seconds * options.patience)
        finally:
            plans.close()
    print(table(options.report.results))


def run(options: Options, names: list[str], seconds: float) -> None:
    """All sections, in `seconds` together."""
    report = options.report
    for name in names:
        section, limit = SECTIONS[name]
        left, began = seconds - (time.perf_counter() - report.began), time.perf_counter()
        if left < 5:
            report.add(name, "skipped", "no time left")
            continue
        try:
            with limited(min(limit * options.patience, left)):
                section(options)
        except TimeIsUp as stopped:
            report.add(name, "stopped", str(stopped))
        except Exception as error:
            report.add(name, "error", f"{type(error).__name__}: {error}\n{traceback.format_exc()[-800:]}")
        report.add(name, "section seconds", time.perf_counter() - began)


def table(results: Row) -> str:
    """Markdown: one line for each network, then one for each other result."""
    lines = [
        "| model | input, precision | planned | measured | ratio | images a second | TFLOP/s |",
        "|---|---|---|---|---|---|---|",
    ]
    for model, row in results.get("networks", {}).items():
        if not isinstance(row, dict) or "peak" not in row:
            continue
        what = f"{row['batch']} x {row['side']}, {row['precision']}"
        sizes = f"{row['planned'] / 2**30:.2f} GiB | {row['peak'] / 2**30:.2f} GiB | {row['peak_to_planned']:.2f}"
        speed = f"{row['images_per_second']:.0f} | {row['tflops']:.1f}"
        lines.append(f"| `{model}` {row['variant']} | {what} | {sizes} | {speed} |")
    for section, rows in results.items():
        for name, row in rows.items():
            if section != "networks" or not isinstance(row, dict) or "error" in row:
                lines.append(f"{section} | {name}: {_short(row)}")
    return "\n".join(lines)


def _short(value: Any) -> str:
    def rounded(one: Any) -> Any:
        if isinstance(one, float):
            return float(f"{one:.4g}")
        if isinstance(one, dict):
            return {key: rounded(inner) for key, inner in one.items()}
        return [rounded(inner) for inner in one] if isinstance(one, list | tuple) else one

    return json.dumps(rounded(value), default=str)[:700]


if __name__ == "__main__":
    main()
