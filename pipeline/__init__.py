"""Robust mammogram classification: from DICOM mammograms to a report about patients."""

__version__ = "0.1.0"
