"""The engine takes as many threads as PyTorch was given, and leaves that number alone."""

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
CODE = """
import torch
from pipeline.networks import vgg16
network = vgg16(weights="none", width=0.5, head="compact").requires_grad_(False).eval()
before = torch.get_num_threads()
network(torch.rand(1, 1, 64, 64, requires_grad=True)).sum().backward()
print(before, torch.get_num_threads())
"""


def test_a_pass_of_the_engine_leaves_the_number_of_threads() -> None:
    """Numba's pool would set it to the number of processors: on a node that jobs share, every job would take all."""
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_NUM_THREADS"}
    environment |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CODE], env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["1", "1"]
