"""Attacks on what a defence adds: its features, its branches, its pooling, its randomness; and transfer."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from pipeline.attacks import (
    APGD,
    EOT,
    PGD,
    BestPGD,
    Count,
    Expectation,
    FeatureAttack,
    Through,
    Transfer,
    WithLayers,
    WorstOf,
    margin,
)
from pipeline.methods.robust_feature import robust_feature_rows
from pipeline.networks import AUXILIARY, MAIN, DomainView, vgg16, vgg16_domain
from pipeline.networks.vgg import DropMaxPool
from tests.attacks.small import LABELS, Linear, convolutional, images

SMALL = {"weights": "none", "width": 0.0625, "head": "compact", "seed": 0}


def margins(network: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
    modes = [module.training for module in network.modules()]
    network.eval()
    with torch.no_grad():
        result = margin(network(x)[:, 0], labels)
    for module, mode in zip(network.modules(), modes, strict=True):
        module.training = mode
    return result


def victims(count: int = 6) -> tuple[Tensor, Tensor]:
    return images(count, low=0.2, high=0.8, size=(32, 32)), (torch.arange(count) % 2).float()


def test_the_feature_attack_raises_the_robust_feature_loss_that_arfl_lowers():
    network, (x, y) = vgg16(**SMALL), victims()
    maps: list[Tensor] = []
    network.get_submodule("features.28").register_forward_hook(lambda *given: maps.append(given[2].detach()))

    def loss(candidates: Tensor) -> Tensor:
        maps.clear()
        margins(network, candidates, y)
        return robust_feature_rows(10 * maps[0], y)

    def term(features: Tensor, labels: Tensor) -> Tensor:
        return robust_feature_rows(10 * features, labels)

    inner = PGD(budget=0.05, steps=10)
    plain = inner(network, x, y, seed=0)
    adaptive = FeatureAttack(inner, layer="features.28", term=term, weight=1000.0)(network, x, y, seed=0)
    assert (loss(adaptive) > loss(plain)).all() and (loss(adaptive) > loss(x)).all()


def test_a_feature_term_of_weight_zero_is_the_plain_attack_and_the_margin_decides():
    network, (x, y) = vgg16(**SMALL), victims()
    inner = APGD(budget=0.03, steps=8)
    plain = inner(network, x, y, seed=0)
    same = FeatureAttack(inner, layer="features.28", term=robust_feature_rows, weight=0.0)(network, x, y, seed=0)
    assert torch.equal(plain, same)
    # Led astray by its objective, it still returns no iterate of a smaller margin than the image's.
    astray = FeatureAttack(inner, layer="features.28", term=lambda f, t: f.mean((1, 2, 3)), weight=1e6)
    assert (margins(network, astray(network, x, y, seed=0), y) >= margins(network, x, y) - 1e-6).all()


def test_a_layer_outside_the_forward_is_refused():
    network = convolutional()
    network.unused = nn.Conv2d(1, 1, 1)
    network.forward = lambda v: nn.Sequential(*list(network)[:9])(v)
    attack = FeatureAttack(PGD(budget=0.1), layer="unused", term=lambda f, t: f.mean((1, 2, 3)))
    with pytest.raises(ValueError, match="gave no map"):
        attack(network, images(size=(16, 16)), LABELS, seed=0)


@pytest.fixture
def domains() -> nn.Module:
    """Two branches that differ."""
    network = vgg16_domain(**{key: value for key, value in SMALL.items()})
    random = torch.Generator().manual_seed(5)
    for norm in network.norms.values():
        norm.auxiliary.weight.data.mul_(1 + 0.3 * torch.rand(norm.auxiliary.weight.shape, generator=random))
        norm.auxiliary.bias.data.add_(0.02 * torch.randn(norm.auxiliary.bias.shape, generator=random))
    return network.eval()


@pytest.mark.parametrize("tested", [MAIN, AUXILIARY])
def test_branches_are_attacked_straight_and_through_each_other_and_the_worse_is_kept(domains, tested):
    x, y = victims()
    inner = BestPGD(budget=0.02, steps=6)
    network = DomainView(domains, tested)
    other = MAIN if tested == AUXILIARY else AUXILIARY
    through = Through(inner, view=lambda view: DomainView(view.network, other), name="through-other")
    straight, crossed = inner(network, x, y, seed=0), through(network, x, y, seed=0)
    # The branch decides: what is made through the other one is what an attack on that branch makes.
    assert torch.equal(crossed, inner(DomainView(domains, other), x, y, seed=0))
    assert not torch.equal(crossed, straight)
    worst = WorstOf([inner, through])(network, x, y, seed=0)
    expected = torch.maximum(margins(network, straight, y), margins(network, crossed, y))
    torch.testing.assert_close(margins(network, worst, y), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("width", [0.0625, 0.5])  # the second is wide enough for the engine
def test_drop_max_is_attacked_through_plain_maxima_with_its_own_weights(width):
    network = vgg16(**(SMALL | {"width": width}), drop_max=True).eval()
    plain = vgg16(**(SMALL | {"width": width})).eval()
    plain.load_state_dict(network.state_dict())
    x, y = victims(3)
    x.add_(0.001 * torch.rand(x.shape, generator=torch.Generator().manual_seed(9)))  # no two neighbours are equal
    view = WithLayers(DropMaxPool, lambda _: nn.MaxPool2d(2, 2))
    with torch.no_grad():
        torch.testing.assert_close(view(network)(x), plain(x))
        before = network(x)
    inner = PGD(budget=0.02, steps=4)
    through = Through(inner, view=view, name="through-max")
    found = through(network, x, y, seed=0)
    torch.testing.assert_close(found, inner(plain, x, y, seed=0), rtol=0, atol=1e-6)
    assert any(isinstance(module, DropMaxPool) for module in network.modules())
    with torch.no_grad():
        torch.testing.assert_close(network(x), before, rtol=0, atol=0)
    worst = WorstOf([inner, through], name="drop-max")(network, x, y, seed=0)
    straight = inner(network, x, y, seed=0)
    assert (margins(network, worst, y) >= margins(network, straight, y) - 1e-5).all()
    with pytest.raises(ValueError, match="has no DropMaxPool"):
        through(plain, x, y, seed=0)


def test_a_view_shares_parameters_and_leaves_the_network_alone():
    network = convolutional()
    view = WithLayers(nn.ReLU, lambda _: nn.Softplus())(network)
    assert [id(p) for p in view.parameters()] == [id(p) for p in network.parameters()]
    assert sum(isinstance(module, nn.ReLU) for module in network.modules()) == 3
    assert not any(isinstance(module, nn.ReLU) for module in view.modules())


def test_transfer_returns_the_surrogates_images_and_never_asks_the_victim():
    victim, surrogate = Count(convolutional(3)), convolutional(4)
    inner = BestPGD(budget=0.05, steps=5)
    x, y = images(size=(16, 16)), LABELS
    transfer = Transfer(inner, surrogate=surrogate)
    assert torch.equal(transfer(victim, x, y, seed=0), inner(surrogate, x, y, seed=0))
    assert victim.forward_images == 0
    assert transfer.attack_id == "transfer-best-pgd-5@0.05" and transfer.passes == (0, 0)


class Noisy(nn.Module):
    """A defence that multiplies the score's weights by noise in every forward, in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = Linear()

    def forward(self, x: Tensor) -> Tensor:
        noise = 1 + 4 * torch.randn(1, *x.shape[2:])
        return (x * self.linear.weights * noise).sum(dim=(1, 2, 3))[:, None]


