"""Shortcut scan: which facts that are no finding tell malignant from benign patients by themselves.

One value per patient and fact. Numbers: AUC with DeLong's interval and a Mann-Whitney test. Categories: permutation
chi-square, Cramér's V, and the AUC of out-of-fold shares (``pipeline.statistics.category_association``). All questions
of a scan are one family: p-values are adjusted after Holm (1979), and a fact is warned of where its adjusted p-value is
below ``ALPHA``, so that a cohort without any shortcut is warned of at all in at most 5 % of cohorts. The intervals
printed are those of each fact alone (95 %, not adjusted). Age is a risk factor, but one that a picture shows: whom it
tells apart a network may tell by it. Density and lesion are left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pipeline.cohort.auditing.findings import Finding, Severity
from pipeline.statistics import Association, category_association, category_counts, holm, number_association

ALPHA = 0.05
MOST_CATEGORIES = 20  # of an id's prefix; more of them are ids, no groups
LISTED_CATEGORIES = 20  # categories whose counts are listed

NUMBERS = {
    "age": "the classes differ in age, which shows in the breast: match by age, or report figures within ages",
    "images": "a score that grows with the number of images, such as a maximum, profits",
    "breasts": "a maximum over breasts profits: pool with across_breasts 'mean', or score the same breasts of all",
    "labelled_breasts": "score whole exams: were only labelled breasts scored, the label would choose the images "
    "(more breasts, higher maximum)",
    "refused_images": "the classes lose different images on the way: look at the refusals",
    "mean_intensity": "the classes differ in brightness: stretch the contrast per image (StretchContrastd), or take "
    "both classes from the same scanner and period",
    "breast_intensity": "the classes differ in brightness of the breast: stretch the contrast per image "
    "(StretchContrastd), or take both classes from the same scanner and period",
    "breast_area": "the classes differ in the size of the breast in the picture: compare scanner, format, compression",
    "file_size": "the classes differ in format or compression: export both alike",
    "rows": "the classes differ in picture size: compare scanners and export",
    "columns": "the classes differ in picture size: compare scanners and export",
    "spacing": "the classes differ in pixel spacing: compare scanners and export",
}
CATEGORIES = {
    "vendor": "the manifest's vendor (scanner group, sub-cohort) tells the classes apart: stratify or match by it",
    "id_prefix": "the first part of patient_id, such as a sub-cohort, tells the classes apart: stratify or match by it",
    "views": "the classes were imaged in other sets of views: score the same views of everybody",
    "manufacturer": "the maker tells the classes apart: stratify or match by it",
    "model": "the device's model tells the classes apart: stratify or match by it",
    "device": "the single device tells the classes apart: stratify or match by it",
    "software": "the device's software tells the classes apart: stratify or match by it",
    "bit_depth": "the classes differ in bit depth: export both alike",
    "photometric": "the classes differ in photometric interpretation: export both alike",
    "syntax": "the classes differ in compression or file format: export both alike",
}
HINTS = NUMBERS | CATEGORIES


@dataclass(frozen=True)
class Shortcut:
    """One fact and how far it tells the classes apart.

    Attributes:
        name: name of the fact.
        patients: patients of whom it is known.
        association: AUC, interval and p-value; None where the fact is the same for all, or one class is missing.
        adjusted: p-value after Holm, None where nothing was tested.
        categories: (malignant, benign) patients of each category; None for numbers, devices and long lists.
    """

    name: str
    patients: int
    association: Association | None
    adjusted: float | None
    categories: dict[str, tuple[int, int]] | None = None

    @property
    def warns(self) -> bool:
        """Whether the fact departs from telling nothing, after Holm's adjustment."""
        return self.adjusted is not None and self.adjusted < ALPHA

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {
            "name": self.name,
            "patients": self.patients,
            "association": None if self.association is None else self.association.to_dict(),
            "adjusted_p_value": self.adjusted,
            "warning": self.warns,
            "categories": None if self.categories is None else {k: list(v) for k, v in self.categories.items()},
        }


