"""Maps of clean images that come again."""

import copy

import torch

from pipeline.attacks import PGD, attack_mode
from pipeline.networks import pause_cache, vgg16
from tests.networks.test_frozen_engine import COMPACT, images_of, network_with_biases, plain, prefix


def test_clean_maps_are_computed_once_more_and_then_kept():
    network = network_with_biases(width=0.25)
    fresh = copy.deepcopy(network)
    images = images_of(3, 1, 48, 48)
    with torch.no_grad():
        first = network(images)
        assert network.engine.cache.hits == 0
        network(images.flip(0))
        third = network(images[[2, 0]])
        assert network.engine.cache.hits == 2
        assert torch.equal(third, fresh(images[[2, 0]]))  # kept or not, in whatever batch: the same bits
        network.load_state_dict(network_with_biases(5, width=0.25).state_dict())
        assert (network(images) - first).abs().min() > 1e-3
        assert network.engine.cache.hits == 2


def test_trained_layers_lie_behind_the_kept_maps():
    network = network_with_biases(width=0.25)
    images = images_of(2, 1, 48, 48)
    with torch.no_grad():
        for _ in range(3):
            before = network(images)
        assert prefix(network, images) == 28
        network.features[28].weight.mul_(1.5)
        after = network(images)
        assert network.engine.cache.hits == 4
        torch.testing.assert_close(after, plain(network)(images), rtol=1e-4, atol=1e-5)
        assert not torch.equal(after, before)


def test_attacked_images_are_not_kept():
    network = network_with_biases(width=0.25)
    images, labels = images_of(2, 1, 48, 48), torch.tensor([0, 1])
    for _ in range(3):
        PGD(budget=1e-2)(network, images, labels, seed=0)
    assert network.engine.cache.hits == 0 and not network.engine.cache._maps


def test_a_training_pass_takes_kept_maps_and_leaves_them_for_the_next():
    network = network_with_biases(width=0.25).train()
    images, labels = images_of(4, 1, 48, 48), torch.tensor([0, 1, 0, 1])
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-3)
    for epoch in range(4):
        network(images).sum().backward()
        optimizer.step()
        # An attack and its score in between, as in a validation under attack: neither looked up nor kept.
        attacked = PGD(budget=1e-2, steps=1)(network, images, labels, seed=epoch)
        known = len(network.engine.cache._seen) + len(network.engine.cache._maps)
        with torch.no_grad(), attack_mode(network) as module:
            module(attacked)
        assert len(network.engine.cache._seen) + len(network.engine.cache._maps) == known == 4
        assert network.engine.cache.hits == 4 * max(0, epoch - 1)
        pause_cache(network, True)
        network(attacked)
        pause_cache(network, False)
        assert len(network.engine.cache._seen) + len(network.engine.cache._maps) == 4


def test_a_full_cache_keeps_what_it_has():
    network = vgg16(width=0.25, cache_gib=9 * 128 * 4 * 1.5 / 2**30, **COMPACT).eval()
    images = images_of(2, 1, 48, 48)
    with torch.no_grad():
        for _ in range(3):
            scores = network(images)
        assert network.engine.cache.hits == 1
        torch.testing.assert_close(scores, plain(network)(images), rtol=1e-4, atol=1e-5)
