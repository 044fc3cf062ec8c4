"""MNI ICBM152: axial slices of one averaged brain, with gray and white matter. For a demonstration, not for claims.

Fonov et al.: Unbiased nonlinear average age-appropriate brain templates from birth to adulthood. NeuroImage 47, 2009.
The T1 average and its tissue probability maps (1 mm) are in the package nilearn (BSD licence), which `pip install
"autoseg[demo]"` installs; nothing is downloaded. It is the average of 152 brains: a result on it says nothing about
patients. Neighbouring slices look alike, so slabs of slices, with gaps between them, are the groups.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from autoseg.io import Image, write_label
from autoseg.schema.dataset import DatasetSpec
from autoseg.support.errors import AutosegError
from autoseg.support.workspace import Dataset, Workspace
from dataset_conversion.writer import NewCase, write_dataset

_FILES = {
    "t1": "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz",
    "gray": "mni_icbm152_gm_tal_nlin_sym_09a_converted.nii.gz",
    "white": "mni_icbm152_wm_tal_nlin_sym_09a_converted.nii.gz",
}
# Axial slices (of 189) that show brain: slabs of every second slice, with gaps, since neighbouring slices are nearly equal.
_FIRST, _SLABS, _IN_SLAB, _STEP, _GAP = 22, 6, 7, 2, 8
_TEST_SLAB = 3
_CUT, _STRICTER_CUT = 0.5, 0.65

Volume = NDArray[Any]
Part = Literal["Tr", "Ts"]


def convert_mni152(number: int, workspace: Workspace, overwrite: bool = False) -> Dataset:
    """raw/DatasetXXX_MNI152: 1 mm axial slices as NIfTI, labels gray matter and white matter.

    Raises AutosegError where nilearn is not installed.
    """
    dataset = workspace.new_dataset(number, "MNI152")
    spec = DatasetSpec(
        channel_names={"0": "T1"},
        labels={"background": 0, "gray_matter": 1, "white_matter": 2},
        numTraining=0,
        file_ending=".nii.gz",
        name="MNI152",
        modality="MR",
        licence="free for any use, see the ICBM 2009 atlases; packaged by nilearn",
        reference="Fonov et al., NeuroImage 47 (2009) S102",
        description="Axial slices of one averaged brain: a demonstration, no claim about patients.",
    )
    cases = (
        NewCase(name=_name(level), images=[image], label=label, group=f"slab{slab:02d}", part=part)
        for level, slab, part, image, label in _slices(_folder(), _CUT)
    )
    write_dataset(dataset, spec, cases, overwrite)
    return dataset


def write_stricter_masks(folder: Path) -> None:
    """Masks of the same training slices with less tissue, in place of a second annotator's: no person drew either.

    Raises AutosegError where nilearn is not installed.
    """
    for level, _, part, image, label in _slices(_folder(), _STRICTER_CUT):
        if part == "Tr":
            write_label(folder / f"{_name(level)}.nii.gz", label, image)


def _name(level: int) -> str:
    return f"axial_{level:03d}"


def _slices(folder: Path, cut: float) -> Iterator[tuple[int, int, Part, Image, Volume]]:
    """(number of the slice, slab, part, image, labels (H, W)). cut: of the highest tissue probability; no tissue below."""
    head, gray, white = (_volume(folder / name) for name in _FILES.values())
    tissue = np.where(gray >= white, 1, 2) * (np.maximum(gray, white) >= cut * max(gray.max(), white.max()))
    for slab, place in product(range(_SLABS), range(_IN_SLAB)):
        level = _FIRST + slab * (_IN_SLAB * _STEP + _GAP) + place * _STEP
        # Anterior up, as radiologists view it: the file counts rows from the back of the head.
        image = np.ascontiguousarray(head[level, ::-1].astype(np.float32))[None]
        label = np.ascontiguousarray(tissue[level, ::-1].astype(np.uint8))
        yield level, slab, "Ts" if slab == _TEST_SLAB else "Tr", Image(array=image, spacing=(1.0, 1.0)), label


def _volume(path: Path) -> Volume:
    """(slice, row, column)."""
    import SimpleITK

    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))


def _folder() -> Path:
    spec = importlib.util.find_spec("nilearn")
    folder = Path(spec.origin).parent / "datasets" / "data" if spec and spec.origin else None
    if folder is None or not all((folder / name).is_file() for name in _FILES.values()):
        raise AutosegError("the demonstration needs the package nilearn, which is not installed", 'pip install "autoseg[demo]"')
    return folder
