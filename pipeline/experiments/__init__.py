"""Experiments: methods over cross-validation folds, their tables, figures and what they say of the paper's claims."""
