"""Kinds of NIfTI, MetaImage and NRRD files: how to write one, and what reading it must give."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.io.outcomes import Row, observe

# (columns, rows), as NIfTI has its axes.
SIZE = (30, 40)
AFFINE = np.array([[0.5, 0, 0, 7], [0, 0.8, 0, -3], [0, 0, 3, 11], [0, 0, 0, 1]])
TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64")
# Axes after the plane -> channels; None: refused.
AXES = {(): 1, (1,): 1, (1, 1): 1, (1, 1, 1): 1, (1, 2): 2, (1, 3): 3, (1, 1, 3): 3, (3,): None, (2, 3): None}


@dataclass(frozen=True, kw_only=True)
class Kind:
    """expected: (C, H, W) as an image, None: refused, and `words` say why. noted: reading it gives a note."""

    title: str
    types: str
    path: Path
    expected: Any
    words: str = ""
    noted: bool = False


def kinds(folder: Path) -> list[Kind]:
    """One file of each kind."""
    import nibabel

    random = np.random.default_rng(0)
    gray, fractions = random.integers(0, 4, SIZE).astype(np.int16), random.random(SIZE).astype(np.float32)
    kinds: list[Kind] = []

    def add(
        title,
        values,
        expected,
        *,
        types="",
        affine=AFFINE,
        suffix=".nii.gz",
        image=nibabel.Nifti1Image,
        words="",
        noted=False,
        edit=None,
    ):
        path = folder / f"n{len(kinds)}{suffix}"
        content = image(values, affine, dtype=values.dtype)
        if edit:
            edit(content)
        nibabel.save(content, path)
        types_ = types or values.dtype.name
        kinds.append(Kind(title=title, types=types_, path=path, expected=expected, words=words, noted=noted))

    def planes(values):
        return np.moveaxis(values.reshape(*SIZE, -1), -1, 0).swapaxes(1, 2).astype(np.float32)

    for suffix in (".nii", ".nii.gz"):
        for dtype in TYPES:
            add("one slice", gray[..., None].astype(dtype), planes(gray), suffix=suffix)
    add(
        "big-endian",
        gray[..., None].astype(">i2"),
        planes(gray),
        image=lambda *args, **_: nibabel.Nifti1Image(*args, nibabel.Nifti1Header(endianness=">")),
    )
    for axes, channels in AXES.items():
        values = random.integers(0, 4, (*SIZE, *axes)).astype(np.int16)
        shown = " x ".join(("W", "H", *map(str, axes)))
        add(shown, values, None if channels is None else planes(values), words="is a volume", noted=channels not in (1, None))
    add("slope and intercept", gray[..., None], planes(gray) * 2 + 5, edit=lambda image: image.header.set_slope_inter(2, 5))
    add(
        "slope that is not a number",
        gray[..., None],
        planes(gray),
        edit=lambda image: image.header.set_slope_inter(np.nan, np.nan),
    )
    for dtype in ("float32", "float64"):
        for title, value in (("a value that is not a number", np.nan), ("an infinite value", np.inf)):
            values = fractions[..., None].astype(dtype)
            values[3, 4] = value
            add(title, values, None, words="1 values that are not finite")
    for dtype in ("complex64", "complex128"):
        add("complex numbers", (fractions[..., None] + 1j).astype(dtype), None, words="complex numbers")
    rgb = np.zeros((*SIZE, 1), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    rgb["R"], rgb["G"], rgb["B"] = (gray[..., None] + shift for shift in (0, 10, 20))
    colours = np.stack([gray.T + shift for shift in (0, 10, 20)]).astype(np.float32)
    add("RGB", rgb, colours, types="3 x uint8")
    rgba = np.zeros((*SIZE, 1), [("R", "u1"), ("G", "u1"), ("B", "u1"), ("A", "u1")])
    rgba["R"], rgba["G"], rgba["B"], rgba["A"] = rgb["R"], rgb["G"], rgb["B"], 255
    add("RGB with constant alpha", rgba.copy(), colours, types="4 x uint8", noted=True)
    rgba["A"] = gray[..., None]
    add("RGB with varying alpha", rgba, None, types="4 x uint8", words="transparency")
    sheared = AFFINE.copy()
    sheared[0, 1] = 0.3
    add("sheared", gray[..., None], None, affine=sheared, words="is sheared")
    add("NIfTI-2", gray[..., None], None, image=nibabel.Nifti2Image, words="is NIfTI-2")
    mirrored = np.diag([-1.0, 1, 1, 1]) @ AFFINE
    add(
        "qform and sform differ", gray[..., None], planes(gray), noted=True,
        edit=lambda image: (image.set_qform(AFFINE, 1), image.set_sform(mirrored, 1)),
    )  # fmt: skip
    add(
        "without qform and sform",
        gray[..., None],
        planes(gray),
        edit=lambda image: (image.set_qform(None, 0), image.set_sform(None, 0)),
    )
    nibabel.save(nibabel.Nifti1Pair(gray[..., None], AFFINE), folder / "pair.img")
    header = (folder / "pair.hdr").rename(folder / "pair.nii")
    kinds.append(Kind(title="header of .hdr and .img", types="int16", path=header, expected=None, words="header of two files"))
    add("next to a file of the same name that is not compressed", gray[..., None], planes(gray))
    nibabel.save(nibabel.Nifti1Image(3 - gray[..., None], AFFINE), kinds[-1].path.with_suffix(""))
    return [*kinds, *_other_formats(folder, gray, fractions)]


def _other_formats(folder: Path, gray: Any, fractions: Any) -> list[Kind]:
    import SimpleITK as sitk  # noqa: N813

    infinite = fractions.copy()
    infinite[2, 2] = np.inf
    kinds = []
    for suffix in (".mha", ".nrrd"):
        for title, values, expected, words in (
            ("one slice", gray[None], gray[None], ""),
            ("an infinite value", infinite, None, "1 values that are not finite"),
            ("W x H x 1 x 3", np.stack([gray[None]] * 3), np.stack([gray] * 3), ""),
        ):
            path = folder / f"{len(kinds)}{suffix}"
            sitk.WriteImage(sitk.GetImageFromArray(values, isVector=False), str(path))
            kinds.append(
                Kind(
                    title=f"{suffix[1:].upper()}, {title}", types=values.dtype.name, path=path, expected=expected, words=words,
                    noted=values.ndim == 4,
                )
            )  # fmt: skip
    sitk.WriteImage(sitk.GetImageFromArray((fractions + 1j).astype(np.complex64)), str(folder / "complex.nrrd"))
    kinds.append(
        Kind(title="NRRD, complex numbers", types="complex64", path=folder / "complex.nrrd", expected=None, words="complex")
    )
    return kinds


def rows(folder: Path) -> list[Row]:
    """The table of the page."""
    return [observe(kind.title, kind.types, kind.path, kind.path) for kind in kinds(folder)]
