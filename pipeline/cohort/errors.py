"""The errors of the cohort room: each says what is wrong, where, what is allowed and what to do next."""


class CohortError(ValueError):
    """The cohort cannot be studied as asked (bad split, too few patients, raw ids, unknown setting)."""
