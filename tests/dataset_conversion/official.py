"""Small trees with the names and file kinds of published datasets, filled with generated images, quirks included."""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from PIL import Image as Pillow

from tests.dataset_conversion.pictures import colours, save

SIZE = (48, 64)


@dataclass
class Tree:
    """truth: case -> the label map it must become (None: no reference). test: the cases of the test split."""

    labels: tuple[str, ...]
    truth: dict[str, np.ndarray | None] = field(default_factory=dict)
    test: set[str] = field(default_factory=set)
    groups: dict[str, str] = field(default_factory=dict)
    channels: int = 3
    spacing: tuple[float, float] | None = None


def blob(seed: int, value: int = 1, size: tuple[int, int] = SIZE) -> np.ndarray:
    """(H, W) uint8: an ellipse somewhere."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(size, np.uint8)
    centre = (int(rng.integers(20, size[1] - 20)), int(rng.integers(16, size[0] - 16)))
    cv2.ellipse(mask, centre, (int(rng.integers(8, 14)), int(rng.integers(6, 11))), 0, 0, 360, value, -1)
    return mask


def picture(seed: int) -> np.ndarray:
    return colours(seed, SIZE)


def gray_picture(seed: int) -> np.ndarray:
    """(H, W, 3) uint8 with equal channels."""
    return np.repeat(picture(seed)[..., :1], 3, axis=2)


def one_bit(path: Path, mask: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.fromarray(mask * np.uint8(255)).convert("1").save(path)
    return path


def packed_ppm(path: Path, array: np.ndarray) -> None:
    """A PPM, packed with gzip, as STARE has them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    three = array if array.ndim == 3 else np.repeat(array[..., None], 3, axis=2)
    path.write_bytes(gzip.compress(b"P6\n%d %d\n255\n" % three.shape[1::-1] + three.tobytes()))


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def volume(path: Path, array: np.ndarray, spacing: tuple[float, ...]) -> None:
    """A medical file of an array in numpy's order; spacing in the same."""
    import SimpleITK as sitk  # noqa: N813

    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing[::-1])
    sitk.WriteImage(image, str(path), useCompression=path.suffix == ".gz")


def isic2018(root: Path) -> Tree:
    tree = Tree(("background", "lesion"))
    for seed, part in enumerate(("Training", "Training", "Training", "Validation", "Test")):
        name = f"ISIC_{seed:07d}"
        save(root / f"ISIC2018_Task1-2_{part}_Input" / f"{name}.jpg", picture(seed), quality=95)
        save(root / f"ISIC2018_Task1_{part}_GroundTruth" / f"{name}_segmentation.png", blob(seed, 255))
        tree.truth[name] = blob(seed)
    write_text(root / "ISIC2018_Task1-2_Training_Input" / "ATTRIBUTION.txt", "thanks")
    tree.test = {"ISIC_0000004"}
    return tree


def neopolyp(root: Path) -> Tree:
    """Masks are JPEG, so their edges are noisy: the truth is what is left of a plain colour in the middle."""
    tree = Tree(("background", "neoplastic", "non_neoplastic"))
    for seed in range(4):
        name = f"{seed:02d}ff3cc06bcb2e2a6a0d5a1f0d6a"
        label = blob(seed, 1 if seed % 2 else 2)
        mask = np.zeros((*SIZE, 3), np.uint8)
        mask[label == 1], mask[label == 2] = (255, 0, 0), (0, 255, 0)
        save(root / "train" / "train" / f"{name}.jpeg", picture(seed), quality=95)
        save(root / "train_gt" / "train_gt" / f"{name}.jpeg", mask, quality=92, subsampling=0)
        tree.truth[name] = label
    save(root / "test" / "test" / "aa.jpeg", picture(9))
    tree.truth["aa"], tree.test = None, {"aa"}
    return tree


