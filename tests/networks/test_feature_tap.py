"""The tapped map is the one before the ReLU, or the tap says why it cannot be."""

from __future__ import annotations

import pytest
import torch
from monai.networks.nets import DenseNet121
from torch import Tensor, nn

from pipeline.networks import FeatureTap, vgg16


def images(count: int = 2, size: int = 32) -> Tensor:
    return torch.rand(count, 1, size, size, generator=torch.Generator().manual_seed(0))


def narrow() -> nn.Module:
    return vgg16(weights="none", width=1 / 8, head="compact").train()


def test_tapped_map_equals_the_features_up_to_the_last_convolution_and_has_negatives() -> None:
    network, x = narrow(), images()
    tap = FeatureTap(network, "features.28")
    network(x)
    tapped = tap.take()
    with torch.no_grad():
        expected = network.features[:29](network.normalise(x))
    assert torch.equal(tapped, expected)
    assert (tapped < 0).float().mean() > 0.2 and (tapped > 0).float().mean() > 0.2


def test_gradients_flow_from_the_tapped_map_into_the_trained_layers() -> None:
    network = narrow()
    tap = FeatureTap(network, "features.28")
    network(images())
    tap.take().abs().mean().backward()
    assert network.features[28].weight.grad.abs().sum() > 0
    assert network.features[26].weight.grad is None and network.classifier[0].weight.grad is None


def test_eval_forwards_are_not_recorded_and_a_map_is_taken_once() -> None:
    network = narrow()
    tap = FeatureTap(network, "features.28")
    network.eval()(images())
    with pytest.raises(RuntimeError, match="'features.28' holds no feature map"):
        tap.take()
    network.train()(images())
    tap.take()
    with pytest.raises(RuntimeError, match="no forward in train mode"):
        tap.take()


def test_a_cleared_or_closed_tap_holds_nothing() -> None:
    network = narrow()
    tap = FeatureTap(network, "features.28")
    network(images())
    tap.clear()
    with pytest.raises(RuntimeError):
        tap.take()
    tap.close()
    network(images())
    with pytest.raises(RuntimeError):
        tap.take()


def test_the_tap_looks_through_a_data_parallel_wrapper() -> None:
    network = narrow()
    tap = FeatureTap(nn.DataParallel(network), "features.28")
    network(images())
    assert tap.take().shape == (2, 64, 2, 2)


@pytest.mark.parametrize("layer", ["features.99", "", "features.28.weight"])
def test_unknown_layer_is_refused_with_the_convolutions_that_exist(layer: str) -> None:
    with pytest.raises(ValueError, match=r"is not in VGG16; its convolutions are features.19, .*, features.28"):
        FeatureTap(narrow(), layer)


def test_in_place_relu_behind_the_layer_is_refused_at_once() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(inplace=True))
    with pytest.raises(ValueError, match=r"works in place.*set inplace=False on \.?1"):
        FeatureTap(network, "0")
    network[1].inplace = False
    FeatureTap(network, "0")


class Residual(nn.Module):
    """In-place ReLU that no list of layers shows, as in torchvision's ResNet."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(self.norm(self.convolution(x)), inplace=True)


def test_a_map_that_was_overwritten_in_place_elsewhere_is_refused_when_it_is_taken() -> None:
    network = Residual().train()
    tap = FeatureTap(network, "norm")
    network(images())
    with pytest.raises(ValueError, match="'norm' works in place and has overwritten.*inplace=False.*tap the conv"):
        tap.take()


def test_a_norm_between_convolution_and_in_place_relu_leaves_the_map_whole() -> None:
    network, x = Residual().train(), images()
    tap = FeatureTap(network, "convolution")
    network(x)
    assert torch.equal(tap.take(), network.convolution(x))


@pytest.fixture(scope="module")
def densenet() -> nn.Module:
    torch.manual_seed(0)
    return DenseNet121(spatial_dims=2, in_channels=1, out_channels=2).train()


@pytest.mark.parametrize("convolution", ["conv1", "conv2"])
def test_late_convolutions_of_densenet_are_tapped_whole_although_its_relus_are_in_place(
    densenet: nn.Module, convolution: str
) -> None:
    layer = f"features.denseblock4.denselayer16.layers.{convolution}"
    seen: list[Tensor] = []
    copy = densenet.get_submodule(layer).register_forward_hook(lambda *given: seen.append(given[2].clone()))
    tap = FeatureTap(densenet, layer)
    densenet(images(size=64))
    tapped = tap.take()
    copy.remove()
    tap.close()
    assert torch.equal(tapped, seen[0]) and (tapped < 0).any()


@pytest.mark.parametrize(
    ("layer", "at_once"),
    [("features.denseblock4.denselayer16.layers.norm2", True), ("features.norm5", False)],
)
def test_norms_of_densenet_whose_relu_is_in_place_are_refused(densenet: nn.Module, layer: str, at_once: bool) -> None:
    # norm5 and the ReLU behind it stand in different containers, so that only the written map tells.
    if at_once:
        with pytest.raises(ValueError, match="works in place and would overwrite"):
            FeatureTap(densenet, layer)
        return
    tap = FeatureTap(densenet, layer)
    densenet(images(size=64))
    with pytest.raises(ValueError, match="works in place and has overwritten"):
        tap.take()
    tap.close()
