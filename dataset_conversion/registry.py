"""Registry of the datasets and layouts of `autoseg_convert`. Imports nothing heavy, so that `--list` is fast.

A converter is a module, looked up by name (entry points "autoseg.converters"; autoseg's own have a row here). It holds
`CONVERTER`, its row of the list, and `find(source, options) -> ConversionPlan`. source: the files (`Source`);
nothing is decoded in `find`. options: the value of each of `CONVERTER.options` by name. It returns the cases, (C, H, W) images
and (H, W) masks of label values or functions that make them, and all problems of the layout.

Sizes are those of the published datasets. Licences are copied from the publishers' pages, which are authoritative.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autoseg.support.registry import Registry


@dataclass(frozen=True, kw_only=True)
class Option:
    """An option of one converter. kind: "flag", "text" or "int"; choices: the allowed values, if limited."""

    name: str
    help: str
    kind: str = "flag"
    choices: tuple[str, ...] = ()
    default: str | int | bool | None = None

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")


@dataclass(frozen=True, kw_only=True)
class Converter:
    """A row of the list. name: on the command line, and the module's. title: what the dataset is called by default.

    modality: is passed to the planner. general: a layout, not a dataset; it has no title, modality or licence.
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
        """Where autoseg's own converter is."""
        return f"dataset_conversion.{'layouts' if self.general else 'published'}.{self.name}"

    def about(self) -> str:
        """Docstring of its module: citation, licence, download page, layout. autoseg's own are parsed, not imported."""
        if self.name in REGISTRY.added():
            return REGISTRY.get(self.name).__doc__ or ""
        path = Path(__file__).parent / ("layouts" if self.general else "published") / f"{self.name}.py"
        return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


_FIELD = Option(
    name="field_of_view", help="give pixels outside the field of view the ignore label, so that they are not scored"
)
_OBSERVER = Option(name="observer", help="whose tracing to take (default: 1)", kind="int", choices=("1", "2"), default=1)
_RESEARCH = "research use, see the page"

PUBLISHED = (
    Converter(
        name="isic2018", title="ISIC2018", modality="dermoscopy", classes="lesion", size="2,594 + 100 + 1,000 test",
        licence="CC BY-NC 4.0", paper="Codella et al., arXiv 1902.03368 (2019)",
    ),
    Converter(
        name="neopolyp", title="NeoPolypSmall", modality="colonoscopy", classes="neoplastic, non_neoplastic",
        size="1,000 (+ 200 without masks)", licence=_RESEARCH, paper="Lan et al., ISVC 2021 (NeoUNet)",
    ),
    Converter(
        name="camus", title="CAMUS", modality="echocardiography ultrasound", classes="left_ventricle, myocardium, left_atrium",
        size="2,000 of 500 patients", licence="CC BY-NC-SA 4.0", paper="Leclerc et al., IEEE TMI 2019",
        options=(Option(name="quality", help="only images of these qualities, such as Good,Medium", kind="text"),),
    ),
    Converter(
        name="cvc_colondb", title="CVCColonDB", modality="colonoscopy", classes="polyp", size="380", licence=_RESEARCH,
        paper="Tajbakhsh et al., IEEE TMI 2016",
    ),
    Converter(
        name="cvc_clinicdb", title="CVCClinicDB", modality="colonoscopy", classes="polyp", size="612 of 29 sequences",
        licence=_RESEARCH, paper="Bernal et al., Comput. Med. Imaging Graph. 2015",
    ),
    Converter(
        name="etis", title="ETISLarib", modality="colonoscopy", classes="polyp", size="196", licence=_RESEARCH,
        paper="Silva et al., IJCARS 2014",
    ),
    Converter(
        name="kvasir_seg", title="KvasirSEG", modality="colonoscopy", classes="polyp", size="1,000",
        licence="research and education", paper="Jha et al., MMM 2020",
    ),
    Converter(
        name="fives", title="FIVES", modality="fundus", classes="vessel", size="600 + 200 test", licence="CC BY 4.0",
        paper="Jin et al., Scientific Data 2022",
    ),
    Converter(
        name="drive", title="DRIVE", modality="fundus", classes="vessel", size="20 + 20 test", licence=_RESEARCH,
        paper="Staal et al., IEEE TMI 2004", options=(_OBSERVER, _FIELD),
    ),
    Converter(
        name="chase_db1", title="CHASEDB1", modality="fundus", classes="vessel", size="28 of 14 children", licence=_RESEARCH,
        paper="Fraz et al., IEEE TBME 2012", options=(_OBSERVER,),
    ),
    Converter(
        name="stare", title="STARE", modality="fundus", classes="vessel", size="20", licence=_RESEARCH,
        paper="Hoover et al., IEEE TMI 2000", options=(_OBSERVER,),
    ),
    Converter(
        name="hrf", title="HRF", modality="fundus", classes="vessel", size="45", licence="CC BY 4.0",
        paper="Budai et al., Int. J. Biomed. Imaging 2013", options=(_FIELD,),
    ),
    Converter(
        name="busi", title="BUSI", modality="ultrasound", classes="lesion", size="780 (133 normal)", licence="see the page",
        paper="Al-Dhabyani et al., Data in Brief 2020",
        options=(Option(name="without_normal", help="leave out the images of healthy tissue, whose masks are empty"),),
    ),
    Converter(
        name="bus_ucm", title="BUSUCLM", modality="ultrasound", classes="benign, malignant (or lesion)",
        size="683 of 38 patients (419 normal)", licence="see the page", paper="Vallez et al., Scientific Data 2025",
        options=(
            Option(name="lesion", help="one class for both kinds"),
            Option(name="without_normal", help="leave out the images whose masks are empty"),
        ),
    ),
    Converter(
        name="ph2", title="PH2", modality="dermoscopy", classes="lesion", size="200", licence="research and education",
        paper="Mendonca et al., EMBC 2013",
    ),
    Converter(
        name="montgomery", title="MontgomeryCXR", modality="xray", classes="right_lung, left_lung", size="138",
        licence="free with citation, see the page", paper="Jaeger et al., Quant. Imaging Med. Surg. 2014",
        options=(Option(name="lung", help="one class for both lungs"),),
    ),
    Converter(
        name="acdc", title="ACDC", modality="MR", classes="right_ventricle, myocardium, left_ventricle",
        size="200 + 100 test volumes of 150 patients", licence="CC BY-NC-SA 4.0", paper="Bernard et al., IEEE TMI 2018",
    ),
    Converter(
        name="nuclei_dsb2018", title="NucleiDSB2018", modality="microscopy", classes="nucleus", size="670 + 65 test",
        licence="CC0", paper="Caicedo et al., Nature Methods 2019",
    ),
    Converter(
        name="glas", title="GlaS", modality="histology", classes="gland", size="85 + 80 test", licence=_RESEARCH,
        paper="Sirinukunwattana et al., Med. Image Anal. 2017",
    ),
    Converter(
        name="monuseg", title="MoNuSeg", modality="histology", classes="nucleus", size="30 + 14 test",
        licence="CC BY-NC-SA 4.0", paper="Kumar et al., IEEE TMI 2020",
        options=(Option(name="boundary", help="a class for the rims of nuclei, which separates touching nuclei"),),
    ),
)  # fmt: skip

