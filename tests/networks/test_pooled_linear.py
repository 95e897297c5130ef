"""Pooling folded into the head's first layer."""

import pytest
import torch
from torch import nn

from pipeline.networks.pooled_linear import PooledLinear


@pytest.mark.parametrize("size", [(1, 1), (3, 3), (5, 4), (2, 9), (7, 7), (8, 10)])
def test_it_equals_pooling_and_then_the_layer(size):
    generator = torch.Generator().manual_seed(0)
    pool, linear = nn.AdaptiveAvgPool2d((7, 7)), nn.Linear(6 * 49, 300).requires_grad_(False)
    maps = torch.randn(4, 6, *size, generator=generator).requires_grad_(True)
    folded = PooledLinear(pool, linear)
    assert folded.usable(maps)
    cotangent = torch.randn(4, 300, generator=generator)
    for _ in range(2):
        expected = linear(pool(maps).flatten(1))
        result = folded(maps)
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)
        ours, theirs = (torch.autograd.grad((x * cotangent).sum(), maps)[0] for x in (result, expected))
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
        linear.weight.mul_(1.5)  # written in place: the kept product must not be used again


def test_a_layer_in_training_is_left_to_autograd():
    pool, linear = nn.AdaptiveAvgPool2d((7, 7)), nn.Linear(6 * 49, 10)
    assert not PooledLinear(pool, linear).usable(torch.zeros(1, 6, 3, 3))
