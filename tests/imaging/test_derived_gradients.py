"""The derivative at a stored picture is autograd's through `Preparation.apply`, and can be turned round."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.transforms import Compose

from pipeline.imaging import (
    ApplyWindowd,
    CropToBreastd,
    Display,
    Mammogram,
    OrientChestWalld,
    Preparation,
    Presentation,
    ReadMammogramd,
    Resize,
    ResizeImaged,
    SegmentBreastd,
    Stretch,
    StretchContrastd,
    Table,
    Window,
    prepare_item,
    read_mammogram,
)
from pipeline.imaging.derivative import Derivative
from pipeline.imaging.writing import ACQUISITION_STYLES, AcquisitionStyle, write_mammogram

from .scenes import breast_scene


def prepared(path, style: AcquisitionStyle, *, stretch: bool, size: int = 48) -> tuple[Preparation, Mammogram]:
    scene = breast_scene(250, 190).astype(np.float32)
    padding = np.zeros(scene.shape, dtype=bool)
    padding[:, 185:] = True
    write_mammogram(
        path, scene, style=style, laterality="L", view="CC", spacing_mm=(0.2, 0.2), patient_id="p", study_uid="2.25.1",
        series_uid="2.25.2", instance_uid="2.25.3", padding_mask=padding,
    )  # fmt: skip
    steps = [ReadMammogramd("image"), ApplyWindowd("image"), SegmentBreastd("image")]
    steps += [StretchContrastd("image")] if stretch else []
    steps += [CropToBreastd("image"), OrientChestWalld("image"), ResizeImaged("image", image_size=size)]
    return prepare_item(Compose(steps), {"image": str(path)})["preparation"], read_mammogram(path)


def by_autograd(preparation: Preparation, mammogram: Mammogram, gradient: torch.Tensor) -> torch.Tensor:
    stored = torch.from_numpy(mammogram.stored.astype(np.float32)).requires_grad_(True)
    return torch.autograd.grad(preparation.apply(stored), stored, gradient)[0]


@pytest.mark.parametrize("style", ACQUISITION_STYLES, ids=lambda style: style.name)
@pytest.mark.parametrize("stretch", [False, True])
def test_pull_is_autograd_through_the_preparation(style: AcquisitionStyle, stretch: bool, tmp_path) -> None:
    preparation, mammogram = prepared(tmp_path / "a.dcm", style, stretch=stretch)
    gradient = torch.randn(1, *preparation.shape, generator=torch.Generator().manual_seed(0))
    derivative = Derivative(preparation, mammogram)
    expected = by_autograd(preparation, mammogram, gradient)
    assert torch.allclose(derivative.pull(gradient), expected, rtol=1e-3, atol=1e-5 * expected.abs().max())
    assert torch.equal(derivative.pull(gradient) != 0, expected != 0)
    assert not derivative.seen()[torch.from_numpy(mammogram.padded)].any()


@pytest.mark.parametrize("style", ACQUISITION_STYLES, ids=lambda style: style.name)
def test_push_is_the_transpose_of_pull_and_the_change_of_the_prepared_picture(style, tmp_path) -> None:
    preparation, mammogram = prepared(tmp_path / "a.dcm", style, stretch=False)
    derivative = Derivative(preparation, mammogram)
    random = torch.Generator().manual_seed(0)
    change = torch.rand(mammogram.stored.shape, generator=random)  # upwards: a table's slope is that to the right
    gradient = torch.randn(1, *preparation.shape, generator=random)
    one, other = (derivative.push(change) * gradient).sum(), (change * derivative.pull(gradient)).sum()
    assert one.item() == pytest.approx(other.item(), rel=1e-3, abs=1e-5)
    stored = torch.from_numpy(mammogram.stored.astype(np.float64))
    difference = (preparation.apply(stored + 1e-4 * change) - preparation.apply(stored)) / 1e-4
    assert (difference - derivative.push(change)).norm() < 1e-3 * difference.norm()


def test_realise_makes_the_wished_change_inside_the_breast(tmp_path) -> None:
    preparation, mammogram = prepared(tmp_path / "a.dcm", ACQUISITION_STYLES[0], stretch=False)
    derivative = Derivative(preparation, mammogram)
    wished = 1e-3 * torch.randn(1, *preparation.shape, generator=torch.Generator().manual_seed(0)).sign()
    change = derivative.realise(wished)
    whole = derivative.push(derivative.seen().float() / derivative.slopes.where(derivative.seen(), torch.ones(())))
    inside = whole > 0.99
    assert inside.float().mean() > 0.2
    assert (derivative.push(change) - wished)[inside].norm() < 0.1 * wished[inside].norm()
    assert not change[~derivative.seen()].any()


def staircase() -> tuple[Preparation, Mammogram]:
    """A table of 12 bits in which 16 levels share an output; every pixel stands in the middle of a step."""
    table = Table(first=0, entries=tuple(level // 16 for level in range(4096)), bits=8)
    presentation = Presentation(stored_range=(0, 4095), bits_stored=12, tables=(table,), windows=(Window(1, 2),))
    stored = np.full((32, 32), 16 * 100 + 7, dtype=np.uint16)
    preparation = Preparation((32, 32)).then(presentation.display()).then(Resize((32, 32), (8, 8)))
    return preparation, Mammogram(stored, presentation, laterality="L", view="CC")  # type: ignore[arg-type]


def test_a_staircase_is_seen_by_a_step_that_reaches_over_it() -> None:
    preparation, mammogram = staircase()
    assert not Derivative(preparation, mammogram).seen().any()
    assert not Derivative(preparation, mammogram, reach=2).seen().any()
    assert Derivative(preparation, mammogram, reach=16).slopes.unique().item() == pytest.approx(1 / 16 / 255, rel=1e-5)


def test_reach_does_not_look_into_padding_or_beyond_the_bits() -> None:
    presentation = Presentation(stored_range=(0, 255), bits_stored=8, padding=(0.0, 0.0))
    stored = np.array([[0, 1], [254, 255]], dtype=np.uint8)
    preparation = Preparation((2, 2)).then(presentation.display())
    slopes = Derivative(preparation, Mammogram(stored, presentation, "L", "CC"), reach=9).slopes  # type: ignore[arg-type]
    assert torch.allclose(slopes, torch.tensor([[0.0, 1 / 255], [1 / 255, 1 / 255]]), rtol=1e-4)


def test_what_the_derivative_cannot_follow_is_refused() -> None:
    preparation, mammogram = staircase()
    with pytest.raises(ValueError, match="after its resize"):
        Derivative(preparation.then(Stretch(0.1, 0.9)), mammogram)
    with pytest.raises(ValueError, match="shape"):
        Derivative(Preparation((3, 3)).then(Display("RANGE", low=0, high=1)), mammogram)  # type: ignore[arg-type]
