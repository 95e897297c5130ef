"""Statistics of patients: tables in, figures with intervals out; NumPy, SciPy and pandas, never torch."""

from pipeline.statistics.association import (
    Association,
    category_association,
    category_counts,
    number_association,
)
from pipeline.statistics.auc import auc, auc_difference, auc_estimate, patient_auc
from pipeline.statistics.bootstrap import bootstrap_auc, percentile_interval
from pipeline.statistics.budget_curve import BudgetPoint, budget_curve
from pipeline.statistics.calibration import Calibration, CalibrationBin, calibration
from pipeline.statistics.certified import (
    CertifiedCohort,
    SmoothedBounds,
    certified_cohort,
    largest_radius,
    order_statistics,
    smoothed_bounds,
)
from pipeline.statistics.clustered import ClusteredAuc, clustered_auc, clustered_bootstrap_auc, pool_breasts
from pipeline.statistics.cohort_table import cohort_summary, refusal_counts
from pipeline.statistics.comparison import (
    CorrectedT,
    DelongDifference,
    MannWhitney,
    corrected_t,
    delong_difference,
    holm,
    mann_whitney,
    pooled_auc,
    pooled_auc_difference,
)
from pipeline.statistics.decision_curve import DecisionCurve, decision_curve
from pipeline.statistics.delong import delong_covariance, delong_interval
from pipeline.statistics.distances import DistanceSummary, distance_summary, strongest_first
from pipeline.statistics.estimate import Estimate, NotEstimable, Proportion
from pipeline.statistics.flips import Flips, flips
from pipeline.statistics.gates import Facts, Gate, gates
from pipeline.statistics.operating_points import (
    Threshold,
    freeze_threshold,
    sensitivity_specificity,
    wilson_interval,
)
from pipeline.statistics.partial_auc import partial_auc
from pipeline.statistics.patient_table import patient_table, probability
from pipeline.statistics.pooling import pool_patients
from pipeline.statistics.precision_recall import PrecisionRecallCurve, average_precision, precision_recall_curve
from pipeline.statistics.predictive_values import PredictiveValues, predictive_values
from pipeline.statistics.recalibration import (
    CalibrationChange,
    Recalibration,
    at_prevalence,
    calibration_change,
    fit_recalibration,
)
from pipeline.statistics.robustness import CLEAN, AttackResult, ordered_attacks, robustness, rows_of_attack
from pipeline.statistics.roc import RocCurve, roc_curve
from pipeline.statistics.subgroups import Group, Subgroups, patient_facts, subgroups
from pipeline.statistics.two_runs import AttackComparison, CallChange, RunComparison, compare_runs

__all__ = [
    "DistanceSummary",
    "distance_summary",
    "strongest_first",
    "Association",
    "AttackComparison",
    "AttackResult",
    "BudgetPoint",
    "CLEAN",
    "Calibration",
    "CalibrationBin",
    "CalibrationChange",
    "CallChange",
    "CertifiedCohort",
    "ClusteredAuc",
    "CorrectedT",
    "DecisionCurve",
    "DelongDifference",
    "Estimate",
    "Facts",
    "Flips",
    "Gate",
    "Group",
    "MannWhitney",
    "NotEstimable",
    "PrecisionRecallCurve",
    "PredictiveValues",
    "Proportion",
    "Recalibration",
    "RocCurve",
    "RunComparison",
    "SmoothedBounds",
    "Subgroups",
    "Threshold",
    "at_prevalence",
    "auc",
    "auc_difference",
    "auc_estimate",
    "average_precision",
    "bootstrap_auc",
    "budget_curve",
    "calibration",
    "calibration_change",
    "category_association",
    "category_counts",
    "certified_cohort",
    "clustered_auc",
    "clustered_bootstrap_auc",
    "cohort_summary",
    "compare_runs",
    "corrected_t",
    "decision_curve",
    "delong_covariance",
    "delong_difference",
    "delong_interval",
    "fit_recalibration",
    "flips",
    "freeze_threshold",
    "gates",
    "holm",
    "largest_radius",
    "mann_whitney",
    "number_association",
    "order_statistics",
    "ordered_attacks",
    "partial_auc",
    "patient_auc",
    "patient_facts",
    "patient_table",
    "percentile_interval",
    "pool_breasts",
    "pool_patients",
    "pooled_auc",
    "pooled_auc_difference",
    "precision_recall_curve",
    "predictive_values",
    "probability",
    "refusal_counts",
    "robustness",
    "roc_curve",
    "rows_of_attack",
    "sensitivity_specificity",
    "smoothed_bounds",
    "subgroups",
    "wilson_interval",
]
