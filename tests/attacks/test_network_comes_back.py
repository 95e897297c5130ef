"""An attack leaves nothing behind in a network: buffers, modes, flags, gradients, hooks' records."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pipeline.attacks import PGD, attack_mode
from pipeline.networks import FeatureTap


class Mixed(nn.Module):
    """BatchNorm, dropout, a frozen layer in eval mode: what a blanket `train()` would disturb."""

    def __init__(self, *, fails: bool = False) -> None:
        super().__init__()
        self.frozen = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))
        self.trained = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(4, 1)
        self.frozen.requires_grad_(False)
        self.head.bias.requires_grad_(False)
        self.fails, self.seen = fails, []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(([m.training for m in self.modules()], [p.requires_grad for p in self.parameters()]))
        if self.fails and len(self.seen) == 2:
            raise RuntimeError("out of memory, say")
        return self.head(self.trained(self.frozen(x)).mean((2, 3)))


def prepared(*, fails: bool = False, gradients: bool = False) -> Mixed:
    torch.manual_seed(0)
    network = Mixed(fails=fails).train()
    network.frozen.eval()
    network.trained[3].eval()
    if gradients:  # those of an accumulation step that is under way
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.ones_like(parameter)
    return network


def state(network: nn.Module) -> tuple:
    return (
        {name: value.clone() for name, value in network.state_dict().items()},
        {name: module.training for name, module in network.named_modules()},
        {name: (p.requires_grad, None if p.grad is None else p.grad.clone()) for name, p in network.named_parameters()},
    )


def assert_same(network: nn.Module, before: tuple) -> None:
    tensors, modes, flags = state(network)
    assert modes == before[1]
    assert all(torch.equal(tensors[name], value) for name, value in before[0].items())
    for name, (flag, grad) in before[2].items():
        assert flags[name][0] == flag, name
        assert (flags[name][1] is None) if grad is None else torch.equal(flags[name][1], grad), name


IMAGES, LABELS = torch.rand(3, 1, 9, 9, generator=torch.Generator().manual_seed(0)), torch.tensor([0.0, 1.0, 1.0])


@pytest.mark.parametrize("gradients", [False, True], ids=["no .grad", "live .grad"])
def test_nothing_of_the_network_changes(gradients: bool) -> None:
    network = prepared(gradients=gradients)
    before = state(network)
    found = PGD(budget=0.1)(network, IMAGES, LABELS, seed=0)
    assert_same(network, before)
    assert (found - IMAGES).abs().max() > 0.09, "the attack did something"


def test_inside_every_module_is_in_eval_mode_without_parameter_gradients() -> None:
    network = prepared()
    PGD(budget=0.1, steps=2)(network, IMAGES, LABELS, seed=0)
    for modes, flags in network.seen:
        assert not any(modes) and not any(flags)


def test_the_network_comes_back_when_it_raises_inside() -> None:
    network = prepared(fails=True)
    before = state(network)
    with pytest.raises(RuntimeError, match="out of memory"):
        PGD(budget=0.1)(network, IMAGES, LABELS, seed=0)
    assert_same(network, before)
    assert len(network.seen) == 2, "it had begun"


def test_a_wrapper_is_stepped_around_and_its_own_mode_kept() -> None:
    network = prepared()
    wrapper = nn.DataParallel(network)
    wrapper.training = True
    before = state(network)
    with attack_mode(wrapper) as module:
        assert module is network and not network.training
    assert_same(network, before)
    assert wrapper.training


def test_attacks_work_under_no_grad() -> None:
    network = prepared()
    with torch.no_grad():
        inside = PGD(budget=0.1)(network, IMAGES, LABELS, seed=0)
    assert torch.equal(inside, PGD(budget=0.1)(network, IMAGES, LABELS, seed=0))


def test_a_tap_records_nothing_in_an_attack() -> None:
    network = prepared()
    tap = FeatureTap(network, "trained.0")
    PGD(budget=0.1)(network, IMAGES, LABELS, seed=0)
    with pytest.raises(RuntimeError, match="holds no feature map"):
        tap.take()
    network(IMAGES)
    kept = tap._features
    PGD(budget=0.1)(network, IMAGES, LABELS, seed=0)
    assert tap.take() is kept, "the map of the training forward outlives an attack"
