"""An audit as lines of text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.cohort.auditing.audit import Audit
from pipeline.cohort.auditing.findings import Severity
from pipeline.cohort.auditing.shortcuts import ALPHA, Shortcut


def printed(result: Audit) -> Iterator[str]:
    """The audit as lines of text."""
    counts = result.counts
    yield (
        f"{counts['patients']} patients ({counts['malignant']} malignant, {counts['benign']} benign or negative), "
        f"{counts['images']} images, {counts['prepared']} prepared, {counts['refused']} refused; split: {result.split}"
    )
    for severity in Severity:
        found = result.of(severity)
        yield ""
        yield f"{severity.upper()}S: {len(found) or 'none'}{_reach(counts) if severity is Severity.LEAK else ''}"
        yield from (f"  {finding.code}: {finding.message}" for finding in found)
    yield ""
    yield f"SHORTCUT SCAN (one value per patient; intervals 95 %, p-values after Holm, ! below {ALPHA:g};"
    yield "of categories: AUC of out-of-fold shares, which below 0.5 say nothing, and Cramér's V)"
    yield f"  {'fact':18} {'patients':>8}  {'AUC':>5} {'interval':>14}  {'V':>5}  {'p':>7} {'p Holm':>7}"
    for shortcut in result.shortcuts:
        yield _line(shortcut)


def _reach(counts: dict[str, int]) -> str:
    """How far the audit could see, where it could not see every image."""
    if counts["prepared"] == counts["images"]:
        return ""
    if counts["prepared"] + counts["refused"] == 0:
        return " in the table; no image was looked at"
    return f" among {counts['prepared']} of {counts['images']} images; {counts['refused']} could not be prepared"


def _line(shortcut: Shortcut) -> str:
    start = f"{'!' if shortcut.warns else ' '} {shortcut.name:18} {shortcut.patients:>8}"
    association = shortcut.association
    if association is None or shortcut.adjusted is None:
        return f"{start}  {'the same for all' if shortcut.patients else 'not known'}"
    estimate = association.auc
    value = "-" if estimate.value is None else f"{estimate.value:.3f}"
    bounds = (estimate.lower, estimate.upper)
    interval = "-" if bounds[0] is None or bounds[1] is None else f"{bounds[0]:.3f} to {bounds[1]:.3f}"
    strength = "" if association.cramers_v is None else f"{association.cramers_v:.2f}"
    return f"{start}  {value:>5} {interval:>14}  {strength:>5}  {association.p_value:7.2g} {shortcut.adjusted:7.2g}"
