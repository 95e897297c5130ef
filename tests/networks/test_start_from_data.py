"""Start from data: what the initialisation promises."""

import torch

from pipeline.networks import start_from_data, vgg16


def responses(network, images):
    current, found = network.normalise(images), []
    for layer in network.features:
        current = layer(current)
        if isinstance(layer, torch.nn.Conv2d):
            found.append(current)
    return found


def test_every_convolution_answers_with_zero_mean_and_unit_deviation():
    network = vgg16(weights="none", trainable="all", width=0.125, head="compact")
    images = torch.rand(8, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    start_from_data(network.features, network.normalise(images), seed=3)
    for response in responses(network, images):
        assert torch.allclose(response.mean(dim=(0, 2, 3)), torch.zeros(response.shape[1]), atol=1e-3)
        assert torch.allclose(response.std(dim=(0, 2, 3)), torch.ones(response.shape[1]), atol=1e-3)


def test_a_small_bright_spot_reaches_the_last_map_more_than_with_random_layers():
    images = 0.3 + 0.02 * torch.rand(8, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    spotted = images.clone()
    spotted[:, :, 30:32, 30:32] = 1.0
    change = []
    for started in (True, False):
        network = vgg16(weights="none", trainable="all", width=0.125, head="compact").eval()
        if started:
            start_from_data(network.features, network.normalise(images), seed=0)
        with torch.no_grad():
            clean, marked = responses(network, images)[-1], responses(network, spotted)[-1]
        change.append(float((marked - clean).abs().mean() / clean.std()))
    assert change[0] > 2 * change[1]


def test_same_seed_same_weights():
    images = torch.rand(4, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    states = []
    for seed in (0, 0, 1):
        network = vgg16(weights="none", trainable="all", width=0.0625, head="compact")
        start_from_data(network.features, network.normalise(images), seed=seed)
        states.append(network.features[28].weight.detach().clone())
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])
