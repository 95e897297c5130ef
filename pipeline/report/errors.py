"""Errors of the report."""


class ReportError(ValueError):
    """A report cannot be made from a run directory; the message says what is wrong, where, and what to do."""
