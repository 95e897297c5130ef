"""Report: one self-contained page and its JSON twin, made from the files of a run directory."""

from pipeline.report.build import build_report
from pipeline.report.errors import ReportError
from pipeline.report.sections.scores import Settings
from pipeline.report.write import write_report

__all__ = ["ReportError", "Settings", "build_report", "write_report"]
