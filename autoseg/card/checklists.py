"""The items of CLAIM 2024 and TRIPOD+AI in our words: which a bundle answers, which an option answers, which only people can.

Tejani et al.: Checklist for Artificial Intelligence in Medical Imaging (CLAIM): 2024 Update. Radiology: AI 2024.
Collins et al.: TRIPOD+AI statement. BMJ 2024.
"""

from __future__ import annotations

from dataclasses import dataclass

YOU = "you must state"


@dataclass(frozen=True)
class Item:
    """answer: the section of the card that gives it, a command after "option: ", or `YOU`."""

    number: str
    topic: str
    answer: str = YOU


_DATA, _MODEL, _TRAINING, _RESULTS = "Data", "Network", "Training", "Results"

CLAIM = (
    Item("1", "title names the kind of AI", _MODEL),
    Item("2", "abstract"),
    Item("3", "background, intended use and role"),
    Item("4", "aims and hypotheses"),
    Item("5", "prospective or retrospective"),
    Item("6", "goal of the study"),
    Item("7", "sources of the data", f"{_DATA}, as far as dataset.json names them"),
    Item("8", "which cases were included and excluded"),
    Item("9", "preprocessing", _TRAINING),
    Item("10", "selection of parts of the data"),
    Item("11", "how the data were de-identified"),
    Item("12", "missing data"),
    Item("13", "how the images were acquired"),
    Item("14", "how the reference masks were drawn"),
    Item("15", "why this reference standard"),
    Item("16", "who drew the masks, with which qualification"),
    Item("17", "who drew the masks of the test set"),
    Item("18", "agreement between and within annotators", "option: autoseg_compare --second-annotator DIR"),
    Item("19", "how cases were assigned to partitions", _TRAINING),
    Item("20", "level at which partitions are disjoint", _TRAINING),
    Item("21", "intended sample size"),
    Item("22", "the model in detail", _MODEL),
    Item("23", "software and versions", "Versions"),
    Item("24", "initial parameters", _MODEL),
    Item("25", "training in detail", _TRAINING),
    Item("26", "how the final model was selected", _TRAINING),
    Item("27", "ensembling", _MODEL),
    Item("28", "metrics", _RESULTS),
    Item("29", "significance and uncertainty", "option: autoseg_compare"),
    Item("30", "robustness", "option: autoseg_compare --stratify-by, --metadata"),
    Item("31", "explanations", "option: autoseg_explain"),
    Item("32", "results on internal data", _RESULTS),
    Item("33", "results on external data", "option: autoseg_evaluate --external"),
    Item("34", "registration of a trial"),
    Item("35", "numbers of patients and images, included and excluded", f"{_DATA}: those that were used"),
    Item("36", "demographic and clinical characteristics of each partition"),
    Item("37", "performance with its uncertainty", f"{_RESULTS}; option: autoseg_compare for intervals"),
    Item("38", "diagnostic performance"),
    Item("39", "analysis of failures", "option: autoseg_compare (worst cases), autoseg_audit"),
    Item("40", "limits of the study", "Limits: what the records show"),
    Item("41", "consequences for practice"),
    Item("42", "full protocol", "plan.json in the bundle: every decision with its reason"),
    Item("43", "availability of software, model and data", "Versions; of data and bundle: you must state"),
    Item("44", "funding and other support"),
)

TRIPOD_AI = (
    Item("1", "title", _MODEL),
    Item("2", "abstract"),
    Item("3", "background, population, known inequalities in care"),
    Item("4", "objectives"),
    Item("5", "sources and dates of the data", f"{_DATA}, as far as dataset.json names them"),
    Item("6", "setting, eligibility and treatments of participants"),
    Item("7", "preparation and checks of the data", f"{_DATA}, {_TRAINING}"),
    Item("8", "outcome: how and by whom it was assessed, blinding"),
    Item("9", "predictors: how they were measured", f"{_DATA}: the image alone"),
    Item("10", "sample size"),
    Item("11", "missing data"),
    Item("12", "analysis: partitions, model, training, performance, heterogeneity", f"{_MODEL}, {_TRAINING}, {_RESULTS}"),
    Item("13", "imbalance of classes", _TRAINING),
    Item("14", "fairness: how groups were compared", "option: autoseg_compare --metadata"),
    Item("15", "output of the model, thresholds", _MODEL),
    Item("16", "differences between development and evaluation data", "option: autoseg_evaluate --external"),
    Item("17", "ethical approval and consent"),
    Item("18", "funding, conflicts, protocol, registration, data and code", "code: Versions; the rest: you must state"),
    Item("19", "involvement of patients and the public"),
    Item("20", "flow and characteristics of participants", f"{_DATA}: numbers of images and groups"),
    Item("21", "participants and events in each analysis", f"{_DATA}, {_RESULTS}"),
    Item("22", "the full model, so that others can use it", "the bundle itself"),
    Item("23", "performance with intervals, in groups too", f"{_RESULTS}; option: autoseg_compare --metadata"),
    Item("24", "updating of the model", "option: autoseg_train --extend"),
    Item("25", "interpretation"),
    Item("26", "limits", "Limits: what the records show"),
    Item("27", "use in practice: poor input, people, next steps", "Limits: warnings for images unlike the training set"),
)
