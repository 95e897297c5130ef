"""Layout of the files that an evaluation leaves in artefacts/ beside the scores, as far as the report reads them."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.report.errors import ReportError


class Measured(BaseModel):
    """Entries that are not named here are left aside; those named must be there, of their type."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class StrongAttack(Measured):
    """An attack of the strong test; its cost is absent where the run had scored it before."""

    role: str
    name: str
    attack_id: str
    norm: str
    budget: float
    forward_passes: int | None = None
    backward_passes: int | None = None
    seconds: float | None = None


class Distance(Measured):
    """Least change that flips an image, in the maximum norm; None where none was found."""

    distance: float | None


class Strong(Measured):
    """artefacts/strong.json."""

    budget: float
    reported: str
    scored_before: tuple[str, ...]
    patients: tuple[str, ...]
    attacks: tuple[StrongAttack, ...]
    facts: dict[str, Any]
    surrogate: str | None
    distances: tuple[Distance, ...]


class Auc(Measured):
    """An AUC with its certified lower bound, or the reason why there is none."""

    model_config = ConfigDict(extra="allow", frozen=True)
    value: float | None
    lower: float | None
    reason: str | None


class Radius(Measured):
    """What holds for every change within an L2 radius."""

    model_config = ConfigDict(extra="allow", frozen=True)
    radius: float
    abstained: int
    auc: Auc
    sensitivity: dict[str, Any] | None
    specificity: dict[str, Any] | None


class Certified(Measured):
    """artefacts/certified.json."""

    patients: int
    malignant: int
    images: int
    pixels: int | None = None
    sigma: float
    draws: int
    alpha: float
    threshold: float | None
    radii: tuple[Radius, ...]
    seconds: float


class StoredBudget(Measured):
    """What is left of a budget in one exam's stored files."""

    full_scale_levels: tuple[float, ...]
    logit_prepared: float
    logit_rounded: float
    logit_dithered: float
    share_rounded: float | None
    share_dithered: float | None


class LevelsToFlip(Measured):
    """Grey levels that turn a patient over; None, with a reason, where the limit did not."""

    levels: int | None
    reason: str


class AttackedExam(Measured):
    """The exam that was turned over."""

    logit_after: float
    images: tuple[dict[str, Any], ...]


class Refusal(Measured):
    """A file that could not be used."""

    code: str
    reason: str


class AttackedPatient(Measured):
    """A patient of the DICOM attack; one that was not attacked has a reason and no figures."""

    patient_id: str
    label: Literal[0, 1]
    reason: str
    refusals: tuple[Refusal, ...] = ()
    logit: float | None = None
    stored_budget: StoredBudget | None = None
    levels_to_flip: LevelsToFlip | None = None
    attacked: AttackedExam | None = None


class DicomSummary(Measured):
    """Counts and medians over the patients."""

    model_config = ConfigDict(extra="allow", frozen=True)
    attacked: int
    wrong_before: int
    flipped: int
    not_flipped: int
    median_levels_to_flip: float | None
    median_share_rounded: float | None
    median_share_dithered: float | None


class DicomAttack(Measured):
    """artefacts/dicom_attack.json."""

    threshold: float | None
    origin: str | None = None
    budget: float
    limit: int
    steps: int
    summary: DicomSummary
    patients: tuple[AttackedPatient, ...]


Layout = TypeVar("Layout", bound=Measured)


def measured(content: Any, layout: type[Layout], *, path: object) -> Layout:
    """Read a file's content by its layout.

    Raises:
        ReportError: an entry that lacks or is of another type; it names the file and the first such entry.
    """
    try:
        return layout.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = "/".join(str(step) for step in first["loc"]) or "its content"
        others = error.error_count() - 1
        more = f" (and {others} more)" if others else ""
        raise ReportError(
            f"{path}: {where}: {first['msg']}{more}; score the test patients again with bundles/arfl/evaluate.json"
        ) from error
