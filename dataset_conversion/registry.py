"""Every dataset and layout that `autoseg_convert` knows. Imports nothing heavy, so that the list is there at once.

Figures are of the datasets as published. Licences as far as the publishers' pages say: they decide, not this table.
"""

from __future__ import annotations

import ast
import difflib
from dataclasses import dataclass
from pathlib import Path

from autoseg.support.errors import AutosegError


@dataclass(frozen=True)
class Option:
    """An option of one converter. kind: "flag", "text" or "int"; choices: where only some texts make sense."""

    name: str
    help: str
    kind: str = "flag"
    choices: tuple[str, ...] = ()
    default: str | int | bool | None = None

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")


@dataclass(frozen=True)
class Converter:
    """A row of the list. name: on the command line, and the module's. title: what the dataset is called by default.

    modality: what the planner is told. general: a layout, not a dataset, so the rest is up to the user.
    """

    name: str
    title: str
    modality: str
    classes: str
    size: str
    licence: str
    paper: str
    options: tuple[Option, ...] = ()
    general: bool = False

    @property
    def module(self) -> str:
        return f"dataset_conversion.{'layouts' if self.general else 'published'}.{self.name}"

    def about(self) -> str:
        """The top of its script: citation, licence, where it is to be had, layout. The script is read, not imported."""
        path = Path(__file__).parent / ("layouts" if self.general else "published") / f"{self.name}.py"
        return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


_FIELD = Option("field_of_view", "give pixels outside the field of view the ignore label, so that they are not scored")
_OBSERVER = Option("observer", "whose tracing to take (default: 1)", "int", ("1", "2"), 1)
_RESEARCH = "research use, see the page"

PUBLISHED = (
    Converter(
        "isic2018", "ISIC2018", "dermoscopy", "lesion", "2,594 + 100 + 1,000 test", "CC BY-NC 4.0",
        "Codella et al., arXiv 1902.03368 (2019)",
    ),
    Converter(
        "neopolyp", "NeoPolypSmall", "colonoscopy", "neoplastic, non_neoplastic", "1,000 (+ 200 without masks)", _RESEARCH,
        "Lan et al., ISVC 2021 (NeoUNet)",
    ),
    Converter(
        "camus", "CAMUS", "echocardiography ultrasound", "left_ventricle, myocardium, left_atrium", "2,000 of 500 patients",
        "CC BY-NC-SA 4.0", "Leclerc et al., IEEE TMI 2019",
        (Option("quality", "only images of these qualities, such as Good,Medium", "text"),),
    ),
    Converter("cvc_colondb", "CVCColonDB", "colonoscopy", "polyp", "380", _RESEARCH, "Tajbakhsh et al., IEEE TMI 2016"),
    Converter(
        "cvc_clinicdb", "CVCClinicDB", "colonoscopy", "polyp", "612 of 29 sequences", _RESEARCH,
        "Bernal et al., Comput. Med. Imaging Graph. 2015",
    ),
    Converter("etis", "ETISLarib", "colonoscopy", "polyp", "196", _RESEARCH, "Silva et al., IJCARS 2014"),
    Converter("kvasir_seg", "KvasirSEG", "colonoscopy", "polyp", "1,000", "research and education", "Jha et al., MMM 2020"),
    Converter("fives", "FIVES", "fundus", "vessel", "600 + 200 test", "CC BY 4.0", "Jin et al., Scientific Data 2022"),
    Converter(
        "drive", "DRIVE", "fundus", "vessel", "20 + 20 test", _RESEARCH, "Staal et al., IEEE TMI 2004", (_OBSERVER, _FIELD)
    ),
    Converter(
        "chase_db1", "CHASEDB1", "fundus", "vessel", "28 of 14 children", _RESEARCH, "Fraz et al., IEEE TBME 2012", (_OBSERVER,)
    ),
    Converter("stare", "STARE", "fundus", "vessel", "20", _RESEARCH, "Hoover et al., IEEE TMI 2000", (_OBSERVER,)),
    Converter("hrf", "HRF", "fundus", "vessel", "45", "CC BY 4.0", "Budai et al., Int. J. Biomed. Imaging 2013", (_FIELD,)),
    Converter(
        "busi", "BUSI", "ultrasound", "lesion", "780 (133 normal)", "see the page", "Al-Dhabyani et al., Data in Brief 2020",
        (Option("without_normal", "leave out the images of healthy tissue, whose masks are empty"),),
    ),
    Converter(
        "bus_ucm", "BUSUCLM", "ultrasound", "benign, malignant (or lesion)", "683 of 38 patients (419 normal)", "see the page",
        "Vallez et al., Scientific Data 2025",
        (
            Option("lesion", "one class for both kinds"),
            Option("without_normal", "leave out the images whose masks are empty"),
        ),
    ),
    Converter("ph2", "PH2", "dermoscopy", "lesion", "200", "research and education", "Mendonca et al., EMBC 2013"),
    Converter(
        "montgomery", "MontgomeryCXR", "xray", "right_lung, left_lung", "138", "free with citation, see the page",
        "Jaeger et al., Quant. Imaging Med. Surg. 2014", (Option("lung", "one class for both lungs"),),
    ),
    Converter(
        "acdc", "ACDC", "MR", "right_ventricle, myocardium, left_ventricle", "200 + 100 test volumes of 150 patients",
        "CC BY-NC-SA 4.0", "Bernard et al., IEEE TMI 2018",
    ),
    Converter(
        "nuclei_dsb2018", "NucleiDSB2018", "microscopy", "nucleus", "670 + 65 test", "CC0",
        "Caicedo et al., Nature Methods 2019",
    ),
    Converter(
        "glas", "GlaS", "histology", "gland", "85 + 80 test", _RESEARCH, "Sirinukunwattana et al., Med. Image Anal. 2017"
    ),
    Converter(
        "monuseg", "MoNuSeg", "histology", "nucleus", "30 + 14 test", "CC BY-NC-SA 4.0", "Kumar et al., IEEE TMI 2020",
        (Option("boundary", "a class for the rims of nuclei, which keeps touching ones apart"),),
    ),
)  # fmt: skip

