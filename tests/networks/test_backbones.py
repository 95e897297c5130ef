"""Networks by name: torchvision's classifiers with grey input and one logit, and the last convolution."""

import pytest
import torch
from torchvision import models

from pipeline.methods import ARFL
from pipeline.networks import WeightsError, backbone, last_convolution, vgg16
from pipeline.networks.vgg import DropMaxPool

IMAGES = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "convolution"),
    [("resnet18", "body.layer4.1.conv2"), ("squeezenet1_1", "body.features.12.expand3x3"),
     ("densenet121", "body.features.denseblock4.denselayer16.conv2")],
)  # fmt: skip
def test_a_torchvision_classifier_gives_one_logit_and_trains_its_end(name, convolution):
    network = backbone(name, weights="none").eval()
    assert network(IMAGES).shape == (2, 1)
    assert last_convolution(network) == convolution
    trained = {key for key, parameter in network.named_parameters() if parameter.requires_grad}
    assert f"{convolution}.weight" in trained and all(key.startswith((convolution, "body.")) for key in trained)
    assert len(trained) <= 4
    assert backbone(**network.settings, weights="none").settings == network.settings
    ARFL(network)  # its tap finds no activation that works in place


def test_weights_go_into_the_body_and_not_the_head(tmp_path):
    torch.manual_seed(5)
    source = models.resnet18(weights=None, num_classes=1000)
    torch.save(source.state_dict(), tmp_path / "resnet18.pt")
    network = backbone("resnet18", weights=tmp_path / "resnet18.pt").eval()
    source.fc = network.body.fc
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = source.eval()((IMAGES.repeat(1, 3, 1, 1) - mean.view(3, 1, 1)) / std.view(3, 1, 1))
    torch.testing.assert_close(network(IMAGES), expected)
    assert network.pretrained
    with pytest.raises(WeightsError, match="does not fit resnet34"):
        backbone("resnet34", weights=tmp_path / "resnet18.pt")


def test_unknown_names_and_missing_choices_are_refused():
    with pytest.raises(ValueError, match="backbone 'vgg99' is unknown; allowed are 'vgg16'"):
        backbone("vgg99", weights="none")
    with pytest.raises(ValueError, match="several outputs"):
        backbone("googlenet", weights="none")
    with pytest.raises(WeightsError, match="nothing chosen"):
        backbone("resnet18", weights=None)


def test_frozen_layers_stay_in_eval_mode():
    network = backbone("resnet18", weights="none").train()
    assert network.training and not network.body.bn1.training


def test_drop_max_takes_the_second_largest_value_of_each_window():
    maps = torch.randn(2, 3, 7, 9, generator=torch.Generator().manual_seed(1))
    windows = maps[:, :, :6, :8].unfold(2, 2, 2).unfold(3, 2, 2).flatten(-2)
    assert torch.equal(DropMaxPool()(maps), windows.sort(dim=-1).values[..., 2])
    network = vgg16(weights="none", width=0.25, drop_max=True, head="compact")
    assert [type(layer).__name__ for layer in network.features if "Pool" in type(layer).__name__][:2] == [
        "DropMaxPool", "MaxPool2d"
    ]  # fmt: skip
    assert network(IMAGES).shape == (2, 1)


def test_a_layer_that_is_no_convolution_is_refused_by_arfl():
    with pytest.raises(ValueError, match="'features.29' is a ReLU, no convolution; the last one is 'features.28'"):
        ARFL(vgg16(weights="none", width=0.0625, head="compact"), layer="features.29")
