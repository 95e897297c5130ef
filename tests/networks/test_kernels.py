"""One layer of the engine, forward and back, against PyTorch in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pipeline.networks.kernels import GreyKernel, Maps, WinogradKernel, empty_mask
from pipeline.networks.loops import loop_threads
from pipeline.networks.scratch import Scratch

KINDS = st.sampled_from(["winograd", "grey"])
SIDES = st.integers(2, 21)


CHANNELS = st.sampled_from([1, 8, 12, 65])  # loops take 64 at a time


@pytest.fixture(autouse=True)
def as_in_the_engine():
    with loop_threads():
        yield


def near_a_kink(before, pool):
    """Where float32 and float64 may take different branches: a maximum next to 0, or next to its neighbour."""
    limit = 1e-4 * before.abs().max()
    if not pool:
        return before.abs() < limit
    windows = before[..., : before.shape[2] // 2 * 2, : before.shape[3] // 2 * 2].unfold(2, 2, 2).unfold(3, 2, 2)
    best, second = windows.flatten(-2).topk(2).values.unbind(-1)
    return (best.abs() < limit) | ((best - second < limit) & (best > 0))


def kernel_of(kind, conv):
    return GreyKernel(conv, 0.4, 0.2) if kind == "grey" else WinogradKernel(conv, 9000)


@settings(deadline=None, max_examples=60)
@given(KINDS, st.booleans(), SIDES, SIDES, st.integers(1, 3), CHANNELS, CHANNELS, st.integers(0, 99))
def test_a_layer_is_convolution_relu_and_pooling(kind, pool, height, width, count, inputs, outputs, seed):
    generator = torch.Generator().manual_seed(seed)
    inputs = 1 if kind == "grey" else inputs
    conv = nn.Conv2d(inputs, outputs, 3, padding=1)
    for parameter in conv.parameters():
        nn.init.normal_(parameter, generator=generator)
    kernel = kernel_of(kind, conv)
    scratch = Scratch()
    source = Maps(scratch, "source", count, height, width, inputs)
    small = (height // 2, width // 2) if pool else (height, width)
    target = Maps(scratch, "target", count, *small, outputs)
    back = Maps(scratch, "back", count, height, width, inputs)
    values = torch.randn(count, height, width, inputs, generator=generator)
    source.image.copy_(values)
    source.frame(0.4 if kind == "grey" else 0.0)
    mask = empty_mask(count, height, width, outputs)
    with torch.no_grad():
        kernel.forward(source, target, pool, mask, scratch)
    result = target.image.clone()

    exact = values.double().requires_grad_(True)
    seen = exact.permute(0, 3, 1, 2)
    seen = (seen - 0.4) / 0.2 if kind == "grey" else seen
    before = conv.double()(seen)
    expected = before.relu()
    expected = nn.functional.max_pool2d(expected, 2) if pool else expected
    expected = expected.permute(0, 2, 3, 1)
    assert (result - expected).norm() <= 1e-5 * expected.norm()

    gradient = torch.randn(result.shape, generator=generator)
    gradient[near_a_kink(before.detach(), pool).permute(0, 2, 3, 1)] = 0
    target.data.fill_(7.0)  # what lies outside the image must not come in
    target.image.copy_(gradient)
    with torch.no_grad():
        kernel.adjoint(target, mask, back, pool, scratch)
    (expected_gradient,) = torch.autograd.grad((expected * gradient.double()).sum(), exact)
    assert (back.image - expected_gradient).norm() <= 1e-4 * expected_gradient.norm().clamp_min(1e-3)


@pytest.mark.parametrize("kind", ["winograd", "grey"])
def test_of_equal_values_in_a_window_the_first_gets_the_gradient(kind):
    inputs = 1 if kind == "grey" else 8
    conv = nn.Conv2d(inputs, 8, 3, padding=1)
    nn.init.zeros_(conv.weight)
    nn.init.ones_(conv.bias)
    kernel = kernel_of(kind, conv)
    scratch = Scratch()
    source, target = Maps(scratch, "source", 1, 8, 8, inputs), Maps(scratch, "target", 1, 4, 4, 8)
    mask = empty_mask(1, 8, 8, 8)
    with torch.no_grad():
        kernel.forward(source, target, True, mask, scratch)
    upper_left = sum(1 << (4 * y + x) for y in (0, 2) for x in (0, 2))
    assert (mask.int() == upper_left).all()
