"""The audit of a cohort, a part each: leaks, contradictions, pictures that repeat, shortcuts, and what is printed."""
