"""Eq. 2 to 5 through a real SupervisedTrainer against loops written by hand: every loss, and the weights after."""

from __future__ import annotations

import copy

import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from pipeline.attacks import PGD
from pipeline.methods import ARFL, AdversarialTraining

EPS, STEPS, RATE, EPOCHS = 0.05, 3, 0.1, 2


class Network(nn.Module):
    """Smooth and small; `last` is the last convolution."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first, self.last, self.head = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 6, 3), nn.Linear(6, 1)

    def features(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(3 * self.first(x)))

    def classify(self, f: Tensor) -> Tensor:
        return self.head(torch.tanh(f).mean((2, 3)))

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.features(x))


def batches() -> list[dict]:
    generator = torch.Generator().manual_seed(4)
    labels = torch.tensor([[0.0], [1.0], [1.0]])
    return [{"image": torch.rand(3, 1, 8, 8, generator=generator), "label": labels} for _ in range(2)]


def attack_by_hand(network: Network, x: Tensor, y: Tensor) -> Tensor:
    """Madry's PGD on cross-entropy, from the image."""
    moved = x.clone()
    for _ in range(STEPS):
        moved = moved.clone().requires_grad_(True)
        gradient = torch.autograd.grad(cross_entropy(network(moved), y, reduction="sum"), moved)[0]
        with torch.no_grad():
            moved = moved + 2.5 * EPS / STEPS * gradient.sign()
            moved = torch.minimum(torch.maximum(moved, x - EPS), x + EPS).clamp(0, 1)
    return moved.detach()


def overall_by_hand(network: Network, x: Tensor, y: Tensor, weight: float, *, scale: float = 1.0, relu=False) -> Tensor:
    """Eq. 2 on one group of rows."""
    f = network.features(x)
    shown = (f / scale).clamp_min(0) if relu else f / scale
    robust = -(1 / (1 + torch.exp(-shown.abs()))).mean()
    return cross_entropy(network.classify(f), y) + weight * robust


def train_by_hand(r: float, weight: float, **settings) -> tuple[list[float], Network]:
    network = Network()
    optimizer = torch.optim.SGD(network.parameters(), RATE)
    losses = []
    for _ in range(EPOCHS):
        for batch in batches():
            x, y = batch["image"], batch["label"]
            attacked = attack_by_hand(network, x, y)
            loss = r * overall_by_hand(network, x, y, weight, **settings)
            loss = loss + (1 - r) * overall_by_hand(network, attacked, y, weight, **settings)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    return losses, network


def train(handlers_of, *, data=None, **settings) -> tuple[list[float], Network, SupervisedTrainer]:
    network, losses = Network(), []
    trainer = SupervisedTrainer(
        device="cpu",
        max_epochs=EPOCHS,
        train_data_loader=batches() if data is None else data,
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), RATE),
        loss_function=nn.BCEWithLogitsLoss(),
        train_handlers=handlers_of(network),
        decollate=False,
        **settings,
    )
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda e: losses.append(float(e.state.output["loss"].detach()))
    )
    trainer.run()
    return losses, network, trainer


def method(network: Network, r: float) -> AdversarialTraining:
    return AdversarialTraining(network, standard_ratio=r, attack=PGD(budget=EPS, steps=STEPS, random_start=False))


def assert_same_training(ours: tuple, by_hand: tuple) -> None:
    assert ours[0] == pytest.approx(by_hand[0], abs=1e-5)
    assert len(set(by_hand[0])) == EPOCHS * 2
    for name, value in by_hand[1].state_dict().items():
        torch.testing.assert_close(ours[1].state_dict()[name], value, rtol=1e-4, atol=1e-5, msg=name)
        assert not torch.equal(value, Network().state_dict()[name]), f"{name} was trained"


@pytest.mark.parametrize("r", [0, 0.25, 0.5, 0.75, 1])
def test_equation_4_against_a_loop_by_hand(r: float) -> None:
    assert_same_training(train(lambda network: [method(network, r)]), train_by_hand(r, 0.0))


@pytest.mark.parametrize("r", [0, 0.25, 0.5, 0.75, 1])
def test_equation_5_against_a_loop_by_hand(r: float) -> None:
    ours = train(lambda network: [method(network, r), ARFL(network, layer="last", weight=10.0)])
    assert_same_training(ours, train_by_hand(r, 10.0))
    # lambda matters at this tolerance, so a forgotten weight would show
    assert max(abs(a - b) for a, b in zip(ours[0], train_by_hand(r, 9.99)[0], strict=True)) > 1e-3


def test_the_ratios_differ_by_more_than_the_tolerance() -> None:
    first = [train_by_hand(r, 10.0)[0][0] for r in (0, 0.25, 0.5, 0.75, 1)]
    assert min(a - b for a, b in zip(first, first[1:], strict=False)) > 1e-3


def test_equation_2_with_arfl_alone_on_a_plain_trainer() -> None:
    assert_same_training(train(lambda n: [ARFL(n, layer="last", weight=10.0)]), train_by_hand(1, 10.0))


def test_arfl_alone_takes_batches_of_pairs_too() -> None:
    pairs = [(batch["image"], batch["label"]) for batch in batches()]
    ours = train(lambda n: [ARFL(n, layer="last", weight=10.0)], data=pairs)
    assert_same_training(ours, train_by_hand(1, 10.0))


def test_map_after_the_relu_on_request() -> None:
    ours = train(lambda n: [method(n, 0.5), ARFL(n, layer="last", weight=10.0, after_relu=True)])
    assert_same_training(ours, train_by_hand(0.5, 10.0, relu=True))


def test_a_number_as_feature_scale_divides_the_map() -> None:
    ours = train(lambda n: [method(n, 0.5), ARFL(n, layer="last", weight=10.0, feature_scale=0.25)])
    assert_same_training(ours, train_by_hand(0.5, 10.0, scale=0.25))


