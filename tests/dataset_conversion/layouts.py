"""Small sets in common layouts, with what their masks must become."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image as Pillow

from tests.dataset_conversion.official import SIZE, Tree, blob, column_runs, picture, save, volume, write_text


def square(left: int, top: int, side: int = 10, value: int = 1) -> np.ndarray:
    mask = np.zeros(SIZE, np.uint8)
    mask[top : top + side, left : left + side] = value
    return mask


def corners(left: int, top: int, side: int = 10) -> list[list[int]]:
    return [[left, top], [left + side, top], [left + side, top + side], [left, top + side]]


def flat_corners(left: int, top: int, side: int) -> list[int]:
    return [place for corner in corners(left, top, side) for place in corner]


def coco(root: Path) -> Tree:
    """Polygons, plain and packed run lengths; a small object inside a large one of another class; an image without any."""
    from pycocotools import mask as packed

    tree = Tree(("background", "polyp", "tool"), test={"c"})
    runs = packed.encode(np.asfortranarray(square(40, 20, value=1)))
    flat = np.concatenate([[0], square(40, 20).T.ravel(), [0]])
    ends = np.flatnonzero(np.diff(flat.astype(np.int8)))
    counts = np.diff(np.concatenate([[0], ends, [SIZE[0] * SIZE[1]]])).tolist()
    parts = {
        "train": {
            "a": [(7, [flat_corners(4, 4, 20)]), (9, [flat_corners(8, 8, 6)])],
            "b": [(9, {"size": list(SIZE), "counts": runs["counts"].decode()})],
            "empty": [],
        },
        "test": {"c": [(7, {"size": list(SIZE), "counts": counts})]},
    }
    for part, images in parts.items():
        table: dict = {"images": [], "annotations": [], "categories": [{"id": 9, "name": "tool"}, {"id": 7, "name": "polyp"}]}
        for number, (name, objects) in enumerate(images.items()):
            save(root / part / f"{name}.jpg", picture(number + (9 if part == "test" else 0)))
            table["images"].append({"id": number, "file_name": f"{name}.jpg", "height": SIZE[0], "width": SIZE[1]})
            table["annotations"] += [
                {"id": 1, "image_id": number, "category_id": category, "segmentation": drawn, "iscrowd": 0}
                for category, drawn in objects
            ]
        write_text(root / part / "_annotations.coco.json", json.dumps(table))
    tree.truth = {
        "a": np.maximum(square(4, 4, 20), square(8, 8, 6, 2)),
        "b": square(40, 20, value=2),
        "empty": np.zeros(SIZE, np.uint8),
        "c": square(40, 20),
    }
    return tree


def labelme(root: Path) -> Tree:
    """A polygon, a rectangle, a circle, a mask; one image inside its file; a point, which has no area."""
    tree = Tree(("background", "cell", "lesion"))
    stream = io.BytesIO()
    Pillow.fromarray(picture(1)).save(stream, "PNG")
    drawn = io.BytesIO()
    Pillow.fromarray(np.full((5, 6), 255, np.uint8)).save(drawn, "PNG")
    inside, mask = (base64.b64encode(data.getvalue()).decode() for data in (stream, drawn))
    shapes = {
        "a": [
            {"label": "lesion", "points": corners(4, 4), "shape_type": "polygon"},
            {"label": "cell", "points": [[40, 30], [30, 20]], "shape_type": "rectangle"},
            {"label": "cell", "points": [[1, 1]], "shape_type": "point"},
        ],
        "b": [{"label": "lesion", "points": [[20, 30], [25, 34]], "shape_type": "mask", "mask": mask}],
        "c": [{"label": "cell", "points": [[32, 24], [32, 34]], "shape_type": "circle"}],
    }
    for seed, (name, drawings) in enumerate(shapes.items()):
        if name != "b":
            save(root / f"{name}.jpg", picture(seed))
        content = {
            "version": "5.4.1", "flags": {}, "shapes": drawings, "imagePath": f"..\\pictures\\{name}.jpg",
            "imageData": inside if name == "b" else None, "imageHeight": SIZE[0], "imageWidth": SIZE[1],
        }  # fmt: skip
        write_text(root / f"{name}.json", json.dumps(content))
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    patch = np.zeros(SIZE, np.uint8)
    patch[30:35, 20:26] = 2
    tree.truth = {
        "a": np.maximum(square(4, 4, value=2), square(30, 20)),
        "b": patch,
        "c": ((rows - 24) ** 2 + (columns - 32) ** 2 < 100).astype(np.uint8),
    }
    return tree


def voc(root: Path) -> Tree:
    """Coloured masks with a label map, void pixels, a test list and an image in no list."""
    tree = Tree(("background", "organ", "tumour", "ignore"), test={"c"})
    lines = ("# label:color_rgb:parts:actions", "background:0,0,0::", "organ:128,0,0::", "tumour:0,128,0::")
    write_text(root / "labelmap.txt", "\n".join(lines))
    for seed, name in enumerate(("a", "b", "c", "spare")):
        save(root / "JPEGImages" / f"{name}.jpg", picture(seed))
        label = np.maximum(square(5, 5), square(30, 20, value=2))
        colours = np.array([(0, 0, 0), (128, 0, 0), (0, 128, 0), (224, 224, 192)], np.uint8)
        if name == "b":
            label[0] = 3
        if name != "spare":
            save(root / "SegmentationClass" / f"{name}.png", colours[label])
            tree.truth[name] = label
    lists = root / "ImageSets" / "Segmentation"
    write_text(lists / "train.txt", "a\n")
    write_text(lists / "val.txt", "b\n")
    write_text(lists / "test.txt", "c\n")
    return tree


def voc_palette(root: Path) -> Tree:
    """Masks by index, named by --labels; no lists."""
    tree = Tree(("background", "organ", "tumour", "ignore"))
    for seed, name in enumerate(("a", "b")):
        save(root / "JPEGImages" / f"{name}.jpg", picture(seed))
        label = np.maximum(square(5, 5), square(30, 20, value=2))
        label[0] = 255
        mask = Pillow.fromarray(label, mode="P")
        mask.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, *[9] * 759])
        (root / "SegmentationClass").mkdir(parents=True, exist_ok=True)
        mask.save(root / "SegmentationClass" / f"{name}.png")
        tree.truth[name] = np.where(label == 255, 3, label)
    return tree


def yolo(root: Path) -> Tree:
    """Two folders with files of one name, an image without outlines."""
    tree = Tree(("background", "cell", "nucleus"), test={"images_test_a"})
    write_text(root / "data.yaml", "names:\n  0: cell\n  1: nucleus\ntrain: images/train\n")
    for seed, (part, name) in enumerate((("train", "a"), ("train", "b"), ("train", "none"), ("test", "a"))):
        save(root / "images" / part / f"{name}.png", picture(seed))
        outlines = [(0, 4, 4, 20), (1, 8 + seed, 8, 6)]
        lines = [
            f"{kind} " + " ".join(f"{x / SIZE[1]} {y / SIZE[0]}" for x, y in corners(left, top, side))
            for kind, left, top, side in outlines
        ]
        case = f"images_{part}_a" if name == "a" else name
        tree.truth[case] = np.zeros(SIZE, np.uint8)
        if name != "none":
            write_text(root / "labels" / part / f"{name}.txt", "\n".join(lines))
            tree.truth[case] = np.maximum(square(4, 4, 20), square(8 + seed, 8, 6, 2))
    return tree


def mask_per_class(root: Path) -> Tree:
    tree = Tree(("background", "disc", "cup"))
    for seed, name in enumerate(("a", "b")):
        save(root / "images" / f"{name}.jpg", picture(seed))
        save(root / "masks" / "disc" / f"{name}.png", square(4, 4, 20, 255))
        if name == "a":
            save(root / "masks" / "cup" / f"{name}_cup.png", square(8, 8, 6, 255))
        tree.truth[name] = np.maximum(square(4, 4, 20), square(8, 8, 6, 2) * np.uint8(name == "a"))
    return tree


def rle_csv(root: Path) -> Tree:
    tree = Tree(("background", "polyp", "tool"))
    rows = ["ImageId_ClassId,EncodedPixels"]
    for seed, name in enumerate(("a.jpg", "b.jpg", "c.jpg", "spare.jpg")):
        save(root / "images" / name, picture(seed))
        if name == "spare.jpg":
            continue
        label = np.maximum(square(4, 4), blob(seed, 2) * np.uint8(name != "b.jpg"))
        rows += [f"{name}_1,{column_runs(label == 1)}", f"{name}_2,{'' if name == 'b.jpg' else column_runs(label == 2)}"]
        tree.truth[name[:-4]] = label
    write_text(root / "train.csv", "\n".join(rows))
    return tree


def nnunet_volumes(root: Path) -> Tree:
    """Two channels, wide spacing across y, a region, a test volume without labels."""
    folder = root / "Dataset007_Heart"
    description = {
        "channel_names": {"0": "T1", "1": "T2"},
        "labels": {"background": 0, "whole": [1, 2], "core": [2]},
        "regions_class_order": [1, 2],
        "numTraining": 2,
        "file_ending": ".nii.gz",
        "licence": "CC0",
    }
    write_text(folder / "dataset.json", json.dumps(description))
    tree = Tree(("background", "whole", "core"), channels=2, spacing=(1.0, 1.5))
    for number, (part, name) in enumerate((("Tr", "p1"), ("Tr", "p2"), ("Ts", "p3"))):
        # (z, y, x): slices lie 6 mm apart along y.
        planes = np.stack([picture(number * 10 + place)[..., 0] for place in range(3)]).astype(np.int16) - 100
        label = np.stack([square(4 + place, 4, 20) + square(8, 8, 6) for place in range(3)])
        for channel in range(2):
            path = folder / f"images{part}" / f"{name}_{channel:04d}.nii.gz"
            volume(path, (planes + channel).transpose(1, 0, 2).copy(), (1.0, 6.0, 1.5))
        if part == "Tr":
            volume(folder / "labelsTr" / f"{name}.nii.gz", label.transpose(1, 0, 2).copy(), (1.0, 6.0, 1.5))
        for place in range(3):
            case = f"{name}_slice{place:03d}"
            tree.truth[case] = label[place] if part == "Tr" else None
            tree.groups[case] = name
            if part == "Ts":
                tree.test.add(case)
    return tree


def nnunet(root: Path) -> Tree:
    tree = Tree(("background", "polyp"), test={"c"}, groups={"a": "p1", "b": "p1"})
    description = {
        "channel_names": {"0": "R", "1": "G", "2": "B"}, "labels": {"background": 0, "polyp": 1}, "numTraining": 2,
        "file_ending": ".png", "groups": tree.groups,
    }  # fmt: skip
    write_text(root / "dataset.json", json.dumps(description))
    for seed, name in enumerate("abc"):
        part = "Ts" if name == "c" else "Tr"
        save(root / f"images{part}" / f"{name}_0000.png", picture(seed))
        save(root / f"labels{part}" / f"{name}.png", blob(seed))
        tree.truth[name] = blob(seed)
    return tree


def dicom_seg(root: Path) -> Tree:
    """Two patients, an image with two segments in two objects, and one without any."""
    import highdicom as hd
    from highdicom.sr.coding import CodedConcept
    from pydicom import dcmread
    from pydicom.data import get_testdata_file

    tree = Tree(("background", "liver", "tumour"), channels=1)
    code = CodedConcept("10200004", "SCT", "Liver")

    def segment(number: int, label: str) -> object:
        return hd.seg.SegmentDescription(
            segment_number=number, segment_label=label, segmented_property_category=code, segmented_property_type=code,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
        )  # fmt: skip

    root.mkdir(parents=True, exist_ok=True)
    template = dcmread(get_testdata_file("CT_small.dcm"))
    shape = (template.Rows, template.Columns)
    drawn = np.zeros((2, *shape), np.uint8)
    drawn[0, 10:60, 20:70] = drawn[1, 30:50, 30:50] = 1
    for number, patient in enumerate(("SECRET^ONE", "SECRET^TWO", "SECRET^TWO")):
        template.PatientID = template.PatientName = patient
        template.SOPInstanceUID = template.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.4.{number}"
        template.PixelData = (template.pixel_array + np.int16(number * 40)).tobytes() if number else template.PixelData
        template.save_as(root / f"IM{number}.dcm")
        for value, name in ((1, "liver"), (2, "tumour")):
            if number < 2 and not (number == 1 and value == 2):
                segmentation = hd.seg.Segmentation(
                    [template], drawn[value - 1], hd.seg.SegmentationTypeValues.BINARY, [segment(1, name)],
                    f"1.2.3.5.{number}.{value}", 1, f"1.2.3.6.{number}.{value}", 1, "us", "autoseg", "1", "1",
                )  # fmt: skip
                segmentation.save_as(root / f"SEG{number}{value}.dcm")
    both = np.where(drawn[1] > 0, 2, drawn[0]).astype(np.uint8)
    tree.truth = {"patient0001_0001": both, "patient0002_0001": drawn[0]}
    tree.groups = {name: name[:11] for name in tree.truth}
    return tree