def camus(root: Path) -> Tree:
    tree = Tree(("background", "left_ventricle", "myocardium", "left_atrium"), channels=1, spacing=(0.154, 0.308))
    for number in range(1, 4):
        patient = f"patient{number:04d}"
        folder = root / "database_nifti" / patient
        for view in ("2CH", "4CH"):
            quality = "Good" if number < 3 else "Poor"
            write_text(folder / f"Info_{view}.cfg", f"ED: 1\nES: 20\nSex: F\nAge: 56\nImageQuality: {quality}\nEF: 55\n")
            for phase in ("ED", "ES"):
                seed = number * 10 + int(view[0]) + (phase == "ES")
                name = f"{patient}_{view}_{phase}"
                label = np.maximum(blob(seed, 2), blob(seed + 100, 3))
                label[blob(seed + 200) > 0] = 1
                volume(folder / f"{name}.nii.gz", picture(seed)[..., 0], tree.spacing)
                volume(folder / f"{name}_gt.nii.gz", label, tree.spacing)
                tree.truth[name], tree.groups[name] = label, patient
            volume(folder / f"{patient}_{view}_half_sequence.nii.gz", np.zeros((3, *SIZE), np.uint8), (1, 0.154, 0.308))
    for part, listed in (("training", "1"), ("validation", "2"), ("testing", "3")):
        write_text(root / "database_split" / f"subgroup_{part}.txt", f"patient000{listed}\n")
    tree.test = {name for name in tree.truth if name.startswith("patient0003")}
    return tree


def camus_mhd(root: Path) -> Tree:
    tree = Tree(("background", "left_ventricle", "myocardium", "left_atrium"), channels=1, spacing=(0.154, 0.308))
    for number, part in ((1, "training"), (451, "testing")):
        patient = f"patient{number:04d}"
        for phase in ("ED", "ES"):
            name = f"{patient}_2CH_{phase}"
            label = np.maximum(np.maximum(blob(number, 1), blob(number + 1, 2)), blob(number + 2, 3))
            folder = root / part / patient
            volume(folder / f"{name}.mhd", picture(number + (phase == "ES"))[None, ..., 0], (1.54, 0.154, 0.308))
            write_text(folder / "Info_2CH.cfg", "ImageQuality: Medium\n")
            tree.truth[name], tree.groups[name] = None, patient
            if part == "training":
                volume(folder / f"{name}_gt.mhd", label[None], (1.54, 0.154, 0.308))
                tree.truth[name] = label
            else:
                tree.test.add(name)
    return tree


def pairs(root: Path, image: str, mask: str, count: int = 3, **options: object) -> Tree:
    """`image` and `mask`: paths with {} for the number."""
    tree = Tree(("background", "polyp"))
    for seed in range(1, count + 1):
        save(root / image.format(seed), picture(seed), **options)
        save(root / mask.format(seed), blob(seed, 255), **options)
        tree.truth[str(seed)] = blob(seed)
    return tree


def cvc_colondb(root: Path) -> Tree:
    return pairs(root, "CVC-ColonDB/images/{}.png", "CVC-ColonDB/masks/{}.png")


def cvc_clinicdb(root: Path) -> Tree:
    tree = pairs(root, "CVC-ClinicDB/Original/{}.tif", "CVC-ClinicDB/Ground Truth/{}.tif")
    pairs(root, "CVC-ClinicDB/PNG/Original/{}.png", "CVC-ClinicDB/PNG/Ground Truth/{}.png")
    rows = "".join(f"{n},{1 + n // 3},PNG/Original/{n}.png,Original/{n}.tif\n" for n in (1, 2, 3))
    write_text(root / "CVC-ClinicDB" / "metadata.csv", f"frame_id,sequence_id,png_image_path,tif_image_path\n{rows}")
    tree.groups = {"1": "sequence1", "2": "sequence1", "3": "sequence2"}
    return tree


def etis(root: Path) -> Tree:
    return pairs(root, "ETIS-LaribPolypDB/{}.tif", "Ground Truth/p{}.tif")


