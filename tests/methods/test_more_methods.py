"""MART, ALP, MIRST, free training, single-step attacks, budget warm-up: each against its definition."""

import pytest
import torch
from ignite.engine import Events
from monai.data import Dataset
from torch.nn.functional import binary_cross_entropy_with_logits, log_softmax, softmax

from pipeline.attacks import FGSM, FGSMRS, NFGSM, PGD, as_logit
from pipeline.methods import ALP, MART, MIRST, AdversarialTraining, FreeTraining, mart_loss
from pipeline.runs import ReplayingLoader
from tests.methods.small import batch, rows, smooth_network, trainer_of

BCE = torch.nn.BCEWithLogitsLoss()


def test_mart_is_the_originals_formula_for_two_classes():
    generator = torch.Generator().manual_seed(0)
    clean, attacked = (torch.randn(20, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    labels = torch.arange(20) % 2
    p, q = softmax(clean, dim=1), softmax(attacked, dim=1)
    true, other = q.gather(1, labels[:, None])[:, 0], q.gather(1, 1 - labels[:, None])[:, 0]
    boosted = -true.log() - (1 - other).log()
    divergence = (p * (log_softmax(clean, 1) - log_softmax(attacked, 1))).sum(dim=1)
    expected = (boosted + 5 * divergence * (1 - p.gather(1, labels[:, None])[:, 0])).mean()
    torch.testing.assert_close(mart_loss(clean, attacked, labels), expected)


def test_marts_objective_reads_the_grown_batch():
    network = smooth_network()
    method = MART(network, attack=PGD(budget=0.05, steps=2), beta=3.0)
    grown = method.expand(batch())
    logits = network(grown["image"])
    torch.testing.assert_close(
        method.objective(logits, grown), mart_loss(logits[:6], logits[6:], grown["label"][:6], beta=3.0)
    )


def test_alp_is_dual_training_and_the_pairs_distance():
    network = smooth_network()
    attack = PGD(budget=0.05, steps=2)
    method = ALP(network, attack=attack, pairing_weight=0.7, loss_function=BCE)
    dual = AdversarialTraining(network, attack=attack, loss_function=BCE)
    grown = method.expand(batch())
    logits = network(grown["image"])
    expected = dual.objective(logits, grown) + 0.7 * (logits[:6] - logits[6:]).square().mean()
    torch.testing.assert_close(method.objective(logits, grown), expected)
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        ALP(network, attack=attack, standard_ratio=1)


@pytest.mark.parametrize("steps", [3, 7])
def test_mirsts_instances_lie_on_one_path_at_growing_budgets(steps):
    network, data = smooth_network(), batch()
    method = MIRST(network, attack=PGD(budget=0.06, steps=steps))
    instances = method.path(data["image"], data["label"])
    assert len(instances) == 3
    for level, instance in enumerate(instances, start=1):
        distance = (instance - data["image"]).abs().amax(dim=(1, 2, 3))
        assert (distance <= 0.02 * level + 1e-6).all() and (distance > 0.01 * level).all()
    # The next instance is what a PGD makes of this one: the path, walked by hand.
    by_hand = instances[1]
    count = steps - steps * 2 // 3
    for _ in range(count):
        x = by_hand.clone().requires_grad_(True)
        margin = (1 - 2 * data["label"][:, 0]) * network(x)[:, 0]
        step = 2.5 * 0.02 / count * torch.autograd.grad(margin.sum(), x)[0].sign()
        by_hand = (by_hand + step).clamp(data["image"] - 0.06, data["image"] + 0.06).clamp(0, 1)
    torch.testing.assert_close(by_hand, instances[2], rtol=0, atol=1e-6)


def test_mirsts_batch_and_objective():
    network = smooth_network()
    method = MIRST(network, attack=PGD(budget=0.06, steps=3), beta=2.0, loss_function=BCE)
    grown = method.expand(batch() | {"patient_id": list("abcdef")})
    assert grown["image"].shape[0] == 24 and grown["patient_id"] == list("abcdef") * 4
    assert grown["adversarial"].tolist() == [False] * 6 + [True] * 18
    logits = as_logit(network(grown["image"]))
    p = torch.sigmoid(logits[:6])
    total = 0.0
    for k in (1, 2, 3):
        q = torch.sigmoid(logits[6 * k : 6 * k + 6])
        total = total + (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean()
    expected = binary_cross_entropy_with_logits(logits[:6], grown["label"][:6, 0]) + 2.0 / 3 * total
    torch.testing.assert_close(method.objective(logits[:, None], grown), expected)


def test_mirst_labels_the_unlabelled_by_the_network_itself():
    network, data = smooth_network(), batch()
    data["label"][2] = torch.nan
    method = MIRST(network, attack=PGD(budget=0.06, steps=3), pseudo_labels=True)
    labels = method.expand(data)["label"]
    own = float(network(data["image"])[2, 0] > 0)
    assert labels[[2, 8, 14, 20], 0].tolist() == [own] * 4


def test_fgsm_steps_to_the_budgets_corner_and_fgsm_rs_stays_within():
    network, data = smooth_network(), batch()
    images = data["image"]
    step = FGSM(budget=0.03)(network, images, data["label"])
    assert torch.allclose((step - images).abs(), torch.tensor(0.03), atol=1e-6)
    moved = (FGSMRS(budget=0.03)(network, images, data["label"], seed=1) - images).abs()
    assert moved.max() <= 0.03 + 1e-6 and (moved < 0.0299).any()


def test_n_fgsm_overshoots_as_documented_and_no_further():
    network, data = smooth_network(), batch(size=32)
    images = data["image"]
    moved = (NFGSM(budget=0.03)(network, images, data["label"], seed=1) - images).abs()
    assert 0.08 < moved.max() <= 0.09 + 1e-6
    assert NFGSM(budget=0.3)(network, data["image"], data["label"], seed=1).min() >= 0
    assert NFGSM(budget=0.03).scaled(0.5)._radius == pytest.approx(0.045)


def test_the_budget_grows_over_the_warm_up():
    network = smooth_network()
    method = AdversarialTraining(network, attack=PGD(budget=0.1, steps=2), warmup_epochs=2, start_epoch=2)
    trainer = trainer_of(network, [method], epochs=5)
    sizes = {}

    def look(engine):
        image = engine.state.output["image"]
        if len(image) > 3:
            sizes[engine.state.epoch] = float((image[3:] - image[:3]).abs().max())

    trainer.add_event_handler(Events.ITERATION_COMPLETED, look)
    trainer.run()
    assert list(sizes) == [2, 3, 4, 5]
    assert [round(size, 3) for size in sizes.values()] == [0.033, 0.067, 0.1, 0.1]
    with pytest.raises(ValueError, match="needs an attack with scaled"):
        AdversarialTraining(network, attack=lambda *a, **k: a[1], warmup_epochs=1)


def free_training(seed=0, replays=4):
    network = smooth_network()
    method = FreeTraining(network, budget=0.05, seed=seed)
    loader = ReplayingLoader(Dataset(rows(8)), batch_size=2, replays=replays)
    trainer = trainer_of(network, [method], loader=loader, rate=0.05)
    seen = []
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: seen.append(engine.state.output["image"].detach().clone())
    )
    trainer.run()
    return network, seen


def test_free_training_replays_each_batch_and_counts_the_same_updates():
    _, seen = free_training()
    assert len(seen) == 4, "as many steps as batches"
    clean = torch.stack([row["image"] for row in rows(8)[:2]])
    assert all((images - clean).abs().max() <= 0.05 + 1e-6 for images in seen), "one batch, four times"
    _, seen = free_training(replays=3)
    changes = [float((images - clean).abs().max()) for images in seen]
    assert len(seen) == 4 and all(change <= 0.05 + 1e-6 for change in changes[:3]) and changes[3] > 0.1


def test_free_training_is_the_algorithm_written_by_hand():
    network, seen = free_training()
    other = smooth_network()
    optimizer = torch.optim.SGD(other.parameters(), 0.05)
    x, y = torch.stack([row["image"] for row in rows(8)[:2]]), torch.tensor([[0.0], [1.0]])
    delta = seen[0] - x  # the start; bounds are not met in between
    for step in range(4):
        images = (x + delta).clamp(0, 1).requires_grad_(True)
        torch.testing.assert_close(images.detach(), seen[step], rtol=0, atol=1e-6)
        optimizer.zero_grad()
        BCE(other(images), y).backward()
        optimizer.step()
        delta = (delta + 0.05 * images.grad.sign()).clamp(-0.05, 0.05)
    for ours, theirs in zip(network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_the_same_seed_gives_the_same_free_training():
    first, second = free_training()[0], free_training()[0]
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    other = free_training(seed=1)[0]
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))
