"""The items of CLAIM 2024 and TRIPOD+AI in our words: which a bundle answers, which an option answers, which only people can.

Tejani et al.: Checklist for Artificial Intelligence in Medical Imaging (CLAIM): 2024 Update. Radiology: AI 2024, 44 items.
Collins et al.: TRIPOD+AI statement. BMJ 2024, 27 items, of which some have parts: 52 in all.
"""

from __future__ import annotations

from dataclasses import dataclass

YOU = "you must state"


@dataclass(frozen=True)
class Item:
    """answer: the section of the card that gives it, a command after "option: ", or `YOU`. studies: the kinds of study an item
    of TRIPOD+AI is for: D (development of a model), E (evaluation), or both."""

    number: str
    topic: str
    answer: str = YOU
    studies: str = ""


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
    Item("10", "selection of parts of the data, and by whom"),
    Item("11", "how the data were de-identified"),
    Item("12", "missing data"),
    Item("13", "how the images were acquired"),
    Item("14", "how the reference masks were drawn"),
    Item("15", "why this reference standard"),
    Item("16", "who drew the masks, with which qualification"),
    Item("17", "how and with which tools the masks of the test set were drawn"),
    Item("18", "agreement between and within annotators", "option: autoseg_compare --second-annotator DIR"),
    Item("19", "how cases were assigned to partitions", _TRAINING),
    Item("20", "level at which partitions are disjoint", _TRAINING),
    Item("21", "intended size of the test set, and why"),
    Item("22", "the model in detail", _MODEL),
    Item("23", "software and versions", "Versions"),
    Item("24", "initial parameters", _MODEL),
    Item("25", "training in detail", _TRAINING),
    Item("26", "how the final model was selected", _TRAINING),
    Item("27", "ensembling", _MODEL),
    Item("28", "metrics, and other published models", f"{_RESULTS}; of other models: you must state"),
    Item("29", "significance and uncertainty", "option: autoseg_compare"),
    Item("30", "robustness", "option: autoseg_compare --stratify-by, --metadata"),
    Item("31", "explanations", "option: autoseg_explain"),
    Item("32", "testing on internal data", _RESULTS),
    Item("33", "testing on external data, or why there is none", "option: autoseg_evaluate --external"),
    Item("34", "registration of a trial"),
    Item("35", "numbers of patients and images, included and excluded", f"{_DATA}: those that were used"),
    Item("36", "demographic and clinical characteristics of each partition"),
    Item("37", "performance against the reference standard, in groups too", f"{_RESULTS}; option: autoseg_compare --metadata"),
    Item("38", "precision of these estimates", "option: autoseg_compare (intervals); of a diagnosis: you must state"),
    Item("39", "analysis of failures", "option: autoseg_compare (worst cases), autoseg_audit"),
    Item("40", "limits of the study", "Limits: what the records show"),
    Item("41", "consequences for practice"),
    Item("42", "where the full protocol is", "plan.json in the bundle: every decision with its reason"),
    Item("43", "availability of software, model and data", "Versions; of data and bundle: you must state"),
    Item("44", "funding and other support"),
)

_D, _E, _DE = "D", "E", "D;E"

TRIPOD_AI = (
    Item("1", "title: development or evaluation, population, what is predicted", YOU, _DE),
    Item("2", "abstract", YOU, _DE),
    Item("3a", "background: medical context, why this model, earlier ones", YOU, _DE),
    Item("3b", "background: for whom, at which step of care, who uses it", YOU, _DE),
    Item("3c", "background: known inequalities between groups of people", YOU, _DE),
    Item("4", "objectives", YOU, _DE),
    Item("5a", "sources of the data, and how representative they are", f"{_DATA}, as far as dataset.json names them", _DE),
    Item("5b", "dates of the data", YOU, _DE),
    Item("6a", "setting: kind, number and place of the centres", YOU, _DE),
    Item("6b", "who was included", YOU, _DE),
    Item("6c", "treatments", YOU, _DE),
    Item("7", "preparation and checks of the data", f"{_DATA}, {_TRAINING}", _DE),
    Item("8a", "outcome (the masks): definition, how and when assessed", YOU, _DE),
    Item("8b", "outcome: qualification of those who drew the masks", YOU, _DE),
    Item("8c", "outcome: blinding of those who drew the masks", YOU, _DE),
    Item("9a", "predictors (the image): how chosen", f"{_DATA}: the images alone", _D),
    Item("9b", "predictors: how and when the images were taken", YOU, _DE),
    Item("9c", "predictors: who assessed them, if a person did", f"{_DATA}: no person did", _DE),
    Item("10", "sample size, and why it is enough", YOU, _DE),
    Item("11", "missing data", YOU, _DE),
    Item("12a", "partitions of the data", _TRAINING, _D),
    Item("12b", "scaling and normalisation of the predictors", _TRAINING, _D),
    Item("12c", "model, its building, tuning and internal validation", f"{_MODEL}, {_TRAINING}", _D),
    Item("12d", "heterogeneity between centres: how measured", "option: autoseg_compare --metadata, --splits by=site", _DE),
    Item("12e", "measures of performance, comparison of models", f"{_RESULTS}; option: autoseg_compare", _DE),
    Item("12f", "updating of the model after its evaluation: how", YOU, _E),
    Item("12g", "how predictions are made", "the bundle itself", _E),
    Item("13", "imbalance of classes: what was done, and why", _TRAINING, _DE),
    Item("14", "fairness: what was done, and why", "option: autoseg_compare --metadata", _DE),
    Item("15", "output of the model, thresholds", _MODEL, _D),
    Item("16", "differences between development and evaluation data", "option: autoseg_evaluate --external", _DE),
    Item("17", "ethical approval and consent", YOU, _DE),
    Item("18a", "funding, and the funders' role", YOU, _DE),
    Item("18b", "conflicts of interest", YOU, _DE),
    Item("18c", "where the study's protocol is", YOU, _DE),
    Item("18d", "registration", YOU, _DE),
    Item("18e", "availability of the data", YOU, _DE),
    Item("18f", "availability of the code", "Versions: of autoseg and the libraries; of your own code: you must state", _DE),
    Item("19", "involvement of patients and the public", YOU, _DE),
    Item("20a", "flow of participants", YOU, _DE),
    Item("20b", "characteristics of participants", f"{_DATA}: numbers of images and groups; the rest: you must state", _DE),
    Item("20c", "evaluation data compared with development data", "option: autoseg_evaluate --external", _E),
    Item("21", "participants and events in each analysis", f"{_DATA}, {_RESULTS}", _DE),
    Item("22", "the full model, and restrictions of its use", f"the bundle itself; licences: {_MODEL}, {_DATA}", _D),
    Item("23a", "performance with intervals, in groups too", f"{_RESULTS}; option: autoseg_compare --metadata", _DE),
    Item("23b", "heterogeneity between centres: results", "option: autoseg_compare --metadata", _DE),
    Item("24", "updating of the model: results", YOU, _E),
    Item("25", "interpretation, fairness too", YOU, _DE),
    Item("26", "limits", "Limits: what the records show", _DE),
    Item("27a", "use: poor or missing input", "Limits: warnings for images unlike the training set", _D),
    Item("27b", "use: what people have to do, with which skill", YOU, _D),
    Item("27c", "next steps of research", YOU, _DE),
)  # fmt: skip
