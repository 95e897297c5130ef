"""Statistics of patients: tables in, figures with intervals out; NumPy, SciPy and pandas, never torch."""

from pipeline.statistics.association import (
    Association,
    category_association,
    category_counts,
    number_association,
)
from pipeline.statistics.auc import auc, auc_difference, auc_estimate, patient_auc
from pipeline.statistics.bootstrap import bootstrap_auc, percentile_interval
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
from pipeline.statistics.delong import delong_covariance, delong_interval
from pipeline.statistics.estimate import Estimate, NotEstimable, Proportion
from pipeline.statistics.flips import Flips, flips
from pipeline.statistics.operating_points import (
    Threshold,
    freeze_threshold,
    sensitivity_specificity,
    wilson_interval,
)
from pipeline.statistics.patient_table import patient_table, probability
from pipeline.statistics.pooling import pool_patients
from pipeline.statistics.robustness import CLEAN, AttackResult, ordered_attacks, robustness, rows_of_attack
from pipeline.statistics.roc import RocCurve, roc_curve

__all__ = [
    "CLEAN",
    "Association",
    "AttackResult",
    "CorrectedT",
    "DelongDifference",
    "Estimate",
    "Flips",
    "MannWhitney",
    "NotEstimable",
    "Proportion",
    "RocCurve",
    "Threshold",
    "auc",
    "auc_difference",
    "auc_estimate",
    "bootstrap_auc",
    "category_association",
    "category_counts",
    "cohort_summary",
    "corrected_t",
    "delong_covariance",
    "delong_difference",
    "delong_interval",
    "flips",
    "freeze_threshold",
    "holm",
    "mann_whitney",
    "number_association",
    "ordered_attacks",
    "patient_auc",
    "patient_table",
    "percentile_interval",
    "pool_patients",
    "pooled_auc",
    "pooled_auc_difference",
    "probability",
    "refusal_counts",
    "robustness",
    "roc_curve",
    "rows_of_attack",
    "sensitivity_specificity",
    "wilson_interval",
]