def test_the_expectation_has_the_mean_value_and_the_mean_gradient():
    x = images(low=0.4, high=0.6).requires_grad_(True)
    torch.manual_seed(0)
    expected = Expectation(Noisy(), draws=5)(x)
    (gradient,) = torch.autograd.grad(expected.sum(), x)
    torch.manual_seed(0)
    single = [Noisy()(x)[:, 0] for _ in range(5)]
    torch.testing.assert_close(expected, torch.stack(single).mean(0))
    (mean,) = torch.autograd.grad(torch.stack(single).mean(0).sum(), x)
    torch.testing.assert_close(gradient, mean)


def test_expectation_finds_the_signs_that_single_forwards_hide():
    x, network = images(low=0.4, high=0.6), Noisy()
    truth = ((1 - 2 * LABELS).reshape(-1, 1, 1, 1) * network.linear.weights.sign()).detach()

    def right(attack) -> float:
        return ((attack(network, x, LABELS, seed=0) - x).sign() == truth).float().mean().item()

    inner = PGD(budget=0.05, steps=1, random_start=False)
    assert right(EOT(inner, draws=200)) > 0.95 > 0.8 > right(inner)


def test_eot_is_reproducible_and_leaves_the_global_random_state_alone():
    x, attack = images(low=0.4, high=0.6), EOT(PGD(budget=0.05, steps=2), draws=3)
    first = attack(Noisy(), x, LABELS, seed=4)
    before = torch.get_rng_state()
    torch.rand(5)
    state = torch.get_rng_state()
    assert torch.equal(first, attack(Noisy(), x, LABELS, seed=4)) and not torch.equal(before, state)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_worst_of_two_attacks_is_each_images_worse_one():
    network, x, y = convolutional(), images(12, size=(16, 16)), torch.arange(12) % 2
    attacks = [Transfer(BestPGD(budget=0.1, steps=5), surrogate=convolutional(seed)) for seed in (4, 5)]
    each = torch.stack([margins(network, attack(network, x, y, seed=0), y) for attack in attacks])
    assert each.argmax(0).unique().numel() == 2, "both are worse somewhere"
    worst = WorstOf(attacks)
    torch.testing.assert_close(margins(network, worst(network, x, y, seed=0), y), each.amax(0))
    assert worst.attack_id == "worst-of-2@0.1"


def test_a_copy_of_a_network_behind_a_wrapper_is_attacked_alike():
    network = convolutional()
    wrapped = nn.DataParallel(copy.deepcopy(network))
    x = images(size=(16, 16))
    for attack in (BestPGD(budget=0.05, steps=3), EOT(PGD(budget=0.05, steps=2), draws=2)):
        torch.testing.assert_close(attack(wrapped, x, LABELS, seed=0), attack(network, x, LABELS, seed=0))
