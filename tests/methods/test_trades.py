"""TRADES against its definition, torch's own divergence, and clean training."""

import copy

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, kl_div, logsigmoid

from pipeline.attacks import PGD, as_logit
from pipeline.methods import TRADES, AdversarialTraining, binary_divergence, trades_loss
from tests.methods.small import batch, smooth_network, trainer_of

ATTACK = PGD(budget=0.05, steps=5)


def divergence_by_torch(reference, logits):
    both = [torch.stack([logsigmoid(-z), logsigmoid(z)], dim=1) for z in (logits, reference)]
    return kl_div(both[0], both[1], log_target=True, reduction="none").sum(dim=1)


def test_divergence_and_its_gradients_are_torchs():
    generator = torch.Generator().manual_seed(0)
    reference, logits = (4 * torch.randn(50, generator=generator, dtype=torch.float64) for _ in range(2))
    reference.requires_grad_(True), logits.requires_grad_(True)
    ours, theirs = binary_divergence(reference, logits), divergence_by_torch(reference, logits)
    torch.testing.assert_close(ours, theirs)
    for mine, other in zip(
        torch.autograd.grad(ours.sum(), (reference, logits)),
        torch.autograd.grad(theirs.sum(), (reference, logits)),
        strict=True,
    ):
        torch.testing.assert_close(mine, other)


def test_divergence_has_a_gradient_where_probabilities_round():
    reference, logits = torch.tensor([-40.0]), torch.tensor([60.0], requires_grad=True)
    value = binary_divergence(reference, logits)
    assert value.item() == pytest.approx(60.0) and torch.autograd.grad(value.sum(), logits)[0].item() == pytest.approx(
        1
    )


def test_the_loss_is_cross_entropy_and_divergence():
    clean, attacked = torch.tensor([0.3, -1.2]), torch.tensor([-0.5, 0.9])
    labels = torch.tensor([1.0, 0.0])
    expected = binary_cross_entropy_with_logits(clean, labels) + 6 * divergence_by_torch(clean, attacked).mean()
    torch.testing.assert_close(trades_loss(clean, attacked, labels[:, None]), expected)
    two = [torch.stack([torch.zeros(2), z], dim=1) for z in (clean, attacked)]
    torch.testing.assert_close(trades_loss(*two, labels), expected)


def test_the_objective_on_a_grown_batch_is_the_loss():
    network = smooth_network()
    method = TRADES(network, attack=ATTACK, loss_function=torch.nn.BCEWithLogitsLoss())
    grown = method.expand(batch())
    logits = network(grown["image"])
    expected = trades_loss(logits[:6], logits[6:], grown["label"][:6])
    torch.testing.assert_close(method.objective(logits, grown), expected)


def test_beta_zero_is_clean_training_to_the_bit():
    first, second = smooth_network(), smooth_network()
    trainer_of(first, [TRADES(first, attack=ATTACK, beta=0.0)], epochs=2).run()
    trainer_of(second, [AdversarialTraining(second, standard_ratio=1)], epochs=2).run()
    for ours, theirs in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("signs", ["one", "both"])
def test_the_attack_climbs_the_divergence_within_the_budget(signs):
    network, rows = smooth_network(), batch()
    with torch.no_grad():
        clean = as_logit(network(rows["image"]))
        attacked = TRADES(network, attack=ATTACK, signs=signs).attacked(rows["image"], rows["label"], None)
        noise = rows["image"] + 0.001 * torch.randn(rows["image"].shape)
        start, end = (binary_divergence(clean, as_logit(network(x))) for x in (noise, attacked))
    assert (end > start).all()
    assert (attacked - rows["image"]).abs().max() <= 0.05 + 1e-6 and attacked.min() >= 0 and attacked.max() <= 1


def test_both_signs_end_at_the_larger_divergence_of_an_exhaustive_climb():
    network, rows = smooth_network(), batch()
    image, labels = rows["image"], rows["label"]
    with torch.no_grad():
        clean = as_logit(network(image))
        ends = [PGD(budget=0.05, steps=5, random_start=False)(network, image, torch.full((6,), y)) for y in (0, 1)]
        best = torch.stack([binary_divergence(clean, as_logit(network(end))) for end in ends]).amax(dim=0)
        attacked = TRADES(network, attack=ATTACK, signs="both").attacked(image, labels, None)
        reached = binary_divergence(clean, as_logit(network(attacked)))
    torch.testing.assert_close(reached, best, rtol=0.05, atol=0)


def test_labels_play_no_part_in_the_attack():
    network, rows = smooth_network(), batch()
    method = TRADES(network, attack=ATTACK)
    one, other = (method.attacked(rows["image"], labels, None) for labels in (rows["label"], 1 - rows["label"]))
    assert torch.equal(one, other)


def test_a_batch_that_is_split_for_memory_gets_the_same_attack():
    network, rows = smooth_network(), batch()
    parts = copy.copy(ATTACK)
    parts.memory_gib = 1e-9
    whole, split = (TRADES(network, attack=a).attacked(rows["image"], rows["label"], None) for a in (ATTACK, parts))
    torch.testing.assert_close(whole, split)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="signs 'up' is unknown; allowed are 'one'"):
        TRADES(smooth_network(), attack=ATTACK, signs="up")
    with pytest.raises(ValueError, match="beta is -1"):
        TRADES(smooth_network(), attack=ATTACK, beta=-1)