def kvasir_seg(root: Path) -> Tree:
    tree = pairs(root, "Kvasir-SEG/images/ck{}.jpg", "Kvasir-SEG/masks/ck{}.jpg", quality=95)
    write_text(root / "Kvasir-SEG" / "kavsir_bboxes.json", "{}")
    tree.truth = {f"ck{name}": label for name, label in tree.truth.items()}
    return tree


def fives(root: Path) -> Tree:
    tree = Tree(("background", "vessel"))
    for seed, (part, name) in enumerate((("train", "1_A"), ("train", "2_N"), ("test", "1_A"))):
        save(root / part / "Original" / f"{name}.png", picture(seed))
        mask = blob(seed, 255)
        save(root / part / "Ground truth" / f"{name}.png", np.repeat(mask[..., None], 3, axis=2) if seed else mask)
        tree.truth[f"{part}_{name}"] = blob(seed)
    tree.test = {"test_1_A"}
    return tree


def drive(root: Path) -> Tree:
    tree = Tree(("background", "vessel"))
    for number, part, split in ((21, "training", "training"), (22, "training", "training"), (1, "test", "test")):
        stem = f"{number:02d}"
        save(root / part / "images" / f"{stem}_{split}.tif", picture(number))
        save(root / part / "1st_manual" / f"{stem}_manual1.gif", blob(number, 255))
        if part == "test":
            save(root / part / "2nd_manual" / f"{stem}_manual2.gif", blob(number + 50, 255))
        field_of_view = np.zeros(SIZE, np.uint8)
        cv2.circle(field_of_view, (32, 24), 22, 255, -1)
        save(root / part / "mask" / f"{stem}_{split}_mask.gif", field_of_view)
        tree.truth[f"{stem}_{split}"] = blob(number)
    tree.test = {"01_test"}
    return tree


def chase_db1(root: Path) -> Tree:
    tree = Tree(("background", "vessel"))
    for number in (1, 2):
        for side in "LR":
            name, seed = f"Image_{number:02d}{side}", number * 2 + (side == "R")
            save(root / f"{name}.jpg", picture(seed), quality=95)
            one_bit(root / f"{name}_1stHO.png", blob(seed))
            one_bit(root / f"{name}_2ndHO.png", blob(seed + 9))
            tree.truth[name], tree.groups[name] = blob(seed), f"child{number:02d}"
    return tree


def stare(root: Path) -> Tree:
    tree = Tree(("background", "vessel"))
    for number in (1, 2, 319):
        name = f"im{number:04d}"
        packed_ppm(root / "stare-images" / f"{name}.ppm.gz", picture(number))
        packed_ppm(root / "labels-ah" / f"{name}.ah.ppm.gz", blob(number, 255))
        packed_ppm(root / "labels-vk" / f"{name}.vk.ppm.gz", blob(number + 7, 255))
        tree.truth[name] = blob(number)
    return tree


def hrf(root: Path) -> Tree:
    tree = Tree(("background", "vessel"))
    for seed, kind in enumerate(("h", "dr", "g")):
        name = f"01_{kind}"
        save(root / "images" / f"{name}.{'JPG' if kind == 'dr' else 'jpg'}", picture(seed), quality=95)
        save(root / "manual1" / f"{name}.tif", blob(seed, 255))
        save(root / "mask" / f"{name}_mask.tif", np.full((*SIZE, 3), 255, np.uint8))
        tree.truth[name] = blob(seed)
    return tree


def busi(root: Path) -> Tree:
    tree = Tree(("background", "lesion"), channels=1)
    for seed, (kind, number) in enumerate((("benign", 1), ("benign", 100), ("malignant", 1), ("normal", 1))):
        folder, name = root / "Dataset_BUSI_with_GT" / kind, f"{kind} ({number})"
        save(folder / f"{name}.png", gray_picture(seed))
        label = blob(seed) * np.uint8(kind != "normal")
        save(folder / f"{name}_mask.png", label.astype(bool))
        if number == 100:
            save(folder / f"{name}_mask_1.png", blob(seed + 50).astype(bool))
            label = label | blob(seed + 50)
        tree.truth[f"{kind}_{number}"] = label
    return tree


