"""Contradictions inside a cohort: labels, views, sides, repeated and refused images."""

from __future__ import annotations

import pandas as pd

from pipeline.cohort.auditing.findings import Finding, Severity, some

STANDARD = (("L", "CC"), ("L", "MLO"), ("R", "CC"), ("R", "MLO"))  # the four views of a screening examination
OTHERWISE = 0.10  # of a set's images; from here on scanners that hang otherwise are the rule, not single wrong sides


def label_findings(table: pd.DataFrame) -> list[Finding]:
    """Labels that contradict each other.

    Args:
        table: one row per image with image, patient_id, laterality, label, patient_label and, if given, study_id.
    """
    people = table.groupby("patient_id", sort=False)
    highest, lowest = people["patient_label"].max(), people["patient_label"].min()
    breast = ["patient_id", "laterality", *(["study_id"] if "study_id" in table else [])]
    breasts = table.groupby(breast, sort=False)["label"]
    of_breast = breasts.nunique()
    labels = people["label"]
    both_benign = (labels.max() == 0) & (labels.count() == labels.size()) & (people["laterality"].nunique() == 2)
    cases = (
        ("two_patient_labels", highest.index[highest != lowest], "patients have two values of patient_label"),
        (
            "breast_against_patient_label",
            highest.index[((labels.max() == 1) & (highest == 0)) | (both_benign & (highest == 1))],
            "patients have a patient_label that their breasts' labels contradict (1 if any is malignant, else 0)",
        ),
        (
            "two_breast_labels",
            pd.Index(of_breast.index.get_level_values("patient_id")[of_breast > 1].unique()),
            "patients have views of one breast with different labels",
        ),
    )
    found = [
        Finding(code, Severity.WARNING, f"{len(who)} {what}: {some(list(who))}; mend the table of labels", tuple(who))
        for code, who, what in cases
        if len(who)
    ]
    twice = table[table["image"].duplicated(keep=False)]
    if len(twice):
        names = tuple(twice["image"].unique())
        differing = int((twice.groupby("image")[["label", "patient_label"]].nunique().max(axis=1) > 1).sum())
        message = f"{len(names)} images stand in the manifest more than once, {differing} with different labels"
        found.append(Finding("image_listed_twice", Severity.WARNING, f"{message}: {some(names)}", images=names))
    return found


def repeated_findings(table: pd.DataFrame, digest: str) -> list[Finding]:
    """Equal pictures inside one patient, and equal pictures with different labels anywhere.

    Args:
        table: one row per prepared image with image, patient_id, label, patient_label and the column of digests.
        digest: name of that column.
    """
    found = []
    known = table[table[digest] != ""].drop_duplicates("image")
    inside = known[known.duplicated(["patient_id", digest], keep=False)]
    if len(inside):
        names = tuple(inside["image"])
        message = f"{len(names)} images repeat a picture of the same patient: {some(names)}; drop the copies"
        found.append(
            Finding("repeated_picture", Severity.WARNING, message, tuple(inside["patient_id"].unique()), names)
        )
    counts = known.groupby(digest)[["label", "patient_label"]].nunique()
    for column, what in (("patient_label", "patients"), ("label", "breasts")):
        torn = known[known[digest].isin(counts.index[counts[column] > 1])]
        if len(torn):
            names = tuple(torn["image"])
            message = f"{len(names)} images show one picture under {what} of different {column}: {some(names)}"
            found.append(
                Finding(
                    f"one_picture_two_{column}s", Severity.WARNING, message, tuple(torn["patient_id"].unique()), names
                )
            )
    return found


def exam_findings(table: pd.DataFrame) -> list[Finding]:
    """Patients without all four standard views, and with one breast only, counted by class."""
    found = []
    people = table.drop_duplicates("patient_id").set_index("patient_id")["patient_label"]
    views = table.groupby("patient_id", sort=False).apply(
        lambda rows: set(zip(rows["laterality"], rows["view"], strict=True)), include_groups=False
    )
    lacking = views[views.map(lambda there: not set(STANDARD) <= there)]
    if len(lacking):
        missing = ", ".join(
            f"{side} {view} in {sum((side, view) not in there for there in views)}" for side, view in STANDARD
        )
        message = (
            f"{len(lacking)} of {len(views)} patients lack a standard view ({missing}): {some(list(lacking.index))}"
        )
        found.append(Finding("missing_views", Severity.WARNING, message, tuple(lacking.index)))
    sides = table.groupby("patient_id", sort=False)["laterality"].nunique()
    single = sides.index[sides == 1]
    if len(single):
        malignant = int((people[single] == 1).sum())
        message = (
            f"{len(single)} of {len(people)} patients show one breast only ({malignant} of {int((people == 1).sum())} "
            f"malignant, {len(single) - malignant} of {int((people == 0).sum())} benign): {some(list(single))}"
        )
        found.append(Finding("one_sided", Severity.WARNING, message, tuple(single)))
    return found


def side_findings(table: pd.DataFrame) -> list[Finding]:
    """Images whose chest wall lies at the edge that belongs to the other side.

    A left breast usually hangs with its chest wall at the left edge of the stored picture, a right one at the right.
    Where many images of a set do not (films scanned from behind, devices that store mirrored views), the edge by itself
    says nothing about the side: a note. An image is then held against the others of its patient, which all hang as
    usual or all the other way round. In the 500 patients of DDSM half of the images hang otherwise, and the images of
    one patient disagree: an outline was found wrongly.

    Args:
        table: one row per prepared image with image, patient_id, laterality, chest_wall ("left", "right" or "").
    """
    known = table[table["chest_wall"] != ""]
    unusual = known["chest_wall"] != known["laterality"].map({"L": "left", "R": "right"})
    found = []
    against, what = unusual, f"of {len(known)} images show the chest wall at the other edge than their side usually has"
    if unusual.mean() >= OTHERWISE:
        names = tuple(known.loc[unusual, "image"])
        message = f"{len(names)} {what}: sides are therefore held against the rest of each patient"
        found.append(Finding("unusual_hanging", Severity.NOTE, message, images=names))
        share = unusual.groupby(known["patient_id"]).transform("mean")
        against = (share > 0) & (share < 1) & ((unusual == (share <= 0.5)) | (share == 0.5))
        what = f"of {len(known)} images hang against the rest of their patient"
    if against.any():
        names = tuple(known.loc[against, "image"])
        reasons = "a wrong side, a mirrored file, or a breast outline that was found wrongly"
        message = f"{len(names)} {what}: {some(names)}; {reasons}"
        people = tuple(known.loc[against, "patient_id"].unique())
        found.append(Finding("side_against_pixels", Severity.WARNING, message, people, names))
    return found


def refusal_findings(listed: pd.DataFrame, rejects: pd.DataFrame) -> list[Finding]:
    """Images that could not be prepared, counted by reason."""
    if rejects.empty:
        return []
    codes = ", ".join(f"{count} {code}" for code, count in rejects["code"].value_counts().items())
    names = tuple(rejects["image"])
    message = f"{len(names)} of {len(listed)} images could not be prepared ({codes}): {some(names)}"
    return [Finding("refused_images", Severity.WARNING, message, tuple(rejects["patient_id"].unique()), names)]
