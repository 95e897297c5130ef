"""Margins of images under each attack, side by side, and what can be said of their means when images share patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import t

from pipeline.statistics.arrays import Floats
from pipeline.statistics.robustness import CLEAN, text_or_none

REQUIRED = ("image_id", "patient_id", "patient_label", "attack_id", "norm", "budget", "logit")


@dataclass(frozen=True)
class Interval:
    """A mean or a ratio of means with its two-sided interval, and the patients behind it."""

    value: float
    lower: float
    upper: float
    patients: int


@dataclass(frozen=True)
class Margins:
    """Margins (1 - 2 y) z: positive means the wrong side, and an attack is stronger the larger they are.

    Attributes:
        table: One row per image and one column per attack; NaN where the image was not attacked so.
        labels: 0 or 1 of each image's patient.
        patients: The patient of each image.
        place: (norm, budget) of each attack.
    """

    table: pd.DataFrame
    labels: pd.Series
    patients: pd.Series
    place: dict[str, tuple[str, float]]

    @classmethod
    def of(cls, scores: pd.DataFrame) -> Margins:
        """Margins of rows of scores.csv, one partition and fold.

        Raises:
            ValueError: a missing column, an image that stands twice under one attack, labels that are not 0 or 1, or
                logits that are not finite.
        """
        missing = [name for name in REQUIRED if name not in scores.columns]
        if missing:
            raise ValueError(f"the table of scores lacks {', '.join(missing)}; it needs {', '.join(REQUIRED)}")
        twice = scores.duplicated(["image_id", "attack_id"])
        if twice.any():
            raise ValueError(
                f"image {scores.loc[twice, 'image_id'].iloc[0]} stands twice under one attack; "
                "pass one partition and one fold"
            )
        if not scores["patient_label"].isin([0, 1]).all():
            raise ValueError("patient_label holds other values than 0 and 1; drop patients of unknown label first")
        if not np.isfinite(scores["logit"].to_numpy(dtype=np.float64)).all():
            raise ValueError("a logit is NaN or infinite; score these images again")
        images = scores.drop_duplicates("image_id").set_index("image_id").sort_index()
        logits = scores.pivot(index="image_id", columns="attack_id", values="logit").sort_index().astype(np.float64)
        attacks = scores.drop_duplicates("attack_id")
        place = {
            str(row["attack_id"]): (text_or_none(row["norm"]) or "", float(row["budget"]))
            for row in attacks.to_dict("records")
            if row["attack_id"] != CLEAN
        }
        labels = images["patient_label"].astype(int)
        return cls(logits.mul(1 - 2 * labels, axis=0), labels, images["patient_id"], place)

    def known(self, names: Sequence[str]) -> list[str]:
        """Those of the attacks that images were scored under."""
        return [name for name in names if name in self.place]

    def common(self, names: Sequence[str]) -> pd.DataFrame:
        """Margins of the images that were scored clean and under all of the attacks; may be empty."""
        if CLEAN not in self.table.columns:
            return self.table.reindex(columns=list(dict.fromkeys([CLEAN, *names]))).iloc[:0]
        return self.table[list(dict.fromkeys([CLEAN, *names]))].dropna()

    def gain(self, name: str) -> float:
        """Mean rise of the margin from clean over the images scored under the attack; -inf where there are none."""
        rows = self.common([name])
        return float((rows[name] - rows[CLEAN]).mean()) if len(rows) else -np.inf

    def strongest(self, names: Sequence[str]) -> str:
        """The attack with the largest mean rise of the margin."""
        return max(names, key=lambda name: (self.gain(name), name))

    def ratio(self, above: pd.Series, below: pd.Series | None, *, confidence: float) -> Interval:
        """Mean of ``above`` over the mean of ``below`` (or 1), with an interval that knows the patients.

        Linearised variance of a ratio with patients as clusters (Cochran 1977, Sampling Techniques, section 6.6), and
        Student's t with patients - 1 degrees of freedom. With one patient the bounds are infinite.

        Args:
            above: Numbers of images, indexed by image_id, at least one.
            below: Numbers of the same images whose mean is not 0, or None for 1.
            confidence: Coverage aimed at, in (0, 1).
        """
        bottom = np.ones(len(above)) if below is None else below.to_numpy(dtype=np.float64)
        top: Floats = above.to_numpy(dtype=np.float64)
        value = float(top.sum() / bottom.sum())
        rest = pd.Series((top - value * bottom) / bottom.sum()).groupby(self.patients[above.index].to_numpy()).sum()
        count = len(rest)
        if count < 2:
            return Interval(value, -np.inf, np.inf, count)
        error = float(np.sqrt(count / (count - 1) * (rest**2).sum()))
        half = float(t.ppf(0.5 + confidence / 2.0, count - 1)) * error
        return Interval(value, value - half, value + half, count)