_LABELS = Option("labels", "class names by value, background first, with commas", "text")
_IMAGES = Option("images", "folder of the images inside", "text", default="images")
_GROUPS = Option("groups", r"regular expression that finds the patient in a name, e.g. '(patient\d+)'", "text")
_MODALITY = Option("modality", "such as ultrasound, where the images do not tell", "text")
_YOUR_OWN = (_GROUPS, _MODALITY)

LAYOUTS = (
    Converter(
        "nnunet", "", "", "as it says", "", "", "nnU-Net v2's raw datasets; slices of volumes",
        (Option("axis", "slices of volumes across this axis (default: that of the widest spacing)", "text", ("x", "y", "z")),
         Option("labelled", "of volumes, only the slices that hold a label"), _GROUPS, _MODALITY), True,
    ),
    Converter(
        "coco", "", "", "categories", "", "", "COCO JSON: polygons and run lengths",
        (Option("annotations", "which JSON file inside (default: the only one)", "text"), *_YOUR_OWN), True,
    ),
    Converter("labelme", "", "", "labels of the shapes", "", "", "LabelMe JSON, one an image", (_LABELS, *_YOUR_OWN), True),
    Converter(
        "voc", "", "", "labelmap.txt or --labels", "", "", "Pascal VOC: JPEGImages, SegmentationClass, ImageSets",
        (_LABELS, *_YOUR_OWN), True,
    ),
    Converter("yolo", "", "", "data.yaml", "", "", "YOLO segmentation: images, labels/*.txt", (_LABELS, *_YOUR_OWN), True),
    Converter(
        "mask_per_class", "", "", "folders", "", "", "a folder of images and a folder of masks for each class",
        (_IMAGES, _LABELS, *_YOUR_OWN), True,
    ),
    Converter(
        "rle_csv", "", "", "a column, or one", "", "", "Kaggle's tables of run lengths",
        (_IMAGES,
         Option("table", "which CSV file inside (default: the only one)", "text"),
         Option("id_column", "column of the image's name (default: guessed)", "text"),
         Option("rle_column", "column of the run lengths (default: guessed)", "text"),
         Option("class_column", "column of the class (default: guessed, or none)", "text"),
         Option("by_rows", "runs go along rows instead of down columns"), _LABELS, *_YOUR_OWN), True,
    ),
    Converter(
        "dicom_seg", "", "", "segments", "", "", "DICOM segmentation objects with their images", (_MODALITY,), True
    ),
)  # fmt: skip

CONVERTERS = {converter.name: converter for converter in (*PUBLISHED, *LAYOUTS)}


def converter(name: str) -> Converter:
    """By name. Raises AutosegError with the nearest ones."""
    found = CONVERTERS.get(name.casefold().replace("-", "_"))
    if found is None:
        near = difflib.get_close_matches(name, CONVERTERS, n=3)
        raise AutosegError(
            f"no converter is called {name!r}", f"did you mean {' or '.join(near)}?" if near else "autoseg_convert --list"
        )
    return found