def test_auto_scale_is_the_deviation_on_the_first_batch_measured_once() -> None:
    terms: list[ARFL] = []

    def handlers(network: Network) -> list:
        terms.append(ARFL(network, layer="last", feature_scale="auto"))
        return [method(network, 1), terms[0]]

    ours = train(handlers)
    with torch.no_grad():
        deviation = float(Network().features(batches()[0]["image"]).numpy().std(ddof=1))
    assert terms[0].scale == pytest.approx(deviation, rel=1e-5)
    assert_same_training(ours, train_by_hand(1, 10.0, scale=deviation))
    fresh = ARFL(Network(), layer="last", feature_scale="auto")
    fresh.load_state_dict(terms[0].state_dict())
    assert fresh.scale == terms[0].scale


def test_the_gradient_is_that_of_the_loss_under_accumulation_too() -> None:
    # Two iterations a step: the attack of the second runs while .grad is live, and must leave it.
    ours = train(lambda n: [method(n, 0.5), ARFL(n, layer="last", weight=10.0)], accumulation_steps=2)
    network = Network()
    optimizer = torch.optim.SGD(network.parameters(), RATE)
    for _ in range(EPOCHS):
        optimizer.zero_grad()
        for batch in batches():
            x, y = batch["image"], batch["label"]
            loss = overall_by_hand(network, x, y, 10.0) / 2
            loss = loss + overall_by_hand(network, attack_by_hand(network, x, y), y, 10.0) / 2
            (loss / 2).backward()
        optimizer.step()
    for name, value in network.state_dict().items():
        torch.testing.assert_close(ours[1].state_dict()[name], value, rtol=1e-4, atol=1e-5)


def test_the_epochs_log_holds_losses_shares_and_attack_success() -> None:
    _, _, trainer = train(lambda n: [method(n, 0.5), ARFL(n, layer="last", weight=10.0)])
    shown = trainer.state.metrics
    losses = train_by_hand(0.5, 10.0)[0][-2:]
    mean = shown["classification_loss"] + 10 * shown["robust_loss"]
    assert mean == pytest.approx(sum(losses) / 2, abs=1e-5)
    assert shown["share_positive"] + shown["share_negative"] == pytest.approx(1, abs=1e-6)
    assert {"share_saturated", "share_dead", "attack_success", "seconds_attack"} <= shown.keys()
    assert shown["seconds_attack"] > 0


@pytest.mark.parametrize(("r", "expected"), [(0.5, 1 / 2), (0, 2 / 3)])
def test_attack_success_counts_right_images_that_turn_wrong(r: float, expected: float) -> None:
    """Safely right, easily turned, wrong from the start: one of the two right ones turns; two of three end wrong."""

    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.tensor(-0.5))

        def forward(self, x: Tensor) -> Tensor:
            return x.mean((1, 2, 3))[:, None] + self.bias

    images = torch.tensor([0.9, 0.52, 0.3]).reshape(3, 1, 1, 1).expand(3, 1, 2, 2).contiguous()
    network = Mean()
    trainer = SupervisedTrainer(
        device="cpu", max_epochs=1, train_data_loader=[{"image": images, "label": torch.ones(3, 1)}], network=network,
        optimizer=torch.optim.SGD(network.parameters(), 0.0), loss_function=nn.BCEWithLogitsLoss(), decollate=False,
        train_handlers=[AdversarialTraining(network, standard_ratio=r, attack=PGD(budget=0.05))],
    )  # fmt: skip
    trainer.run()
    assert trainer.state.metrics["attack_success"] == pytest.approx(expected)


def test_objective_is_pure() -> None:
    network = Network()
    handler = AdversarialTraining(network, standard_ratio=0.25, attack=PGD(budget=EPS), loss_function=cross_entropy)
    batch = handler.expand(batches()[0])
    logits = torch.tensor([[0.5], [-1.0], [2.0], [1.5], [-2.0], [0.0]])
    kept = copy.deepcopy(batch)
    y = batches()[0]["label"]
    expected = 0.25 * cross_entropy(logits[:3], y) + 0.75 * cross_entropy(logits[3:], y)
    for _ in range(2):
        assert float(handler.objective(logits, batch)) == pytest.approx(float(expected))
    assert all(torch.equal(batch[key], kept[key]) for key in kept) and batch.keys() == kept.keys()


def test_clean_rows_are_kept_and_attacked_rows_lie_in_the_budget() -> None:
    batch = batches()[0]
    for r, clean in ((0.5, 3), (0, 0)):
        grown = method(Network(), r).expand(dict(batch))
        flags = grown["adversarial"]
        assert (~flags).sum() == clean and flags.sum() == 3
        assert torch.equal(grown["image"][~flags], batch["image"][:clean])
        change = (grown["image"][flags] - batch["image"]).abs()
        assert 0.9 * EPS < change.max() <= EPS + 1e-6
    assert method(Network(), 1).expand(batch) is batch


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"standard_ratio": 1.5}, "standard_ratio is 1.5; allowed are 0"),
        ({"standard_ratio": 0.5, "attack": None}, "needs an attack; give one, or standard_ratio=1"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AdversarialTraining(Network(), **{"attack": PGD(budget=EPS)} | settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight": -1}, "weight is -1; allowed are numbers from 0 on"),
        ({"feature_scale": 0}, "feature_scale is 0; allowed are positive numbers and 'auto'"),
        ({"feature_scale": "one"}, "allowed are positive numbers and 'auto'"),
        ({"correlation": "both"}, "allowed are 'absolute' and 'signed'"),
    ],
)
def test_terms_that_cannot_be_meant_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ARFL(Network(), layer="last", **settings)