def bus_ucm(root: Path) -> Tree:
    tree = Tree(("background", "benign", "malignant"), channels=1)
    for seed, (name, value) in enumerate((("ANFO_005", 1), ("ANFO_006", 0), ("BEGL_001", 2), ("PSAI_010", 1))):
        label = blob(seed, value)
        mask = np.zeros((*SIZE, 3), np.uint8)
        mask[label == 1], mask[label == 2] = (0, 255, 0), (255, 0, 0)
        for folder in (root, root / "partitions" / "train"):
            save(folder / "images" / f"{name}.png", gray_picture(seed))
            save(folder / "masks" / f"{name}.png", mask)
        tree.truth[name], tree.groups[name] = label, name[:4]
    write_text(root / "INFO.csv", "Image;Doppler;Marks;Label\n")
    return tree


def ph2(root: Path) -> Tree:
    tree = Tree(("background", "lesion"))
    for number in (2, 3, 437):
        name = f"IMD{number:03d}"
        folder = root / "PH2Dataset" / "PH2 Dataset images" / name
        save(folder / f"{name}_Dermoscopic_Image" / f"{name}.bmp", picture(number))
        one_bit(folder / f"{name}_lesion" / f"{name}_lesion.bmp", blob(number))
        save(folder / f"{name}_roi" / f"{name}_R1_Label1.bmp", blob(number, 255))
        tree.truth[name] = blob(number)
    return tree


def montgomery(root: Path) -> Tree:
    tree = Tree(("background", "right_lung", "left_lung"), channels=1)
    for number, finding in ((1, 0), (17, 0), (99, 1)):
        name = f"MCUCXR_{number:04d}_{finding}"
        label = np.zeros(SIZE, np.uint8)
        label[10:40, 6:26], label[10:40, 36:58] = 1, 2
        save(root / "MontgomerySet" / "CXR_png" / f"{name}.png", picture(number)[..., 0])
        for side, value in (("rightMask", 1), ("leftMask", 2)):
            one_bit(root / "MontgomerySet" / "ManualMask" / side / f"{name}.png", (label == value).astype(np.uint8))
        write_text(root / "MontgomerySet" / "ClinicalReadings" / f"{name}.txt", "Patient's Sex: F")
        tree.truth[name] = label
    return tree


def acdc(root: Path) -> Tree:
    tree = Tree(("background", "right_ventricle", "myocardium", "left_ventricle"), channels=1, spacing=(1.5, 1.25))
    for patient, part, frames in (("patient001", "training", (1, 12)), ("patient101", "testing", (1, 14))):
        folder = root / "ACDC" / "database" / part / patient
        write_text(folder / "Info.cfg", "ED: 1\nES: 12\nGroup: DCM\nHeight: 184.0\n")
        volume(folder / f"{patient}_4d.nii.gz", np.zeros((2, *SIZE), np.int16), (10.0, 1.5, 1.25))
        for frame in frames:
            seeds = [frame * 10 + place + (500 if part == "testing" else 0) for place in range(3)]
            images = np.stack([picture(seed)[..., 0].astype(np.int16) * 3 for seed in seeds])
            labels = np.stack([blob(seed, 1 + place) for place, seed in enumerate(seeds)])
            name = f"{patient}_frame{frame:02d}"
            volume(folder / f"{name}.nii.gz", images, (10.0, 1.5, 1.25))
            volume(folder / f"{name}_gt.nii.gz", labels, (10.0, 1.5, 1.25))
            for place in range(3):
                case = f"{name}_slice{place:03d}"
                tree.truth[case], tree.groups[case] = labels[place], patient
                if part == "testing":
                    tree.test.add(case)
    return tree