_LABELS = Option(name="labels", help="class names by value, background first, with commas", kind="text")
_IMAGES = Option(name="images", help="folder of the images inside", kind="text", default="images")
_GROUPS = Option(name="groups", help=r"regular expression that finds the patient in a name, e.g. '(patient\d+)'", kind="text")
_MODALITY = Option(name="modality", help="such as ultrasound, if it cannot be detected from the images", kind="text")
_YOUR_OWN = (_GROUPS, _MODALITY)

LAYOUTS = (
    Converter(
        name="nnunet", title="", modality="", classes="as it says", size="", licence="",
        paper="nnU-Net v2's raw datasets; slices of volumes",
        options=(
            Option(
                name="axis", help="slices of volumes across this axis (default: that of the widest spacing)", kind="text",
                choices=("x", "y", "z"),
            ),
            Option(name="labelled", help="of volumes, only the slices that hold a label"), _GROUPS, _MODALITY,
        ),
        general=True,
    ),
    Converter(
        name="coco", title="", modality="", classes="categories", size="", licence="",
        paper="COCO JSON: polygons and run lengths",
        options=(Option(name="annotations", help="which JSON file inside (default: the only one)", kind="text"), *_YOUR_OWN),
        general=True,
    ),
    Converter(
        name="labelme", title="", modality="", classes="labels of the shapes", size="", licence="",
        paper="LabelMe JSON, one an image", options=(_LABELS, *_YOUR_OWN), general=True,
    ),
    Converter(
        name="voc", title="", modality="", classes="labelmap.txt or --labels", size="", licence="",
        paper="Pascal VOC: JPEGImages, SegmentationClass, ImageSets", options=(_LABELS, *_YOUR_OWN), general=True,
    ),
    Converter(
        name="yolo", title="", modality="", classes="data.yaml", size="", licence="",
        paper="YOLO segmentation: images, labels/*.txt", options=(_LABELS, *_YOUR_OWN), general=True,
    ),
    Converter(
        name="mask_per_class", title="", modality="", classes="folders", size="", licence="",
        paper="a folder of images and a folder of masks for each class", options=(_IMAGES, _LABELS, *_YOUR_OWN), general=True,
    ),
    Converter(
        name="rle_csv", title="", modality="", classes="a column, or one", size="", licence="",
        paper="Kaggle's tables of run lengths",
        options=(
            _IMAGES,
            Option(name="table", help="which CSV file inside (default: the only one)", kind="text"),
            Option(name="id_column", help="column of the image's name (default: guessed)", kind="text"),
            Option(name="rle_column", help="column of the run lengths (default: guessed)", kind="text"),
            Option(name="class_column", help="column of the class (default: guessed, or none)", kind="text"),
            Option(name="by_rows", help="runs go along rows instead of down columns"),
            Option(name="relative", help="starts count from the end of the run before"), _LABELS, *_YOUR_OWN,
        ),
        general=True,
    ),
    Converter(
        name="dicom_seg", title="", modality="", classes="segments", size="", licence="",
        paper="DICOM segmentation objects with their images", options=(_MODALITY,), general=True,
    ),
)  # fmt: skip

CONVERTERS = {converter.name: converter for converter in (*PUBLISHED, *LAYOUTS)}
REGISTRY: Registry[Any] = Registry(
    "converter", "autoseg.converters", {name: row.module for name, row in CONVERTERS.items()}, needs=("CONVERTER", "find")
)


def converter(name: str) -> Converter:
    """A converter by name; one of another package is imported. Raises AutosegError with similar names."""
    plain = name.casefold().replace("-", "_")
    if plain in CONVERTERS and plain not in REGISTRY.added():
        return CONVERTERS[plain]
    name = plain if plain in REGISTRY else name
    row: Converter = replace(REGISTRY.get(name).CONVERTER, name=name)
    return row
