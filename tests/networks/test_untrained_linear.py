"""The head's linear layers in an attack."""

import pytest
import torch
from torch import nn

from pipeline.networks.untrained_linear import runs_untrained, untrained_linear


@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradient_are_those_of_the_layer(bias):
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(70, 128, bias=bias).requires_grad_(False)
    rows = torch.randn(4, 70, generator=generator).requires_grad_(True)
    cotangent = torch.randn(4, 128, generator=generator)
    assert runs_untrained(layer, rows)
    for _ in range(2):
        result, expected = untrained_linear(layer, rows), layer(rows)
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)
        ours, theirs = (torch.autograd.grad((x * cotangent).sum(), rows)[0] for x in (result, expected))
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
        layer.weight.mul_(1.5)


def test_what_it_does_not_run():
    rows = torch.zeros(4, 6)
    assert not runs_untrained(nn.Linear(6, 64), rows)  # in training
    only_bias = nn.Linear(6, 64)
    only_bias.weight.requires_grad_(False)
    assert not runs_untrained(only_bias, rows)
    assert not runs_untrained(nn.Linear(6, 10).requires_grad_(False), rows)  # not to be cut in pieces
    assert not runs_untrained(nn.Linear(6, 64).requires_grad_(False).double(), rows)
    assert not runs_untrained(nn.ReLU(), rows)
