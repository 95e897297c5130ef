"""Evaluation: what needs a network - scores under attack, the patient metric, saliency, prediction."""

from pipeline.evaluation.certificates import Certificates
from pipeline.evaluation.dicom_attack import DicomAttackReport, dicom_attack_report
from pipeline.evaluation.dicom_test import DicomTest
from pipeline.evaluation.effort import Effort
from pipeline.evaluation.effort import effort as effort_named
from pipeline.evaluation.exam import Exam, ExamError, ExamWriter
from pipeline.evaluation.extras import require_extras
from pipeline.evaluation.gallery import Gallery
from pipeline.evaluation.metric import PatientAUC, ScoreWriter
from pipeline.evaluation.saliency import saliency
from pipeline.evaluation.smoothing import ExamImages, pool_views, smoothing_samples
from pipeline.evaluation.stored_exam import AttackedExam, LevelsToFlip, PatientFiles, StoredBudget, StoredExam
from pipeline.evaluation.stored_view import StoredView, ViewFile
from pipeline.evaluation.strong import StrongTest
from pipeline.statistics import pool_patients

__all__ = [
    "AttackedExam",
    "Certificates",
    "DicomAttackReport",
    "DicomTest",
    "Effort",
    "Exam",
    "ExamError",
    "ExamImages",
    "ExamWriter",
    "Gallery",
    "LevelsToFlip",
    "PatientAUC",
    "PatientFiles",
    "ScoreWriter",
    "StoredBudget",
    "StoredExam",
    "StoredView",
    "StrongTest",
    "ViewFile",
    "dicom_attack_report",
    "effort_named",
    "pool_patients",
    "pool_views",
    "require_extras",
    "saliency",
    "smoothing_samples",
]
