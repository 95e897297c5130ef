"""One layer of the engine, forward and back, against PyTorch in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pipeline.networks.kernels import DirectKernel, GreyKernel, Maps, WinogradKernel
from pipeline.networks.scratch import Scratch

KINDS = st.sampled_from(["winograd", "direct", "grey"])
SIDES = st.integers(2, 21)


def kernel_of(kind, conv):
    if kind == "grey":
        return GreyKernel(conv, 0.4, 0.2)
    return WinogradKernel(conv, 3000) if kind == "winograd" else DirectKernel(conv)


@settings(deadline=None, max_examples=60)
@given(KINDS, st.booleans(), SIDES, SIDES, st.integers(1, 3), st.integers(0, 99))
def test_a_layer_is_convolution_relu_and_pooling(kind, pool, height, width, count, seed):
    generator = torch.Generator().manual_seed(seed)
    inputs = 1 if kind == "grey" else 8
    conv = nn.Conv2d(inputs, 12, 3, padding=1)
    for parameter in conv.parameters():
        nn.init.normal_(parameter, generator=generator)
    kernel = kernel_of(kind, conv)
    scratch = Scratch()
    source = Maps(scratch, "source", count, height, width, inputs, tiles=kernel.tiles)
    small = (height // 2, width // 2) if pool else (height, width)
    target = Maps(scratch, "target", count, *small, 12, tiles=kernel.tiles)
    back = Maps(scratch, "back", count, height, width, inputs, tiles=kernel.tiles)
    values = torch.randn(count, height, width, inputs, generator=generator)
    source.image.copy_(values)
    source.frame(0.4 if kind == "grey" else 0.0)
    keep = torch.ones(count, *kernel.keep_shape(height, width), dtype=torch.bool)
    with torch.no_grad():
        kernel.forward(source, target, pool, keep, scratch)
    result = target.image.clone()

    exact = values.double().requires_grad_(True)
    seen = exact.permute(0, 3, 1, 2)
    seen = (seen - 0.4) / 0.2 if kind == "grey" else seen
    expected = conv.double()(seen).relu()
    expected = nn.functional.max_pool2d(expected, 2) if pool else expected
    expected = expected.permute(0, 2, 3, 1)
    assert (result - expected).norm() <= 1e-5 * expected.norm()

    gradient = torch.randn(result.shape, generator=generator)
    target.data.fill_(7.0)  # what lies outside the image must not come in
    target.image.copy_(gradient)
    with torch.no_grad():
        kernel.adjoint(target, keep, back, pool, scratch)
    (expected_gradient,) = torch.autograd.grad((expected * gradient.double()).sum(), exact)
    assert (back.image - expected_gradient).norm() <= 1e-4 * expected_gradient.norm().clamp_min(1e-3)


@pytest.mark.parametrize("kind", ["winograd", "direct"])
def test_of_equal_values_in_a_window_one_gets_the_gradient(kind):
    conv = nn.Conv2d(8, 8, 3, padding=1)
    nn.init.zeros_(conv.weight)
    nn.init.ones_(conv.bias)
    kernel = kernel_of(kind, conv)
    scratch = Scratch()
    source = Maps(scratch, "source", 1, 8, 8, 8, tiles=kernel.tiles)
    target = Maps(scratch, "target", 1, 4, 4, 8, tiles=kernel.tiles)
    keep = torch.zeros(1, *kernel.keep_shape(8, 8), dtype=torch.bool)
    with torch.no_grad():
        kernel.forward(source, target, True, keep, scratch)
    assert keep.sum() == 4 * 4 * 8
