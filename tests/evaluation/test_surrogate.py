"""The surrogate: trained anew from another seed, and the network under test is left alone."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.evaluation import surrogate
from pipeline.evaluation.surrogate import load_surrogate, train_surrogate
from pipeline.networks import vgg16

PICTURES = {f"i{number}": torch.full((1, 32, 32), 0.3 + 0.4 * (number % 2)) for number in range(16)}
ITEMS = [{"image": name, "label": np.float32([int(name[1:]) % 2])} for name in PICTURES]


@pytest.fixture(autouse=True)
def pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    class Load:
        def __init__(self, keys: str) -> None:
            self.keys = keys

        def __call__(self, row: dict) -> dict:
            return row | {"image": PICTURES[row["image"]]}

    monkeypatch.setattr(surrogate, "LoadPreparedd", Load)


def network(**settings: object) -> torch.nn.Module:
    return vgg16(weights="none", width=0.0625, head="compact", seed=0, **settings)


def test_it_learns_from_another_start_and_leaves_the_network_alone() -> None:
    original = network(trainable="all")
    before = {name: value.clone() for name, value in original.state_dict().items()}
    torch.manual_seed(5)
    state = torch.get_rng_state()
    other = train_surrogate(original, ITEMS, epochs=20, batch_size=8, learning_rate=3e-3, progress=False).network
    assert torch.equal(torch.get_rng_state(), state), "the global random state is nobody else's business"
    assert all(torch.equal(value, before[name]) for name, value in original.state_dict().items())
    with torch.no_grad():
        logits = other(torch.stack(list(PICTURES.values())))[:, 0]
    assert (logits[1::2] > logits[::2].max()).all(), "bright ones are malignant"
    again = train_surrogate(original, ITEMS, epochs=20, batch_size=8, learning_rate=3e-3, progress=False).network
    assert all(torch.equal(a, b) for a, b in zip(other.parameters(), again.parameters(), strict=True))


def test_frozen_layers_are_shared_and_trained_ones_begin_anew() -> None:
    original = network(trainable=("features.28", "classifier"))
    other = train_surrogate(original, ITEMS, epochs=1, batch_size=8, progress=False).network
    frozen = dict(original.named_parameters())
    for name, parameter in other.named_parameters():
        assert parameter.requires_grad == frozen[name].requires_grad
        assert torch.equal(parameter, frozen[name]) != parameter.requires_grad or parameter.numel() < 8, name


def test_another_runs_checkpoint_is_the_network_that_it_holds(tmp_path: Path) -> None:
    original = network(trainable="all")
    content = {"network": original.state_dict(), "model": {"network": original.settings}}
    loaded = load_surrogate(content, name="other", device=torch.device("cpu"))
    images = torch.stack(list(PICTURES.values()))
    with torch.no_grad():
        original.eval()
        assert torch.equal(loaded.network(images), original(images))
    assert "other" in loaded.origin
