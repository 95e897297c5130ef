"""Robust mammogram classification: from DICOM mammograms to a report about patients."""

from pathlib import Path

__version__ = "0.1.0"


def bundle_file(name: str) -> Path:
    """Path of a file of the bundle `arfl`, which stands beside this package in the source tree.

    Raises:
        FileNotFoundError: the package was installed without its source tree.
    """
    path = Path(__file__).resolve().parents[1] / "bundles" / "arfl" / name
    if not path.is_file():
        raise FileNotFoundError(
            f"the bundle's {name} is not at {path}: install from a clone with `pip install -e .`, or name the file "
            "with --config"
        )
    return path