def nuclei_dsb2018(root: Path) -> Tree:
    tree = Tree(("background", "nucleus"))
    rows = ["ImageId,EncodedPixels,Height,Width,Usage"]
    for seed, part in enumerate(("train", "train", "train", "test", "test")):
        name = f"{seed:x}0ba" * 16
        rgba = np.dstack([gray_picture(seed), np.full(SIZE, 255, np.uint8)])
        save(root / f"stage1_{part}" / name / "images" / f"{name}.png", rgba)
        tree.truth[name] = None
        if part == "train":
            for place in range(2):
                save(root / "stage1_train" / name / "masks" / f"{place}{'f' * 63}.png", blob(seed + 40 * place, 255))
            tree.truth[name] = blob(seed) | blob(seed + 40)
        else:
            tree.test.add(name)
            if seed == 3:
                rows.append(f"{name},{column_runs(blob(seed))},{SIZE[0]},{SIZE[1]},Public")
                tree.truth[name] = blob(seed)
    write_text(root / "stage1_solution.csv", "\n".join(rows))
    return tree


def column_runs(mask: np.ndarray) -> str:
    """Kaggle's run lengths: down the columns, counted from 1."""
    flat = np.concatenate([[0], mask.T.ravel() > 0, [0]]).astype(np.int8)
    starts, ends = np.flatnonzero(np.diff(flat) == 1), np.flatnonzero(np.diff(flat) == -1)
    return " ".join(f"{start + 1} {end - start}" for start, end in zip(starts, ends, strict=True))


def glas(root: Path) -> Tree:
    tree = Tree(("background", "gland"))
    folder = root / "Warwick QU Dataset (Released 2016_07_08)"
    rows = ["name, patient ID, grade (GlaS), grade (Sirinukunwattana et al. 2015)"]
    for seed, name in enumerate(("train_1", "train_2", "train_3", "testA_1", "testB_1")):
        glands = np.maximum(blob(seed, 1), blob(seed + 30, 2))
        save(folder / f"{name}.bmp", picture(seed))
        save(folder / f"{name}_anno.bmp", glands)
        rows.append(f"{name}, {seed // 2}, benign, adenomatous")
        tree.truth[name], tree.groups[name] = (glands > 0).astype(np.uint8), f"patient{seed // 2}"
    write_text(folder / "Grade.csv", "\n".join(rows))
    tree.test = {"testA_1", "testB_1"}
    return tree


def monuseg(root: Path) -> Tree:
    tree = Tree(("background", "nucleus"))
    training = root / "MoNuSeg 2018 Training Data"
    for seed, name in enumerate(("TCGA-A7-A13E-01Z-00-DX1", "TCGA-A7-A13F-01Z-00-DX1", "TCGA-2Z-A9J9-01A-01-TS1")):
        label = np.zeros(SIZE, np.uint8)
        regions = []
        for left, top in ((4 + seed, 5), (30, 20 + seed)):
            label[top : top + 8, left : left + 10] = 1
            corners = ((left, top), (left + 10, top), (left + 10, top + 8), (left, top + 8))
            vertices = "".join(f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in corners)
            regions.append(f"<Region Id='1'><Vertices>{vertices}</Vertices></Region>")
        text = f"<Annotations><Annotation><Regions>{''.join(regions)}</Regions></Annotation></Annotations>"
        test = seed == 2
        save((root / "MoNuSegTestData" if test else training / "Tissue Images") / f"{name}.tif", picture(seed))
        write_text((root / "MoNuSegTestData" if test else training / "Annotations") / f"{name}.xml", text)
        tree.truth[name], tree.groups[name] = label, name[:12]
    tree.test = {"TCGA-2Z-A9J9-01A-01-TS1"}
    return tree


BUILDERS = {
    function.__name__: function
    for function in (
        isic2018, neopolyp, camus, cvc_colondb, cvc_clinicdb, etis, kvasir_seg, fives, drive, chase_db1, stare, hrf, busi,
        bus_ucm, ph2, montgomery, acdc, nuclei_dsb2018, glas, monuseg,
    )
}  # fmt: skip
