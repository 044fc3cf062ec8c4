"""One folder with the same images in many formats, and a broken file: does the format change the mask?

    python -m benchmarks.mixed_folder --bundle FILE.zip --images DIR [--count 5] [--keep DIR]

Writes each of the first `count` gray 8-bit images of a folder as PNG, 16-bit PNG, TIFF, BMP, RGB JPEG, NIfTI, MHA, NRRD and
DICOM (plain, negative, RGB, run-length), adds a 16-bit PNG stretched to 0..65535 and a file that is no image, and runs
`autoseg_predict` on all of it. Prints the exit code, what was refused and why, and for each format how its masks agree with
the PNGs': share of equal pixels and Dice, the worst case of each. Needs the extra [dicom]. --keep: where to leave it all.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import cv2
import numpy as np

from autoseg.cli.predict import main as predict
from autoseg.io import read_image, read_label, write_image
from autoseg.schema.prediction import PredictionRecord
from autoseg.support.files import hash_file, read_artefact

_LOSSLESS = {"TIFF": ".tif", "BMP": ".bmp", "NIfTI": ".nii.gz", "MHA": ".mha", "NRRD": ".nrrd"}


def write_all(gray: np.ndarray, folder: Path, stem: str) -> dict[str, Path]:
    """Format -> the file. gray: (H, W) uint8."""
    made = {"PNG": folder / f"{stem}_a.png", "16-bit PNG": folder / f"{stem}_b.png", "RGB JPEG": folder / f"{stem}.jpg"}
    made["stretched 16-bit PNG"] = folder / f"{stem}_c.png"
    write_image(made["PNG"], gray[None])
    write_image(made["16-bit PNG"], gray[None].astype(np.uint16))
    write_image(made["stretched 16-bit PNG"], gray[None].astype(np.uint16) * 257)
    cv2.imwrite(str(made["RGB JPEG"]), np.repeat(gray[..., None], 3, axis=2), [cv2.IMWRITE_JPEG_QUALITY, 95])
    for name, ending in _LOSSLESS.items():
        made[name] = folder / f"{stem}_{name.lower()}{ending}"
        write_image(made[name], gray[None])
    scans = {
        "DICOM": ("a.dcm", gray, "MONOCHROME2", False),
        "DICOM, negative": ("b.dcm", 255 - gray, "MONOCHROME1", False),
        "DICOM, RGB": ("c.dcm", np.repeat(gray[..., None], 3, axis=2), "RGB", False),
        "DICOM, run-length, no suffix": ("d", gray, "MONOCHROME2", True),
    }
    for name, (ending, pixels, colours, packed) in scans.items():
        made[name] = folder / f"{stem}_{ending}"
        write_dicom(made[name], pixels, colours, packed)
    return made


def write_dicom(path: Path, pixels: np.ndarray, colours: str, packed: bool = False) -> None:
    """A secondary capture of (H, W) or (H, W, 3) uint8. colours: its photometric interpretation. packed: run-length."""
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian, RLELossless, SecondaryCaptureImageStorage, generate_uid

    made = pydicom.Dataset()
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    made.StudyInstanceUID, made.SeriesInstanceUID = generate_uid(), generate_uid()
    made.PatientName, made.PatientID, made.Modality = "Somebody^Else", "4711", "US"
    made.Rows, made.Columns = pixels.shape[:2]
    made.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    if pixels.ndim == 3:
        made.PlanarConfiguration = 0
    made.PhotometricInterpretation = colours
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 8, 8, 7, 0
    made.PixelData = np.ascontiguousarray(pixels).tobytes()
    if len(made.PixelData) % 2:
        made.PixelData += b"\0"
    if packed:
        made.compress(RLELossless)
    made.save_as(path, enforce_file_format=True)


def dice(first: np.ndarray, second: np.ndarray) -> float:
    total = int((first > 0).sum()) + int((second > 0).sum())
    return 2 * int(((first > 0) & (second > 0)).sum()) / total if total else 1.0


def compare(bundle: Path, images: Path, count: int, folder: Path) -> None:
    inputs, masks = folder / "mixed", folder / "masks"
    files: dict[str, dict[str, Path]] = {}
    for path in sorted(images.iterdir())[:count]:
        gray = read_image(path).array[0]
        for name, made in write_all(gray, inputs, path.stem).items():
            files.setdefault(name, {})[path.stem] = made
    (inputs / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnonsense")
    arguments = ["-i", str(inputs), "-o", str(masks), "--bundle", str(bundle), "--dicom-masks", "png", "--device", "cpu"]
    print(f"exit code {predict(arguments)}")
    record = read_artefact(masks / "prediction.json", PredictionRecord)
    found = {case.sha256: read_label(masks / case.output).array.squeeze() for case in record.cases}
    print(f"{'format':<30}{'predicted':>10}{'equal pixels':>14}{'Dice':>8}   (worst case)")
    for name, made in files.items():
        pairs = [(found.get(hash_file(path)), found[hash_file(files["PNG"][stem])]) for stem, path in made.items()]
        known = [(mask, wanted) for mask, wanted in pairs if mask is not None]
        line = f"{name:<30}{f'{len(known)} of {len(pairs)}':>10}"
        if known:
            equal = min(float((mask == wanted).mean()) for mask, wanted in known)
            line += f"{equal:>14.3%}{min(dice(*pair) for pair in known):>8.4f}"
        print(line)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mixed_folder", description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--count", type=int, default=5)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compare(options.bundle, options.images, options.count, options.keep or Path(folder))


if __name__ == "__main__":
    main()
