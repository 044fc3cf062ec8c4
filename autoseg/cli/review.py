"""autoseg_review: a local web page to try networks and correct masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from autoseg.cli import entry


@entry.command
def main(arguments: Sequence[str] | None = None) -> int:
    parser = entry.parser(
        "autoseg_review",
        "Open a local web page: drop an image, see mask, confidence and warnings, correct the mask, save it as a case.",
        "needs the extra [web]; example: autoseg_review 501, or autoseg_review lesions.zip --cases corrected",
    )
    parser.add_argument("what", metavar="BUNDLE|DATASET", help="a file of autoseg_export, or a dataset with trained models")
    parser.add_argument(
        "--cases", type=Path, metavar="DIR", help="folder for corrections (default: the dataset, or ./corrected)"
    )
    parser.add_argument("--port", type=int, metavar="N", help="port on 127.0.0.1 (default: the first free one from 7860)")
    entry.add_device(parser)
    options = parser.parse_args(arguments)
    from autoseg import api

    page = api.review_page(options.what, cases=options.cases, device=options.device, root=options.root)
    from autoseg.prediction.review_app import launch

    print(f"the page is on http://127.0.0.1:{options.port or '7860 (or the next free port)'} until Ctrl-C", flush=True)
    launch(page, options.port)
    return 0
