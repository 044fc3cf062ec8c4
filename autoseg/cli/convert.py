"""autoseg_convert: somebody's images and masks into a raw dataset."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from autoseg.cli import entry


@entry.command
def main(arguments: Sequence[str] | None = None) -> int:
    parser = entry.parser(
        "autoseg_convert",
        "Bring a dataset in: write it in nnU-Net v2's raw layout, after checking every file.",
        "example: autoseg_convert folders --images photos --masks masks --name Polyp --labels background,polyp",
    )
    kinds = parser.add_subparsers(dest="kind", metavar="KIND", required=True)
    folders = kinds.add_parser("folders", help="a folder of images and a folder of masks with the same names")
    folders.add_argument("--images", required=True, type=Path, metavar="DIR", help="the images")
    folders.add_argument("--masks", required=True, type=Path, metavar="DIR", help="the masks: same names, pixels are class ids")
    folders.add_argument("--name", required=True, help="what to call the dataset")
    folders.add_argument("--id", type=int, metavar="N", help="its number (default: the next free from 501)")
    folders.add_argument("--labels", type=entry.names, metavar="A,B,...", help="class names by value, background first")
    folders.add_argument("--groups", metavar="REGEX", help=r"finds the patient in a file's name, e.g. '(patient\d+)'")
    folders.add_argument("--channels", type=entry.names, metavar="A,B,...", help="names of the channels")
    folders.add_argument("--modality", default="", help="such as ultrasound, where the images do not tell")
    folders.add_argument("--overwrite", action="store_true", help="replace a dataset of that id and name")
    folders.add_argument("--root", metavar="DIR", default=argparse.SUPPRESS, help="as above")
    options = parser.parse_args(arguments)
    from autoseg import api

    report = api.convert_folders(
        images=options.images,
        masks=options.masks,
        name=options.name,
        number=options.id,
        labels=options.labels,
        groups=options.groups,
        channels=options.channels,
        modality=options.modality,
        overwrite=options.overwrite,
        root=options.root,
    )
    print(report)
    return 0
