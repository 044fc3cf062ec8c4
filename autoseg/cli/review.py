"""autoseg_review: a local web page to try networks and correct masks."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autoseg.cli import entry

if TYPE_CHECKING:
    from autoseg.prediction.review_server import ReviewServer

logger = logging.getLogger(__name__)


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
    parser.add_argument("--port", type=int, metavar="N", help="port (default: the first free one from 7860)")
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS",
        help="an address of this machine, for other machines; not encrypted (default: 127.0.0.1, this machine only)",
    )  # fmt: skip
    entry.add_device(parser)
    options = parser.parse_args(arguments)
    from autoseg import api

    page = api.review_page(
        options.what, cases=options.cases, host=options.host, port=options.port, device=options.device, root=options.root
    )
    with page:
        if options.host not in ("127.0.0.1", "localhost"):
            logger.warning(
                f"--host {options.host}: other machines can reach the page. Images, masks and the address with its token are "
                "not encrypted on the network, and who has the address can predict and save training cases"
            )
        print(f"the page is on {page.address} until Ctrl-C; the address is the key to it", flush=True)
        serve(page)
    return 0


def serve(page: ReviewServer) -> None:
    """Serve until Ctrl-C, SIGTERM or the end of the terminal. The uploads are deleted after each of them."""
    stop = threading.Event()
    endings = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    handlers = {ending: signal.signal(ending, lambda *_: stop.set()) for ending in endings}
    try:
        page.run(stop)
    finally:
        for ending, handler in handlers.items():
            signal.signal(ending, handler)
