"""The frozen engine against the plain network, in float32 and float64."""

import copy
import io
import statistics
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pipeline.attacks import PGD, as_logit, attack_mode, margin
from pipeline.networks import FeatureTap, vgg16

SIDES = st.integers(32, 75)
COMPACT = {"weights": "none", "head": "compact"}


def plain(network):
    """The same network on its plain path."""
    network = copy.deepcopy(network)
    network.engine = None
    return network


def network_with_biases(seed=0, **settings):
    network = vgg16(seed=seed, **COMPACT | settings).eval()
    generator = torch.Generator().manual_seed(seed + 1)
    for layer in network.features:
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.bias, std=0.05, generator=generator)
    return network


def images_of(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def prefix(network, images):
    """How many of the leading modules of `features` the engine takes."""
    layers = network.engine.layers(images, network.normalise, network.features)
    return layers[-1].end if layers else 0


def engine_maps(network, images):
    """Maps behind the layers that the engine takes: all of them."""
    layers = network.engine.layers(images, network.normalise, network.features)
    assert layers[-1].end == 31
    return network.engine(images, network.normalise, layers)


def maps_and_gradient(network, images, cotangent):
    """The maps behind the poolings, and the images' gradient of their product with `cotangent`."""
    images = images.clone().requires_grad_(True)
    if getattr(network, "engine", None) is None:
        maps = network.features(network.normalise(images))
    else:
        maps = engine_maps(network, images)
    (gradient,) = torch.autograd.grad((maps * cotangent).sum(), images)
    return maps.detach(), gradient


@settings(deadline=None, max_examples=20)
@given(SIDES, SIDES, st.integers(1, 3), st.sampled_from([0.2, 0.25, 0.5, 1.0]), st.integers(0, 99))
def test_maps_are_those_of_the_plain_network(height, width, count, factor, seed):
    network = network_with_biases(seed, width=factor).requires_grad_(False)
    images = images_of(count, 1, height, width, seed=seed)
    with torch.no_grad():
        reference = plain(network).double()
        exact = reference.features(reference.normalise(images.double()))
        network.engine.cache.limit = 0
        maps = engine_maps(network, images)
    assert maps.shape == exact.shape
    assert (maps - exact).norm() <= 5e-6 * exact.norm()


def test_gradients_over_odd_sizes_are_those_of_the_plain_network():
    # A value next to 0 may fall on the other side of a ReLU, in the plain float32 network too: then one of these small
    # images is some percent off, and the others are not.
    errors = []
    for seed, (height, width, count) in enumerate(product((33, 50, 71), (38, 57), (1, 2))):
        network = network_with_biases(seed, width=0.5).requires_grad_(False)
        images = images_of(count, 1, height, width, seed=seed)
        cotangent = torch.randn(network.features(images).shape, generator=torch.Generator().manual_seed(seed))
        _, gradient = maps_and_gradient(network, images, cotangent)
        _, exact = maps_and_gradient(plain(network).double(), images.double(), cotangent.double())
        errors.append(float((gradient - exact).norm() / exact.norm()))
    assert statistics.median(errors) <= 1e-4 and max(errors) <= 5e-2, errors


@pytest.mark.parametrize("head", ["vgg", "compact"])
@pytest.mark.parametrize("size", [64, 96])
def test_logits_and_gradients_of_the_full_network(head, size):
    network = network_with_biases(head=head).requires_grad_(False)
    images = images_of(3, 1, size, size)

    def logits_and_gradient(model, images):
        images = images.clone().requires_grad_(True)
        logits = model(images)
        return logits.detach(), torch.autograd.grad(logits.sum(), images)[0]

    exact, exact_gradient = logits_and_gradient(plain(network).double(), images.double())
    # Both in float32, within the same distance of float64. Gradients are 3e-6 (ours) and 6e-7 off, unless a value next
    # to 0 falls on the other side of a ReLU: then it is some 1e-3, in ours more often.
    for model in (network, plain(network)):
        logits, gradient = logits_and_gradient(model, images)
        assert (logits - exact).norm() <= 1e-5 * exact.norm()
        assert (gradient - exact_gradient).norm() <= 1e-2 * exact_gradient.norm()
        assert (gradient.sign() == exact_gradient.sign()).double().mean() >= 0.999


def test_pgd_ends_with_the_margins_of_the_plain_network():
    network = network_with_biases(head="compact")
    images, labels = images_of(6, 1, 64, 64), torch.tensor([0, 1, 0, 1, 0, 1])
    attack = PGD(budget=1e-3, steps=7)
    with torch.no_grad():
        start = margin(as_logit(plain(network)(images)), labels)
        ends = [
            margin(as_logit(plain(network)(attack(model, images, labels, seed=1))), labels)
            for model in (network, plain(network))
        ]
    change = ends[1] - start
    assert (change > 0).all()
    assert ((ends[0] - ends[1]) / change).abs().max() < 0.01


def test_the_state_dict_does_not_know_the_engine():
    with_engine, without = vgg16(width=0.25, **COMPACT), vgg16(width=0.25, engine=False, **COMPACT)
    assert list(with_engine.state_dict()) == list(without.state_dict())
    both = zip(with_engine.state_dict().values(), without.state_dict().values(), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in both)


def test_loaded_and_stepped_weights_are_seen():
    network, other = network_with_biases(1, width=0.25), network_with_biases(2, width=0.25)
    images = images_of(2, 1, 48, 48)
    with torch.no_grad():
        first = network(images)
        network.load_state_dict(other.state_dict())
        torch.testing.assert_close(network(images), plain(other)(images), rtol=1e-4, atol=1e-5)
        assert (network(images) - first).abs().min() > 1e-3
    network.requires_grad_(True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    network(images).sum().backward()
    optimizer.step()
    with torch.no_grad():
        torch.testing.assert_close(network(images), plain(network)(images), rtol=1e-4, atol=1e-5)


def test_copies_go_their_own_way():
    network = network_with_biases(width=0.25)
    images = images_of(1, 1, 48, 48)
    with torch.no_grad():
        before = network(images)
        twin = copy.deepcopy(network)
        for parameter in twin.parameters():
            parameter.mul_(1.1)
        assert torch.equal(network(images), before)
        torch.testing.assert_close(twin(images), plain(twin)(images), rtol=1e-4, atol=1e-5)
        file = io.BytesIO()
        torch.save(network, file)
        file.seek(0)
        assert torch.equal(torch.load(file, weights_only=False)(images), before)


def test_nothing_below_the_first_trained_layer_is_on_the_tape():
    network = network_with_biases(width=0.25).train()
    seen = []
    network.features[28].register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    images = images_of(2, 1, 48, 48)
    torch.manual_seed(0)
    network(images).sum().backward()
    assert not seen[0].requires_grad
    reference = plain(network)
    reference.zero_grad()
    torch.manual_seed(0)
    reference(images).sum().backward()
    for ours, theirs in zip(network.parameters(), reference.parameters(), strict=True):
        if ours.requires_grad:
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-4)
        else:
            assert ours.grad is None


def test_images_that_need_a_gradient_get_one_in_a_training_pass():
    network = network_with_biases(width=0.25).train()
    images = images_of(2, 1, 48, 48).requires_grad_(True)
    torch.manual_seed(0)
    network(images).sum().backward()
    reference = images.detach().clone().requires_grad_(True)
    torch.manual_seed(0)
    plain(network)(reference).sum().backward()
    assert (images.grad - reference.grad).norm() <= 1e-2 * reference.grad.norm()
    assert network.features[28].weight.grad is not None


def test_two_graphs_may_be_alive_at_once():
    network = network_with_biases(width=0.25).requires_grad_(False)
    images = [images_of(2, 1, 48, 40, seed=seed).requires_grad_(True) for seed in (1, 2)]
    alone = [torch.autograd.grad(network(each).sum(), each)[0] for each in images]
    scores = [network(each).sum() for each in images]
    together = torch.autograd.grad(scores[0] + scores[1], images)
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def test_a_second_derivative_is_refused():
    network = network_with_biases(width=0.25).requires_grad_(False)
    images = images_of(1, 1, 48, 48).requires_grad_(True)
    (gradient,) = torch.autograd.grad(network(images).sum(), images, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_a_tap_in_training_sees_its_map_and_other_hooks_are_called():
    network = network_with_biases(width=0.25).train()
    tap = FeatureTap(network, "features.28")
    images = images_of(1, 1, 48, 48)
    network(images)
    expected = network.features[:29](network.normalise(images))
    torch.testing.assert_close(tap.take(), expected, rtol=1e-4, atol=1e-5)
    calls = []
    network.features[21].register_forward_hook(lambda *_: calls.append(1))
    with attack_mode(network) as module, torch.no_grad():
        assert prefix(network, images) == 21
        module(images)
    assert calls == [1]


@pytest.mark.parametrize("images", [torch.rand(1, 1, 48, 48).double(), torch.rand(0, 1, 48, 48), torch.rand(1, 48, 48)])
def test_what_it_cannot_run_is_left_to_the_modules(images):
    assert prefix(network_with_biases(width=0.25), images) == 0


def test_autocast_takes_the_plain_path():
    network, images = network_with_biases(width=0.25), images_of(1, 1, 48, 48)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert prefix(network, images) == 0
        assert torch.equal(network(images), plain(network)(images))


def test_scripting_takes_the_plain_path():
    network, images = network_with_biases(width=0.25), images_of(2, 1, 48, 48)
    scripted = torch.jit.script(network)
    with torch.no_grad():
        assert torch.equal(scripted(images), plain(network)(images))
        traced = torch.jit.trace(network, images[:1])
        torch.testing.assert_close(traced(images), plain(network)(images), rtol=1e-4, atol=1e-5)


def test_narrow_networks_are_left_alone():
    assert prefix(vgg16(width=0.125, **COMPACT), images_of(1, 1, 48, 48)) == 0


def test_a_blank_image_gets_a_finite_gradient():
    # Every pooling window is a tie; any of its corners may get the gradient.
    network = network_with_biases(width=0.25).requires_grad_(False)
    images = torch.zeros(1, 1, 48, 48, requires_grad=True)
    (gradient,) = torch.autograd.grad(network(images).sum(), images)
    assert torch.isfinite(gradient).all()


def test_values_of_a_broken_image_do_not_reach_the_next():
    network = network_with_biases(width=0.25).requires_grad_(False)
    images = images_of(1, 1, 42, 38).requires_grad_(True)
    (before,) = torch.autograd.grad(network(images).sum(), images)
    broken = torch.full((1, 1, 42, 38), torch.nan, requires_grad=True)
    torch.autograd.grad(network(broken).sum(), broken)
    (after,) = torch.autograd.grad(network(images).sum(), images)
    assert torch.equal(before, after)


@pytest.mark.parametrize("head", ["vgg", "compact"])
def test_an_image_gets_the_same_in_every_batch_up_to_rounding(head):
    network = network_with_biases(head=head).requires_grad_(False)
    network.engine.cache.limit = 0
    images = images_of(5, 1, 64, 64)

    def run(part):
        part = part.clone().requires_grad_(True)
        logits = network(part)
        return logits.detach(), torch.autograd.grad(logits.sum(), part)[0]

    logits, gradients = run(images)
    for part in (slice(0, 1), slice(1, 3), slice(2, 5)):
        alone, gradient = run(images[part])
        torch.testing.assert_close(alone, logits[part], rtol=1e-5, atol=1e-6)
        assert (gradient - gradients[part]).norm() <= 1e-4 * gradients[part].norm()
        again, same = run(images[part])
        assert torch.equal(alone, again) and torch.equal(gradient, same)


def test_parts_of_a_batch_give_the_images_of_the_whole():
    network = network_with_biases(width=0.25)
    images, labels = images_of(5, 1, 48, 48), torch.tensor([0, 1, 1, 0, 1])
    calls = []
    network.normalise.register_forward_pre_hook(lambda _module, inputs: calls.append(len(inputs[0])))
    attack = PGD(budget=1e-2, steps=3, memory_gib=2 * 1.1e-4)
    whole = PGD(budget=1e-2, steps=3)(network, images, labels, seed=3)
    assert calls == [5, 5, 5]
    calls.clear()
    parts = attack(network, images, labels, seed=3)
    assert calls[0] == 1 and len(calls) > 7 and max(calls) < 5  # one image to measure, then parts
    with torch.no_grad():
        start, one, other = (margin(as_logit(network(x)), labels) for x in (images, whole, parts))
    assert ((one - other) / (one - start)).abs().max() < 0.02
    assert (whole != parts).double().mean() < 0.02
