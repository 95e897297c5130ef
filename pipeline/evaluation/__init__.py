"""Evaluation: what needs a network - scores under attack, the patient metric, saliency, prediction."""

from pipeline.evaluation.exam import Exam, ExamError, ExamWriter
from pipeline.evaluation.gallery import Gallery
from pipeline.evaluation.metric import PatientAUC, ScoreWriter
from pipeline.evaluation.saliency import saliency
from pipeline.statistics import pool_patients

__all__ = ["Exam", "ExamError", "ExamWriter", "Gallery", "PatientAUC", "ScoreWriter", "pool_patients", "saliency"]
