"""VGG16 for grey images equals torchvision's on a grey image repeated three times; frozen layers stay frozen."""

from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision
from torch import Tensor, nn

from pipeline.networks import VGG16, WeightsError, freeze_except, vgg16, weights_digest
from pipeline.networks.vgg import GREY_MEAN, GREY_STD


@pytest.fixture(scope="module")
def torchvision_features() -> nn.Sequential:
    """torchvision's VGG16 convolutions with random weights and biases; the heads are left out (0.5 GB)."""
    torch.manual_seed(0)
    features = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"], batch_norm=False)
    for layer in features:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.normal_(layer.bias, std=0.1)
    return features.eval()


@pytest.fixture(scope="module")
def weights_file(torchvision_features: nn.Sequential, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "vgg16.pt"
    state = {f"features.{name}": value for name, value in torchvision_features.state_dict().items()}
    torch.save(state | {"classifier.0.weight": torch.zeros(2, 2)}, path)  # a head that does not fit is left aside
    return path


def grey_images(size: int = 32) -> Tensor:
    return torch.rand(2, 1, size, size, generator=torch.Generator().manual_seed(0))


def narrow(**settings) -> VGG16:
    return vgg16(**{"weights": "none", "width": 1 / 16, "head": "compact"} | settings)


def test_summed_colour_filters_equal_torchvision_on_a_repeated_grey_channel(
    torchvision_features: nn.Sequential, weights_file: Path
) -> None:
    network = vgg16(weights=weights_file, head="compact").eval()
    grey = grey_images()
    with torch.no_grad():
        ours = network.features(network.normalise(grey))
        normalised = torchvision.transforms.functional.normalize(
            grey.repeat(1, 3, 1, 1), [GREY_MEAN] * 3, [GREY_STD] * 3
        )
        theirs = torchvision_features(normalised)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert theirs.abs().max() > 0.1


def test_layers_stand_at_torchvisions_indices(torchvision_features: nn.Sequential) -> None:
    ours = vgg16(weights="none", width=1 / 8, head="compact").features
    assert [type(layer) for layer in ours] == [type(layer) for layer in torchvision_features]
    assert isinstance(ours[28], nn.Conv2d) and not any(isinstance(layer, nn.Conv2d) for layer in ours[29:])
    assert not any(layer.inplace for layer in ours if isinstance(layer, nn.ReLU))


def test_normalisation_is_ahead_of_the_zero_padding() -> None:
    # Folded into the first layer the padding would stand for black: the border of a flat mean image tells.
    network = narrow().eval()
    flat = torch.full((1, 1, 32, 32), GREY_MEAN)
    with torch.no_grad():
        assert network.normalise(flat).abs().max() < 1e-6
        first = network.features[0](network.normalise(flat))
    torch.testing.assert_close(first, network.features[0].bias.reshape(1, -1, 1, 1).expand_as(first))


@pytest.mark.parametrize("head", ["compact", "vgg"])
def test_one_logit_an_image_at_any_size(head: str) -> None:
    network = narrow(head=head).eval()
    for size in ((32, 32), (64, 48)):
        assert network(torch.rand(3, 1, *size)).shape == (3, 1)


def test_the_paper_trains_last_convolution_and_classifier() -> None:
    network = narrow()
    trained = {name.rpartition(".")[0] for name, p in network.named_parameters() if p.requires_grad}
    assert trained == {"features.28", "classifier.0", "classifier.3"}
    assert all(p.requires_grad for p in narrow(trainable="all").parameters())


def test_frozen_modules_stay_in_eval_mode_and_dropout_of_the_head_is_active() -> None:
    network = narrow(dropout=0.5).train()
    modes = {name: module.training for name, module in network.named_modules()}
    assert modes[""] and modes["features"] and modes["features.28"] and modes["classifier.2"]
    awake = {name for name, mode in modes.items() if mode}
    assert awake == {"", "features", "features.28", "classifier", *(f"classifier.{i}" for i in range(4))}
    x = grey_images()
    assert not torch.equal(network(x), network(x)), "dropout"
    assert torch.equal(network.eval()(x), network(x))
    assert not any(module.training for module in network.modules())


def test_frozen_batch_statistics_and_dropout_do_not_run_in_train_mode() -> None:
    class Sleeper(nn.Module):
        """A composite whose own `training` flag matters, as in DenseNet's dropout."""

        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(3)

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.dropout(self.norm(x), 0.5, self.training)

    network = nn.Sequential(Sleeper(), nn.Linear(3, 1))
    frozen = freeze_except(network, ("1",))
    assert frozen == ["0", "0.norm"]


def test_unknown_trainable_name_is_refused_with_the_modules_that_exist() -> None:
    with pytest.raises(ValueError, match=r"'features.99'.*top-level modules are normalise, features, pool, classifier"):
        narrow(trainable=("features.99",))


def test_equal_seeds_give_equal_weights_and_leave_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    first, again, other = narrow(seed=1), narrow(seed=1), narrow(seed=2)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.features[0].weight, other.features[0].weight)


@pytest.mark.parametrize("settings", [{"width": 0}, {"width": 1e-3}, {"head": "other"}])
def test_settings_without_a_network_are_refused(settings: dict) -> None:
    with pytest.raises(ValueError, match="allowed are"):
        narrow(**settings)


CHOICES = r'"imagenet".*path of a state dict.*"none"'


def test_no_choice_of_weights_names_the_choices() -> None:
    with pytest.raises(WeightsError, match="nothing chosen.*" + CHOICES):
        vgg16(weights=None)


def test_missing_weights_file_names_it_and_the_choices(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no file '.*gone\.pt'.*" + CHOICES):
        vgg16(weights=tmp_path / "gone.pt")


def test_weights_out_of_reach_are_an_error_and_no_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_args, **_settings):
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)
    with pytest.raises(WeightsError, match="'imagenet' is out of reach.*no route to host.*" + CHOICES):
        vgg16(weights="imagenet")


def test_weights_fit_the_full_width_only(weights_file: Path) -> None:
    with pytest.raises(WeightsError, match=r"width=0\.5; weights exist for width=1\.0 only"):
        vgg16(weights=weights_file, width=0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("features.28.bias"), "does not fit this VGG16 in features.28.bias"),
        (lambda state: state.update({"features.29.weight": torch.zeros(1)}), "does not fit.*features.29.weight"),
        (
            lambda state: state.update({"features.0.weight": torch.zeros(64, 2, 3, 3)}),
            "does not fit.*features.0.weight",
        ),
        (lambda state: [state.pop(k) for k in list(state) if k.startswith("features")], "no entry 'features"),
    ],
)
def test_keys_that_do_not_fit_are_named(weights_file: Path, tmp_path: Path, change, message: str) -> None:
    state = torch.load(weights_file, weights_only=True)
    change(state)
    torch.save(state, tmp_path / "changed.pt")
    with pytest.raises(WeightsError, match=message):
        vgg16(weights=tmp_path / "changed.pt", head="compact")


def test_a_file_that_is_no_state_dict_is_refused_without_running_it(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(WeightsError, match="no state dict that loads safely"):
        vgg16(weights=tmp_path / "text.pt", head="compact")
    torch.save(torch.zeros(2), tmp_path / "tensor.pt")
    with pytest.raises(WeightsError, match="holds a Tensor, expected a state dict"):
        vgg16(weights=tmp_path / "tensor.pt", head="compact")


def test_weights_digest_is_the_sha256_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    assert weights_digest(tmp_path / "file") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