def patient_facts(listed: pd.DataFrame, measured: pd.DataFrame, rejects: pd.DataFrame) -> pd.DataFrame:
    """One row per patient of the manifest: patient_label and every fact that is known of the cohort.

    Args:
        listed: the manifest.
        measured: its prepared rows with the columns of ``image_facts``; may be empty.
        rejects: image, patient_id, ... of the refused images.

    Returns:
        Index patient_id; numbers are means over the patient's images, categories the joined set of its images' values.
    """
    people = listed.groupby("patient_id", sort=False)
    facts = pd.DataFrame({"patient_label": people["patient_label"].max(), "images": people.size()})
    facts["breasts"] = people["laterality"].nunique()
    labelled = listed[listed["label"].notna()].groupby("patient_id")["laterality"].nunique()
    facts["labelled_breasts"] = labelled.reindex(facts.index, fill_value=0)
    if len(rejects):
        facts["refused_images"] = rejects.groupby("patient_id").size().reindex(facts.index, fill_value=0)
    facts["views"] = people.apply(
        lambda rows: " ".join(sorted(f"{a}-{b}" for a, b in zip(rows["laterality"], rows["view"], strict=True))),
        include_groups=False,
    )
    prefixes = pd.Series({name: re.split(r"[-_. ]", name)[0] for name in facts.index})
    if 2 <= prefixes.nunique() <= min(MOST_CATEGORIES, len(facts) // 2):
        facts["id_prefix"] = prefixes
    if "age" in listed:
        facts["age"] = pd.to_numeric(listed["age"], errors="coerce").groupby(listed["patient_id"]).mean()
    if "vendor" in listed:
        facts["vendor"] = _joined(listed, "vendor").reindex(facts.index)
    if measured.empty:
        return facts
    shown = measured.assign(
        breast_area=measured["breast_area"] if measured["breast_area"].notna().all() else measured["breast_share"]
    )
    means = ["mean_intensity", "breast_intensity", "breast_area", "file_size", "rows", "columns", "spacing"]
    facts = facts.join(shown.groupby("patient_id")[means].mean())
    for name in ("manufacturer", "model", "device", "software", "bit_depth", "photometric", "syntax"):
        facts[name] = _joined(measured, name).reindex(facts.index)
    return facts


def _joined(rows: pd.DataFrame, name: str) -> pd.Series:
    values = rows[name].astype(str).where(rows[name].notna() & (rows[name].astype(str) != ""), "not stated")
    return values.groupby(rows["patient_id"]).agg(lambda of_patient: " + ".join(sorted(set(of_patient))))


def scan(facts: pd.DataFrame, *, seed: int = 0) -> list[Shortcut]:
    """Ask of every fact whether it tells the classes apart.

    Args:
        facts: from ``patient_facts``.
        seed: seed of folds, permutations and resamples.

    Returns:
        The facts, those with the least p-value first, those that could not be asked last.
    """
    asked = []
    for name in [name for name in (*NUMBERS, *CATEGORIES) if name in facts]:
        known = facts[facts[name].notna()]
        labels = known["patient_label"].to_numpy()
        testable = known[name].nunique() > 1 and len(np.unique(labels)) == 2
        association, counts = None, None
        if testable and name in NUMBERS:
            association = number_association(labels, known[name].to_numpy(dtype=np.float64))
        elif testable:
            association = category_association(labels, known[name].to_numpy(dtype=str), seed=seed)
            if name != "device" and association.values <= LISTED_CATEGORIES:
                counts = category_counts(labels, known[name].to_numpy(dtype=str))
        asked.append((name, len(known), association, counts))
    p_values = [np.nan if association is None else association.p_value for _, _, association, _ in asked]
    adjusted = [None if np.isnan(value) else float(value) for value in holm(p_values)]
    found = [
        Shortcut(name, patients, association, value, counts)
        for (name, patients, association, counts), value in zip(asked, adjusted, strict=True)
    ]
    return sorted(found, key=lambda one: 2.0 if one.association is None else one.association.p_value)


def shortcut_findings(shortcuts: list[Shortcut]) -> list[Finding]:
    """A warning for each fact that departs."""
    found = []
    for one in shortcuts:
        if one.warns and one.association is not None:
            auc = one.association.auc
            figure = "" if auc.value is None else f"AUC {auc.value:.2f}"
            if auc.lower is not None and auc.upper is not None:
                figure += f" ({auc.lower:.2f} to {auc.upper:.2f})"
            if one.association.cramers_v is not None:
                figure += f", Cramér's V {one.association.cramers_v:.2f}"
            message = (
                f"{one.name} alone tells the patients' classes apart: {figure}, p after Holm {one.adjusted:.2g}; "
                f"{HINTS[one.name]}"
            )
            found.append(Finding(f"shortcut_{one.name}", Severity.WARNING, message))
    return found
