"""The filed example, documentation/example: three networks on the demo's slices, compared and reported with the commands.

    python -m benchmarks.example --prepare     data and second masks, for the commands of its README.md
    python -m benchmarks.example               files what the commands have made

Filed are the tables, the page's pictures and the model card, as the commands wrote them.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
import zipfile
from pathlib import Path

from autoseg.support.files import write_text
from autoseg.support.workspace import Workspace
from benchmarks.pictures import shoot
from dataset_conversion.mni152 import convert_mni152, write_stricter_masks

NUMBER = 503
FOLDER = Path("documentation/example")
# Page of the report: name of the picture -> width and height of the window in CSS pixels, colour scheme.
SHOTS = {"report": (1280, 1500, ""), "report_dark": (1280, 1500, "dark"), "report_narrow": (420, 1600, "")}
_DOCUMENT = r"""\documentclass{article}
\usepackage[a4paper,margin=2.2cm]{geometry}
\usepackage{booktabs,graphicx}
\begin{document}
\input{comparison}
\end{document}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("example_data"))
    parser.add_argument("--prepare", action="store_true", help="convert the slices only")
    options = parser.parse_args()
    if options.prepare:
        convert_mni152(NUMBER, Workspace.at(options.root), overwrite=True)
        write_stricter_masks(options.root / "second_masks")
    else:
        file_results(options.root)


def file_results(root: Path) -> None:
    """Copy tables and cards, compile the LaTeX tables, take the page's pictures."""
    made = Workspace.at(root).dataset(NUMBER).results / "comparison"
    for path in (made / "comparison.md", made / "comparison.tex", *sorted(made.glob("comparison_*.csv"))):
        shutil.copyfile(path, FOLDER / path.name)
    shutil.copyfile(root / "model.card.html", FOLDER / "model_card.html")
    with zipfile.ZipFile(root / "model.zip") as bundle:
        write_text(FOLDER / "MODEL_CARD.md", bundle.read("MODEL_CARD.md").decode())
    with tempfile.TemporaryDirectory() as folder:
        shutil.copyfile(FOLDER / "comparison.tex", Path(folder) / "comparison.tex")
        write_text(Path(folder) / "tables.tex", _DOCUMENT)
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "tables.tex"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=120)
        shutil.copyfile(Path(folder) / "tables.pdf", FOLDER / "tables.pdf")
    for name, (width, height, scheme) in SHOTS.items():
        shoot(made / "report.html", FOLDER / f"{name}.png", (width, height), scheme)


if __name__ == "__main__":
    main()
