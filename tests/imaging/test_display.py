"""The display step against values worked out by hand, closed forms and pydicom's own VOI functions."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from pydicom.dataset import Dataset
from pydicom.pixels import apply_voi, apply_windowing

from pipeline.imaging import (
    ApplyWindowd,
    Display,
    Presentation,
    ReadMammogramd,
    Refusal,
    Table,
    VOIFunction,
    Window,
    read_mammogram,
)

from .scenes import mammogram_dataset, write_dicom

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


@pytest.mark.parametrize("slope", ["0", "0.0", "-0"])
def test_a_rescale_slope_of_zero_is_refused_and_a_missing_or_empty_one_is_one(tmp_path: Path, slope: str) -> None:
    with pytest.raises(Refusal, match="bad_display.*Rescale Slope"):
        read_mammogram(write_dicom(tmp_path / "zero.dcm", STORED, RescaleSlope=slope, RescaleIntercept="5"))
    for tags in ({}, {"RescaleSlope": ""}):
        assert read_mammogram(write_dicom(tmp_path / "one.dcm", STORED, **tags)).presentation.slope == 1


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


def _shown(tmp_path: Path, values: list[int], tags: dict, *, policy: str = "auto", **reading: object) -> list[float]:
    """Display values of stored values, written to a file and read."""
    stored = np.full((16, 16), values[-1], dtype=np.uint16)
    stored[0, : len(values)] = values
    mammogram = read_mammogram(write_dicom(tmp_path / "a.dcm", stored, **tags), **reading)
    shown = mammogram.presentation.display(policy).apply(torch.from_numpy(mammogram.stored.astype(np.float64)))
    return shown[0, : len(values)].tolist()


def _table(first: int, entries: list[int], bits: int) -> list[Dataset]:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries), first, bits])
    item.add_new("LUTData", "US", entries)
    return [item]


EXACT = {"WindowCenter": 100, "WindowWidth": 50, "VOILUTFunction": "LINEAR_EXACT"}
RAW = {"PresentationIntentType": "FOR PROCESSING", "PixelIntensityRelationship": "LIN"}


@pytest.mark.parametrize(
    ("tags", "values", "expected"),
    [
        # LINEAR: (x - 99.5) / 50 + 0.5
        ({"WindowCenter": 100, "WindowWidth": 51}, [74, 75, 99, 100, 124, 125], [0, 0.01, 0.49, 0.51, 0.99, 1]),
        # LINEAR of width 1: a step between 99 and 100
        ({"WindowCenter": 100, "WindowWidth": 1}, [99, 100], [0, 1]),
        # LINEAR_EXACT: (x - 100) / 50 + 0.5
        (EXACT, [74, 75, 80, 100, 125, 126], [0, 0, 0.1, 0.5, 1, 1]),
        # SIGMOID: 1 / (1 + exp(-4 (x - 100) / 40)); 0.7310586 = 1 / (1 + 1 / e)
        (
            {"WindowCenter": 100, "WindowWidth": 40, "VOILUTFunction": "SIGMOID"},
            [90, 100, 110, 140],
            [0.2689414, 0.5, 0.7310586, 0.9820138],
        ),
        # VOI LUT: below its first value the first entry, above its last one the last entry
        (
            {"VOILUTSequence": _table(100, [0, 51, 204, 255], 8), "WindowCenter": 7, "WindowWidth": 9},
            [99, 100, 101, 102, 103, 200],
            [0, 0, 0.2, 0.8, 1, 1],
        ),
        # rescale to -100 + 2 x, then (y - 100) / 200 + 0.5
        (
            EXACT | {"RescaleSlope": 2, "RescaleIntercept": -100, "WindowWidth": 200},
            [50, 75, 100, 150],
            [0, 0.25, 0.5, 1],
        ),
        # Modality LUT, then (y - 100) / 200 + 0.5
        (
            EXACT | {"ModalityLUTSequence": _table(10, [0, 50, 100, 1000], 16), "WindowWidth": 200},
            [9, 10, 11, 12, 13, 14],
            [0, 0, 0.25, 0.5, 1, 1],
        ),
        # several windows: the first
        (EXACT | {"WindowCenter": [100, 5], "WindowWidth": [50, 10]}, [80, 100], [0.1, 0.5]),
        # MONOCHROME1 and INVERSE, alone and together: once, after VOI
        (EXACT | {"PhotometricInterpretation": "MONOCHROME1"}, [75, 80, 125], [1, 0.9, 0]),
        (EXACT | {"PresentationLUTShape": "INVERSE"}, [75, 80, 125], [1, 0.9, 0]),
        (EXACT | {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"}, [80], [0.9]),
        # no VOI: all 4,096 values
        ({}, [0, 819, 4095], [0, 0.2, 1]),
    ],
)
def test_display_values_are_those_worked_out_by_hand(tmp_path: Path, tags: dict, values: list, expected: list) -> None:
    assert _shown(tmp_path, values, tags) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(("value", "limit"), [(3, 9), (9, 3), (3, None)])
def test_padded_values_are_black_and_named_while_their_neighbours_are_not(tmp_path: Path, value, limit) -> None:
    stored = np.full((16, 16), 819, dtype=np.uint16)
    stored[0, :4] = [2, 3, 9, 10]
    dataset = mammogram_dataset(stored, PhotometricInterpretation="MONOCHROME1")
    dataset.add_new("PixelPaddingValue", "US", value)
    if limit is not None:
        dataset.add_new("PixelPaddingRangeLimit", "US", limit)
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    mammogram = read_mammogram(tmp_path / "a.dcm")
    padded = [False, True, limit is not None, False]
    assert mammogram.padded[0, :4].tolist() == padded and mammogram.padded.sum() == sum(padded)
    expected = [0 if gone else 1 - x / 4095 for gone, x in zip(padded, [2, 3, 9, 10], strict=True)]
    assert mammogram.pixels[0, :4].tolist() == pytest.approx(expected, abs=1e-7)
    assert mammogram.pixels[1, 1] == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        # log2(1 + x) / 12, much radiation is dark
        ({"PixelIntensityRelationshipSign": 1}, [1, 0.75, 0.5, 0]),
        ({"PixelIntensityRelationshipSign": 1, "PhotometricInterpretation": "MONOCHROME1"}, [1, 0.75, 0.5, 0]),
        ({"PhotometricInterpretation": "MONOCHROME1"}, [1, 0.75, 0.5, 0]),
        ({"PixelIntensityRelationshipSign": -1, "PhotometricInterpretation": "MONOCHROME1"}, [0, 0.25, 0.5, 1]),
        # logarithms already: x / 4095
        (
            {"PixelIntensityRelationship": "LOG", "PixelIntensityRelationshipSign": 1},
            [1, 1 - 7 / 4095, 1 - 63 / 4095, 0],
        ),
    ],
)
def test_raw_values_are_refused_or_shown_by_their_logarithm(tmp_path: Path, tags: dict, expected: list) -> None:
    tags = RAW | {"WindowCenter": 5, "WindowWidth": 9} | tags  # the window is not meant for raw values
    with pytest.raises(Refusal, match="not_for_presentation"):
        _shown(tmp_path, [0], tags)
    assert _shown(tmp_path, [0, 7, 63, 4095], tags, for_processing="log") == pytest.approx(expected, abs=1e-7)
    with pytest.raises(Refusal, match="bad_display"):
        _shown(tmp_path, [0], tags, policy="window", for_processing="log")


def test_equal_thickness_makes_equal_steps_of_grey_in_a_raw_image() -> None:
    radiation = 16383 * torch.exp(-0.5 * torch.arange(6, dtype=torch.float64))  # Beer and Lambert
    shown = Display(VOIFunction.LOG, low=0, high=16383, invert=True).apply(radiation)
    assert torch.diff(shown).tolist() == pytest.approx([0.5 / math.log(16384)] * 5, rel=2e-3)
    stored = torch.tensor([1.0, 10.0], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(Display(VOIFunction.LOG, low=0, high=4095).apply(stored).sum(), stored)
    assert gradient.tolist() == pytest.approx([1 / 2 / math.log(4096), 1 / 11 / math.log(4096)])


@pytest.mark.parametrize(
    ("tags", "policy", "named"),
    [
        (
            {"WindowCenter": [100, 5], "WindowWidth": [50, 10], "WindowCenterWidthExplanation": ["NORMAL", "x"]},
            "auto",
            "window 1 of 2 NORMAL: 100, 50",
        ),
        (EXACT | {"WindowCenterWidthExplanation": "for Doe^Jane"}, "auto", "window 1 of 1: 100, 50"),
        (EXACT, "none", "full range of 12 bits"),
        (EXACT | {"VOILUTSequence": _table(0, [0, 1], 8) * 3}, "auto", "VOI LUT 1 of 3"),
        (EXACT | {"VOILUTSequence": _table(0, [0, 1], 8)}, "window", "window 1 of 1: 100, 50"),
        (
            {"WindowCenter": 2048, "WindowWidth": 4096, "WindowCenterWidthExplanation": "Full width of 12 bit data"},
            "auto",
            "full range of 12 bits, as the window says",
        ),
    ],
)
def test_provenance_names_the_transformation_that_was_taken(tmp_path: Path, tags: dict, policy: str, named) -> None:
    path = write_dicom(tmp_path / "a.dcm", np.full((16, 16), 100, np.uint16), **tags)
    item = ApplyWindowd(keys="image", policy=policy)(ReadMammogramd(keys="image")({"image": str(path)}))
    assert item["provenance"]["voi"] == named
