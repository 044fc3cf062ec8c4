"""The picture of an audit's gallery in the documentation, made of the demo's slices. Of a page: benchmarks/example.py.

    python -m benchmarks.pictures [--root ROOT] [--epochs 15] [-o documentation/pictures]

Six masks of the MNI152 slices are spoilt as in benchmarks/audit.py, two networks are trained on five folds (about fifteen
minutes on two cores) and used for an audit. Then Chromium takes the picture. Prints where in the audit's
list the six stand.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

import cv2
import numpy as np

from autoseg import api
from autoseg.io import read_label, stem_of, write_label
from autoseg.support.log import configure_logging
from autoseg.support.workspace import Workspace, labels_folder
from benchmarks.audit import KINDS, spoil
from dataset_conversion.mni152 import convert_mni152

NUMBER, SPOILT = 502, 6
MODELS = ("efficientnet_lite0_upernet", "unet")
BROWSER = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--hide-scrollbars")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("benchmark_data"))
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("-o", "--output", type=Path, default=Path("documentation/pictures"))
    options = parser.parse_args()
    configure_logging()
    dataset = Workspace.at(options.root).dataset(NUMBER) if (options.root / "spoilt").is_file() else None
    if dataset is None:
        dataset = convert_mni152(NUMBER, Workspace.at(options.root), overwrite=True)
        cases = plant(labels_folder(dataset, "Tr"))
        (options.root / "spoilt").write_text("\n".join(cases))
    settings = {"training.epochs": str(options.epochs)}
    api.plan_and_preprocess(dataset.name, protocol="quick", models=MODELS, settings=settings, root=options.root)
    for model in MODELS:
        api.train(dataset.name, model, root=options.root)
    audit = api.audit(dataset.name, root=options.root)
    planted = (options.root / "spoilt").read_text().splitlines()
    ranked = list(audit.cases)
    for line in planted:
        case, kind = line.split()
        print(f"{case} ({kind}): place {ranked.index(case) + 1 if case in ranked else 'none'} of {len(ranked)}")
    shoot(dataset.results / "audit" / "gallery.html", options.output / "audit.png", (1100, 900))


def plant(folder: Path) -> list[str]:
    """Spoil every sixth mask of a folder, each in another way; gives "case kind" of each."""
    rng = np.random.default_rng(4)
    done: list[str] = []
    for place, path in enumerate(sorted(folder.iterdir())[2::6][:SPOILT]):
        labels, kind = read_label(path).array, KINDS[place % len(KINDS)]
        spoilt = spoil(labels, kind, rng)
        assert spoilt is not None, f"{path.name} cannot be {kind}"
        write_label(path, np.minimum(spoilt, 2))
        done.append(f"{stem_of(path)} {kind}")
    return done


def shoot(page: Path, picture: Path, size: tuple[int, int], scheme: str = "") -> None:
    """A screenshot of the page's top, at four fifths of its size. scheme: "dark", or "" for light."""
    browser = shutil.which("chromium")
    assert browser, "chromium is not installed"
    with tempfile.TemporaryDirectory() as folder:
        window, shot = f"--window-size={size[0]},{size[1]}", Path(folder) / "shot.png"
        dark = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
        command = [browser, *BROWSER, *dark, f"--user-data-dir={folder}/profile", window, f"--screenshot={shot}", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=180)
        image = cv2.imread(str(shot))
        assert image is not None
    picture.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(picture), cv2.resize(image, None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA))


if __name__ == "__main__":
    main()
