"""The engine steps aside where somebody watches or changes the modules."""

import copy

import torch
from torch import nn

from tests.networks.test_frozen_engine import images_of, network_with_biases, plain


def test_every_hook_that_the_plain_network_calls_is_called():
    network, images = network_with_biases(head="vgg", width=0.25), images_of(3, 1, 48, 48)
    for name, _ in network.named_modules():
        calls = [[], []]
        for model, seen in zip((copy.deepcopy(network), plain(network)), calls, strict=True):
            hook = lambda _module, _inputs, output, seen=seen: seen.append(output.shape)  # noqa: E731
            model.get_submodule(name).register_forward_hook(hook)
            with torch.no_grad():
                model(images)
        assert calls[0] == calls[1] and len(calls[0]) == 1


def test_a_parametrised_convolution_is_left_to_its_module():
    network, images = network_with_biases(width=0.25), images_of(2, 1, 48, 48)
    torch.nn.utils.parametrizations.weight_norm(network.features[24])
    with torch.no_grad():
        assert network.engine.prefix(images) == 24
        before = network(images)
        network.features[24].parametrizations.weight.original0.mul_(2)
        torch.testing.assert_close(network(images), plain(network)(images), rtol=1e-4, atol=1e-5)
        assert not torch.equal(network(images), before)


def test_a_weight_at_a_freed_address_is_a_new_weight():
    network, images = network_with_biases(width=0.25), images_of(1, 1, 48, 48)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _ in range(20):  # allocators hand a freed address out again at once
            shape = network.features[26].weight.shape
            network.features[26].weight = None
            network.features[26].weight = nn.Parameter(torch.randn(shape, generator=generator), requires_grad=False)
            torch.testing.assert_close(network(images), plain(network)(images), rtol=1e-4, atol=1e-4)
