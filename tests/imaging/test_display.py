"""The display step against closed forms and against pydicom's own VOI functions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydicom.dataset import Dataset
from pydicom.pixels import apply_voi, apply_windowing

from pipeline.imaging import Display, Presentation, Refusal, Table, VOIFunction, Window

STORED = np.arange(4096, dtype=np.uint16).reshape(64, 64)


def _dataset(**tags: object) -> Dataset:
    dataset = Dataset()
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsStored, dataset.BitsAllocated, dataset.PixelRepresentation = 12, 16, 0
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    return dataset


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("centre", "width"), [(2048.0, 4096.0), (1500.5, 333.0), (100.0, 2.0)])
def test_windows_equal_pydicom(function: str, centre: float, width: float) -> None:
    dataset = _dataset(WindowCenter=centre, WindowWidth=width, VOILUTFunction=function)
    expected = apply_windowing(STORED, dataset) / 4095
    shown = Display(VOIFunction(function), centre=centre, width=width).apply(torch.from_numpy(STORED).double())
    np.testing.assert_allclose(shown.numpy(), expected, atol=1e-9)


def test_voi_table_equals_pydicom_at_integers() -> None:
    entries = tuple(int(value) for value in np.sort(np.random.default_rng(0).integers(0, 4096, 1000)))
    item = Dataset()
    item.LUTDescriptor = [1000, 625, 12]
    item.add_new("LUTData", "US", list(entries))
    item["LUTDescriptor"].VR = "US"
    expected = apply_voi(STORED, _dataset(VOILUTSequence=[item])) / 4095
    shown = Display(VOIFunction.TABLE, voi_table=Table(first=625, entries=entries, bits=12))
    np.testing.assert_allclose(shown.apply(torch.from_numpy(STORED).double()).numpy(), expected, atol=1e-12)


def test_voi_table_is_linear_between_integers_and_has_the_slope_as_gradient() -> None:
    table = Table(first=10, entries=(0, 100, 150), bits=8)
    values = torch.tensor([10.25, 11.5, 9.0, 13.0], dtype=torch.float64, requires_grad=True)
    mapped = table.apply(values)
    torch.testing.assert_close(mapped.detach(), torch.tensor([25.0, 125.0, 0.0, 150.0], dtype=torch.float64))
    (gradient,) = torch.autograd.grad(mapped.sum(), values)
    torch.testing.assert_close(gradient, torch.tensor([100.0, 50.0, 0.0, 0.0], dtype=torch.float64))


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID", "RANGE"])
def test_invert_happens_once_after_voi(function: str) -> None:
    settings = {"centre": 700.0, "width": 900.0, "low": 0.0, "high": 4095.0}
    stored = torch.from_numpy(STORED).double()
    plain = Display(VOIFunction(function), **settings).apply(stored)
    inverted = Display(VOIFunction(function), invert=True, **settings).apply(stored)
    torch.testing.assert_close(inverted, 1 - plain)


def test_padding_is_black_also_when_inverted_and_carries_no_gradient() -> None:
    stored = torch.tensor([[0.0, 30.0, 31.0, 4000.0]], dtype=torch.float64, requires_grad=True)
    display = Display(VOIFunction.RANGE, low=0, high=4095, padding=(0.0, 30.0), invert=True)
    shown = display.apply(stored)
    assert shown[0, :2].tolist() == [0, 0]
    assert shown[0, 2].item() == pytest.approx(1 - 31 / 4095)
    (gradient,) = torch.autograd.grad(shown.sum(), stored)
    assert gradient[0, :2].tolist() == [0, 0]
    assert gradient[0, 2].item() == pytest.approx(-1 / 4095)


def test_modality_rescale_comes_before_the_window() -> None:
    display = Display(VOIFunction.LINEAR_EXACT, centre=0.0, width=100.0, slope=2.0, intercept=-1000.0)
    assert display.apply(torch.tensor([[500.0, 520.0]])).tolist() == [[0.5, pytest.approx(0.9)]]


def test_signed_pixels_without_window_span_their_stored_range() -> None:
    display = Presentation(stored_range=(-2048.0, 2047.0), bits_stored=12).display()
    assert display.apply(torch.tensor([[-2048.0, 2047.0]])).tolist() == [[0.0, 1.0]]


@pytest.mark.parametrize(
    ("bits", "window", "explanation", "bent"),
    [
        (8, (128, 256), "Full width of 8 bit data", False),
        (16, (32768, 65536), "Full width of 8 bit data", False),
        (12, (2048, 4096), "", True),
        (8, (100, 200), "", True),
    ],
)
def test_only_a_window_over_all_bits_of_presented_data_is_left_out(bits, window, explanation, bent) -> None:
    facts = Presentation(
        stored_range=(0.0, 2.0**bits - 1),
        bits_stored=bits,
        windows=(Window(*window, explanation),),
        function=VOIFunction.SIGMOID,
    )
    assert (facts.display().function is VOIFunction.SIGMOID) == bent


def test_policy_chooses_table_window_or_range_and_refuses_what_is_missing() -> None:
    table = Table(first=0, entries=(0, 4095), bits=12)
    facts = Presentation((0.0, 4095.0), 12, windows=(Window(900, 100),), tables=(table,))
    assert [facts.display(policy).function for policy in ("auto", "lut", "window", "none")] == [
        "TABLE",
        "TABLE",
        "LINEAR",
        "RANGE",
    ]
    with pytest.raises(Refusal, match="bad_display"):
        Presentation((0.0, 4095.0), 12).display("lut")
    with pytest.raises(Refusal, match="bad_display.*Window Width 0.5"):
        Presentation((0.0, 4095.0), 12, windows=(Window(900, 0.5),)).display()
    with pytest.raises(ValueError, match="auto, lut, window, none"):
        facts.display("sharp")
