"""Sections about who was studied: the flow from files to patients, the refusals, and the cohort table."""

from __future__ import annotations

from typing import Any

from pipeline.report.errors import ReportError
from pipeline.report.plain import section
from pipeline.report.run_files import RunFiles
from pipeline.statistics import cohort_summary, refusal_counts


def flow(files: RunFiles) -> dict[str, Any]:
    """Counts from files to patients, and the refused files by reason code."""
    refusals = None if files.rejects is None else refusal_counts(files.rejects)
    listed: dict[str, Any] = {"refusals": refusals, "refusals_reason": files.missing.get("rejects.csv")}
    if files.flow is None:
        return section("missing", reason=files.missing["flow.json"], stages=[], **listed)
    stages = []
    for number, stage in enumerate(files.flow):
        if not isinstance(stage, dict) or not {"stage", "files", "patients"} <= stage.keys():
            where = files.directory / "flow.json"
            raise ReportError(f"{where}: entry {number} needs 'stage', 'files' and 'patients'; write it again")
        stages.append({key: stage.get(key, "") for key in ("stage", "files", "patients", "note")})
    refused = 0 if refusals is None else sum(row["files"] for row in refusals)
    return section(n={"stages": len(stages), "refused_files": refused}, stages=stages, **listed)


def cohort(files: RunFiles) -> dict[str, Any]:
    """Patients and images of every partition."""
    if files.cohort is None:
        return section("missing", reason=files.missing["cohort.csv"], partitions=[])
    try:
        partitions = cohort_summary(files.cohort)
    except ValueError as error:
        raise ReportError(f"{files.directory / 'cohort.csv'}: {error}") from error
    columns = {
        name: sorted({value for row in partitions for value in row.get(name, {})})
        for name in ("views", "sides", "density", "vendor")
    }
    for row in partitions:
        for name, values in columns.items():
            if name in row:
                row[name] = {value: row[name].get(value, 0) for value in values}
    n = {key: sum(row[key] for row in partitions) for key in ("patients", "malignant", "benign", "images")}
    return section(n=n, partitions=partitions, columns=columns, has_age=any("age" in row for row in partitions))
