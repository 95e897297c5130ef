"""The engine steps aside where somebody watches or changes the modules."""

import copy
import threading

import pytest
import torch
from monai.optimizers import Novograd
from torch import nn
from torch.autograd import forward_ad

from pipeline.attacks import PGD, attack_mode
from tests.networks.test_frozen_engine import images_of, network_with_biases, plain, prefix


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
        assert prefix(network, images) == 24
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


def same_as_plain(network, images, **tolerance):
    """The engine's logits and input gradient are the plain network's."""
    results = []
    for model in (network, plain(network)):
        part = images.clone().requires_grad_(True)
        with attack_mode(model) as module:
            logits = module(part)
            results.append((logits.detach(), torch.autograd.grad(logits.sum(), part)[0]))
    (ours, gradient), (expected, expected_gradient) = results
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
    assert (gradient - expected_gradient).norm() <= 2e-2 * expected_gradient.norm()


def test_an_optimiser_whose_steps_pytorch_does_not_count_is_seen():
    network, images = network_with_biases(width=0.25), images_of(2, 1, 48, 48)
    optimizer = Novograd([p for p in network.parameters() if p.requires_grad], lr=0.05)
    for _ in range(3):
        version = network.features[28].weight._version
        with attack_mode(network) as module:
            module(images)
        network.zero_grad()
        network(images).sum().backward()
        optimizer.step()
        assert network.features[28].weight._version == version  # it writes through .data
        same_as_plain(network, images)
    network.features[28].bias.data.add_(0.5)
    same_as_plain(network, images)


@pytest.mark.parametrize(
    "change",
    [
        lambda n: n.features.__setitem__(24, nn.Conv2d(128, 128, 3, padding=1)),
        lambda n: n.features.__setitem__(25, nn.Softplus()),
        lambda n: n.features.__setitem__(23, nn.AvgPool2d(2, 2)),
        lambda n: setattr(n.normalise, "mean", 0.1),
        lambda n: setattr(n.normalise, "std", 0.5),
        lambda n: setattr(n, "normalise", nn.Identity()),
        lambda n: setattr(n.features[24], "padding", (2, 2)) or setattr(n.features[24], "dilation", (2, 2)),
        lambda n: setattr(n.features[24], "forward", lambda x: 2 * x),
        lambda n: setattr(n, "features", network_with_biases(9, width=0.25).features),
        lambda n: setattr(n, "classifier", nn.Linear(256, 1)),
        lambda n: n.classifier[0].requires_grad_(False),
    ],
)
def test_modules_may_be_replaced_and_changed(change):
    network, images = network_with_biases(width=0.25), images_of(2, 1, 48, 48)
    same_as_plain(network, images)
    change(network)
    network.eval()
    same_as_plain(network, images)


def test_a_bias_may_be_trained_alone():
    network, images = network_with_biases(head="vgg", width=0.25, dropout=0.0), images_of(2, 1, 48, 48)
    network.requires_grad_(False)
    for bias in (network.classifier[0].bias, network.features[24].bias):
        bias.requires_grad_(True)
        reference = plain(network)
        network(images).sum().backward()
        reference(images).sum().backward()
        theirs = reference.classifier[0].bias if bias is network.classifier[0].bias else reference.features[24].bias
        torch.testing.assert_close(bias.grad, theirs.grad, rtol=1e-3, atol=1e-5)
        bias.requires_grad_(False)


def test_inference_mode_leaves_no_trace():
    network, images = network_with_biases(width=0.25), images_of(2, 1, 40, 48)
    with torch.inference_mode():
        scores = network(images)
        attacked = PGD(budget=1e-3, steps=2)(network, images, torch.tensor([0, 1]), seed=0)
    assert not attacked.is_inference() and (attacked != images).any()
    with torch.no_grad():
        torch.testing.assert_close(network(images), scores)
    same_as_plain(network, images)
    network.train()(images).sum().backward()
    with torch.inference_mode():
        built = network_with_biases(width=0.25)
        torch.testing.assert_close(built(images), scores, rtol=1e-4, atol=1e-5)


def test_threads_may_attack_one_network_at_once():
    network = network_with_biases(width=0.25).train()
    before = [p.requires_grad for p in network.parameters()], [m.training for m in network.modules()]
    labels, attack = torch.tensor([0, 1]), PGD(budget=1e-2, steps=3)
    batches = [images_of(2, 1, 40 + 2 * number, 48, seed=number) for number in range(4)]
    alone = [attack(network, images, labels, seed=0) for images in batches]
    together: dict[int, torch.Tensor] = {}

    def work(number):
        for _ in range(3):
            together[number] = attack(network, batches[number], labels, seed=0)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(together[number], alone[number]) for number in range(4))
    assert ([p.requires_grad for p in network.parameters()], [m.training for m in network.modules()]) == before


def test_attacks_that_overlap_restore_at_the_last_end():
    network = network_with_biases(width=0.25).train()
    trained = network.features[28].weight
    first, second = attack_mode(network), attack_mode(network)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not trained.requires_grad and not network.training
    second.__exit__(None, None, None)
    assert trained.requires_grad and network.training


def test_forward_mode_and_function_transforms_take_the_plain_path():
    network, images = network_with_biases(width=0.25).requires_grad_(False), images_of(1, 1, 40, 40)
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(network(forward_ad.make_dual(images, torch.ones_like(images)))).tangent
    gradient = torch.func.grad(lambda x: network(x).sum())(images)
    torch.testing.assert_close(tangent.sum(), gradient.sum(), rtol=1e-3, atol=1e-4)
    assert torch.fx.symbolic_trace(network)(images).shape == (1, 1)


def test_a_global_hook_sees_every_module():
    network, images = network_with_biases(width=0.25), images_of(1, 1, 40, 40)
    counts = []
    for model in (network, plain(network)):
        calls = []
        handle = torch.nn.modules.module.register_module_forward_hook(lambda *_, calls=calls: calls.append(1))
        with handle, torch.no_grad():
            model(images)
        counts.append(len(calls))
    assert counts[0] == counts[1] > 31


def test_defaults_of_the_process_do_not_reach_the_engine():
    network, images = network_with_biases(width=0.25), images_of(1, 1, 44, 40)
    with torch.no_grad(), torch.device("meta"):
        assert network(images).device.type == "cpu"
    network, images = network_with_biases(width=0.25), images_of(1, 1, 52, 40)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            assert network(images).dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


def test_buffers_are_kept_from_step_to_step():
    network = network_with_biases(width=0.25)
    attack, images, labels = PGD(budget=1e-3, steps=2), images_of(2, 1, 48, 48), torch.tensor([0, 1])
    attack(network, images, labels, seed=0)
    scratch = network.engine.scratch()
    held = {name: flat.data_ptr() for name, flat in scratch._flat.items()}
    attack(network, images, labels, seed=1)
    assert network.engine.scratch() is scratch and held
    assert {name: flat.data_ptr() for name, flat in scratch._flat.items()} == held


def test_filters_are_made_once_for_weights_that_stay():
    network = network_with_biases(width=0.25).train()  # its last convolution is trained, so compared in every pass
    images, labels = images_of(2, 1, 48, 48), torch.tensor([0, 1])
    network(images)
    PGD(budget=1e-3, steps=1)(network, images, labels, seed=0)
    held = {number: known.kernel for number, known in network.engine._kernels.items()}
    PGD(budget=1e-3, steps=3)(network, images, labels, seed=0)
    assert len(held) == 13
    assert all(network.engine._kernels[number].kernel is kernel for number, kernel in held.items())
