"""Sections of the report: each module turns files of a run directory into one or a few entries of report.json."""
