"""How much a strong test costs: the sizes of attacks and samples, quick for two cores, full for a GPU."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """Sizes of the strong test.

    Attributes:
        patients: test patients, half malignant where there are enough; 0 leaves the strong test out.
        iterations: steps of the long PGD, ten times the seven of the paper.
        starts: of PGD with restarts.
        apgd_steps: steps of APGD.
        square_queries: queries of Square.
        spsa_steps: steps of SPSA.
        spsa_samples: directions of one step of SPSA.
        noise_draws: draws of random noise.
        distance_steps: steps of the search for the nearest image on the other side.
        smoothing_draws: noisy copies of an exam for its certificate.
        dicom_patients: patients whose original files are attacked.
    """

    patients: int
    iterations: int
    starts: int
    apgd_steps: int
    square_queries: int
    spsa_steps: int
    spsa_samples: int
    noise_draws: int
    distance_steps: int
    smoothing_draws: int
    dicom_patients: int


EFFORTS = {
    "none": Effort(0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0),
    "demo": Effort(12, 70, 3, 20, 200, 10, 16, 10, 30, 100, 4),
    "quick": Effort(24, 70, 5, 100, 200, 20, 32, 10, 100, 200, 4),
    "full": Effort(10_000, 70, 5, 100, 5000, 100, 128, 10, 200, 2000, 100),
}
"""Names for configurations: "demo" is the size of the demo, "quick" for two cores, "full" for a GPU."""


def effort(name: str) -> Effort:
    """Look an effort up by name.

    Raises:
        ValueError: unknown name.
    """
    if name not in EFFORTS:
        raise ValueError(f"effort {name!r} is unknown; allowed are {', '.join(EFFORTS)}")
    return EFFORTS[name]
