"""The head's linear layers in an attack."""

import pytest
import torch
from torch import nn

from pipeline.networks.untrained_linear import runs_untrained, untrained_linear


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize(("inputs", "outputs"), [(70, 128), (1, 4), (333, 20)])
def test_values_and_gradient_are_those_of_the_layer(count, inputs, outputs, bias):
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(inputs, outputs, bias=bias).requires_grad_(False)
    rows = torch.randn(count, inputs, generator=generator).requires_grad_(True)
    cotangent = torch.randn(count, outputs, generator=generator)
    assert runs_untrained(layer, rows)
    for _ in range(2):
        result, expected = untrained_linear(layer, rows), layer(rows)
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)
        ours, theirs = (torch.autograd.grad((x * cotangent).sum(), rows)[0] for x in (result, expected))
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
        layer.weight.mul_(1.5)


def test_the_number_of_threads_does_not_show():
    generator = torch.Generator().manual_seed(0)
    layer, rows = (
        nn.Linear(501, 64).requires_grad_(False),
        torch.randn(4, 501, generator=generator).requires_grad_(True),
    )
    threads, results = torch.get_num_threads(), []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            result = untrained_linear(layer, rows)
            results.append((result, torch.autograd.grad(result.sum(), rows)[0]))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


def test_what_it_does_not_run():
    rows = torch.zeros(4, 6)
    assert not runs_untrained(nn.Linear(6, 64), rows)  # in training
    only_bias = nn.Linear(6, 64)
    only_bias.weight.requires_grad_(False)
    assert not runs_untrained(only_bias, rows)
    assert not runs_untrained(nn.Linear(6, 10).requires_grad_(False), rows)  # four outputs at a time
    assert not runs_untrained(nn.Linear(6, 64).requires_grad_(False).double(), rows)
    assert not runs_untrained(nn.ReLU(), rows)
    for count in (0, 1, 5):
        assert not runs_untrained(nn.Linear(6, 64).requires_grad_(False), torch.zeros(count, 6))
