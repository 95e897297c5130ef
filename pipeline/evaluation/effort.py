"""How much a strong test costs: the sizes of attacks and samples, quick for two cores, full for a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace


@dataclass(frozen=True)
class Effort:
    """Sizes of the strong test.

    Attributes:
        patients: test patients, half malignant where there are enough; 0 leaves the strong test out.
        starts: of PGD with restarts.
        apgd_steps: steps of APGD.
        universal_steps: passes over the patients of the universal perturbation.
        square_queries: queries of Square.
        spsa_steps: steps of SPSA.
        spsa_samples: directions of one step of SPSA.
        noise_draws: draws of random noise.
        distance_steps: steps of the search for the nearest image on the other side.
        smoothing_draws: noisy copies of an exam for its certificate.
        dicom_patients: patients whose original files are attacked.
    """

    patients: int
    starts: int
    apgd_steps: int
    universal_steps: int
    square_queries: int
    spsa_steps: int
    spsa_samples: int
    noise_draws: int
    distance_steps: int
    smoothing_draws: int
    dicom_patients: int


EFFORTS = {
    "none": Effort(0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0),
    "demo": Effort(12, 3, 20, 10, 100, 5, 16, 10, 30, 100, 2),
    "quick": Effort(24, 5, 50, 20, 200, 10, 16, 10, 50, 200, 4),
    "full": Effort(10_000, 5, 100, 50, 5000, 100, 128, 10, 200, 2000, 100),
}
"""Names for configurations: "demo" is the size of the demo, "quick" for two cores, "full" for a GPU."""


def effort(wanted: str | Effort | Mapping[str, int]) -> Effort:
    """Look an effort up by name, or make one of sizes.

    Args:
        wanted: a name, or sizes by name: `{"name": "quick", "patients": 40}` is "quick" with 40 patients.

    Raises:
        ValueError: unknown name or size.
    """
    if isinstance(wanted, Effort):
        return wanted
    if isinstance(wanted, str):
        if wanted not in EFFORTS:
            raise ValueError(f"effort {wanted!r} is unknown; allowed are {', '.join(EFFORTS)}")
        return EFFORTS[wanted]
    sizes = dict(wanted)
    base = effort(str(sizes.pop("name", "quick")))
    known = [field.name for field in fields(Effort)]
    strange = sorted(set(sizes) - set(known))
    if strange or not all(type(size) is int and size >= 0 for size in sizes.values()):
        raise ValueError(f"effort {dict(wanted)!r}: allowed are 'name' and whole numbers under {', '.join(known)}")
    return replace(base, **sizes)
