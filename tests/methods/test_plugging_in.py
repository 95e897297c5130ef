"""The handlers on trainers that are not ours, and the combinations that are refused."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigWorkflow
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.utils import set_determinism
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pipeline.attacks import PGD
from pipeline.methods import ARFL, AdversarialTraining, PlugInError
from pipeline.methods.base import attached, method_of
from pipeline.networks import vgg16
from pipeline.runs.errors import own_error

LAYER = "features.denseblock4.denselayer16.layers.conv2"
# A configuration of somebody else: DenseNet, two logits, cross-entropy, z-scored MetaTensors, decollated batches.
THEIRS = {
    "imports": ["$import torch", "$import monai"],
    "device": "cpu",
    "images": "$(torch.randn(6, 1, 32, 32, generator=torch.Generator().manual_seed(0))).clamp(-2.5, 2.5)",
    "items": "$[{'image': monai.data.MetaTensor(x), 'label': i % 2, 'name': str(i)} for i, x in enumerate(@images)]",
    "network_def": {"_target_": "DenseNet121", "spatial_dims": 2, "in_channels": 1, "out_channels": 2},
    "network": "$@network_def.to(@device)",
    "train": {
        "loss_function": {"_target_": "torch.nn.CrossEntropyLoss"},
        "optimizer": {"_target_": "torch.optim.SGD", "params": "$@network.parameters()", "lr": 0.01},
        "dataset": {"_target_": "Dataset", "data": "@items"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@train#dataset", "batch_size": 3},
        "handlers": [
            {
                "_target_": "pipeline.methods.AdversarialTraining",
                "network": "@network",
                "standard_ratio": 0.25,
                "attack": {"_target_": "pipeline.attacks.PGD", "budget": 0.2, "steps": 2, "bounds": [-2.5, 2.5]},
            },
            {"_target_": "pipeline.methods.ARFL", "network": "@network", "layer": LAYER, "weight": 2.0},
            {"_target_": "StatsHandler", "output_transform": "$monai.handlers.from_engine(['loss'], first=True)"},
        ],
        "trainer": {
            "_target_": "SupervisedTrainer",
            "max_epochs": 1,
            "device": "@device",
            "train_data_loader": "@train#dataloader",
            "network": "@network",
            "loss_function": "@train#loss_function",
            "optimizer": "@train#optimizer",
            "train_handlers": "@train#handlers",
        },
    },
    "initialize": ["$monai.utils.set_determinism(seed=0)"],
    "run": ["$@train#trainer.run()"],
}


@pytest.fixture
def workflow(tmp_path: Path):
    def build(**override) -> ConfigWorkflow:
        (tmp_path / "train.json").write_text(json.dumps(THEIRS))
        (tmp_path / "metadata.json").write_text("{}")
        return ConfigWorkflow(str(tmp_path / "train.json"), logging_file=False, workflow_type=None, **override)

    yield build
    set_determinism(None)


def error_of(workflow: ConfigWorkflow) -> str:
    """Our own error inside MONAI's "Failed to evaluate", as the command line prints it last."""
    with pytest.raises(RuntimeError, match="Failed to (evaluate|instantiate)") as raised:
        workflow.run()
    return str(own_error(raised.value))


def test_both_handlers_work_in_a_train_json_that_is_not_ours(workflow) -> None:
    theirs = workflow()
    theirs.initialize()
    trainer = theirs.parser.get_parsed_content("train#trainer")
    network = theirs.parser.get_parsed_content("network")
    images = theirs.parser.get_parsed_content("images")
    maps: list[Tensor] = []
    network.get_submodule(LAYER).register_forward_hook(
        lambda module, _, output: maps.append(output.detach().clone()) if module.training else None
    )
    before = {name: value.clone() for name, value in network.state_dict().items()}
    seen = []

    def look(engine: SupervisedTrainer) -> None:
        seen.append(engine.state.output)

    trainer.add_event_handler(Events.ITERATION_COMPLETED, look)
    theirs.run()

    assert len(seen) == 2 and len(maps) == 2, "one training forward an iteration; attacks are none"
    for iteration, (rows, f) in enumerate(zip(seen, maps, strict=True)):
        x = torch.stack([row["image"] for row in rows])
        logits = torch.stack([row["pred"] for row in rows]).detach()
        labels = torch.tensor([0, 1, 0] if iteration == 0 else [1, 0, 1])
        assert logits.shape == (6, 2)
        assert torch.equal(x[:3], images[3 * iteration : 3 * iteration + 3])
        assert 0.15 < (x[3:] - x[:3]).abs().max() <= 0.2 + 1e-6 and x.abs().max() <= 2.5
        robust = -torch.sigmoid(f.abs())
        expected = 0.25 * (cross_entropy(logits[:3], labels) + 2 * robust[:3].mean())
        expected = expected + 0.75 * (cross_entropy(logits[3:], labels) + 2 * robust[3:].mean())
        assert float(rows[0]["loss"]) == pytest.approx(float(expected), abs=1e-5)
        assert (f < 0).any(), "before the ReLU"
    after = network.state_dict()
    assert not torch.equal(after["class_layers.out.weight"], before["class_layers.out.weight"])
    # 2 training forwards and no attack pass went through the batch statistics
    assert int(after["features.norm0.num_batches_tracked"]) == 2
    assert {"classification_loss", "robust_loss", "attack_success"} <= trainer.state.metrics.keys()


def test_forgotten_bounds_of_a_z_scored_input_are_an_error(workflow) -> None:
    theirs = workflow(**{"train#handlers#0#attack#bounds": [0.0, 1.0]})
    theirs.initialize()
    assert "the images hold values from -2.5 to 2.5, the attack's bounds are (0.0, 1.0)" in error_of(theirs)


def test_a_layer_that_is_no_convolution_is_an_error(workflow) -> None:
    theirs = workflow(**{"train#handlers#1#layer": "features.norm5"})
    theirs.initialize()
    assert "'features.norm5' is a BatchNorm2d, no convolution; the last one is" in error_of(theirs)


def batches(count: int = 2) -> list[dict]:
    generator = torch.Generator().manual_seed(0)
    return [
        {"image": torch.rand(4, 1, 32, 32, generator=generator), "label": torch.tensor([[0.0], [1.0], [1.0], [0.0]])}
        for _ in range(count)
    ]


def narrow(**settings) -> nn.Module:
    return vgg16(**{"weights": "none", "width": 1 / 16, "head": "compact", "dropout": 0.0} | settings)


def trainer_of(network: nn.Module, handlers: list, *, data: list | None = None, rate: float = 1e-2, epochs: int = 1):
    return SupervisedTrainer(
        device="cpu", max_epochs=epochs, train_data_loader=batches() if data is None else data, network=network,
        optimizer=torch.optim.AdamW(network.parameters(), rate, weight_decay=0.1),
        loss_function=nn.BCEWithLogitsLoss(), train_handlers=handlers, decollate=False,
    )  # fmt: skip


def dual(network: nn.Module) -> AdversarialTraining:
    return AdversarialTraining(network, attack=PGD(budget=0.05, steps=2))


def test_arfl_alone_on_a_plain_trainer_is_cross_entropy_plus_its_weight() -> None:
    network = narrow()
    term = ARFL(network, layer="features.28", weight=10.0)
    trainer = trainer_of(network, [term], data=batches(1))
    x, y = batches(1)[0]["image"], batches(1)[0]["label"]
    with torch.no_grad():
        robust = -torch.sigmoid(network.features[:29](network.normalise(x)).abs()).mean()
        expected = nn.functional.binary_cross_entropy_with_logits(network(x), y) + 10 * robust
    trainer.run()
    assert float(trainer.state.output["loss"].detach()) == pytest.approx(float(expected), abs=1e-5)


def test_frozen_weights_are_bit_identical_after_training_and_trained_ones_moved() -> None:
    network = narrow()
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    trainer_of(network, [dual(network), ARFL(network, layer="features.28")], epochs=2).run()
    for name, parameter in network.named_parameters():
        trained = name.startswith(("features.28", "classifier"))
        assert parameter.requires_grad == trained
        assert torch.equal(parameter, before[name]) != trained, name
        assert (parameter.grad is None) != trained


def test_every_order_of_terms_gives_the_same_losses() -> None:
    found = []
    for order in itertools.permutations(range(3)):
        network = narrow(trainable="all")
        terms = [
            ARFL(network, layer="features.28", weight=10.0),
            ARFL(network, layer="features.26", weight=3.0, correlation="signed"),
            ARFL(network, layer="features.28", weight=1.0, feature_scale="auto", after_relu=True),
        ]
        losses: list[float] = []
        trainer = trainer_of(network, [dual(network), *(terms[i] for i in order)])
        trainer.add_event_handler(
            Events.ITERATION_COMPLETED, lambda e, losses=losses: losses.append(float(e.state.output["loss"].detach()))
        )
        trainer.run()
        found.append(losses)
    for losses in found[1:]:
        assert losses == pytest.approx(found[0], rel=1e-5)


def test_a_second_method_is_refused() -> None:
    network = narrow()
    with pytest.raises(PlugInError, match="already has the method AdversarialTraining; a trainer takes one method"):
        trainer_of(network, [dual(network), dual(network)])


def test_a_method_after_a_term_is_refused() -> None:
    network = narrow()
    with pytest.raises(PlugInError, match=r"attach the method before its terms \(ARFL came first\)"):
        trainer_of(network, [ARFL(network, layer="features.28"), dual(network)])


@pytest.mark.parametrize("kind", ["plain engine", "evaluator"])
def test_an_engine_that_trains_nothing_is_refused(kind: str) -> None:
    network = narrow()
    engine = Engine(lambda *_: None) if kind == "plain engine" else SupervisedEvaluator("cpu", batches(), network)
    for handler in (dual(network), ARFL(network, layer="features.28")):
        with pytest.raises(PlugInError, match=f"SupervisedTrainer.*this engine is a {type(engine).__name__}"):
            handler.attach(engine)
    assert attached(engine) == []


def test_trainers_do_not_share_their_methods() -> None:
    network = narrow()
    first, second = trainer_of(network, [dual(network)]), trainer_of(network, [dual(network)])
    assert method_of(first) is not None and method_of(first) is not method_of(second)
    assert method_of(trainer_of(network, [])) is None


def test_a_batch_without_names_is_refused_by_a_method() -> None:
    network = narrow()
    pairs = [(batch["image"], batch["label"]) for batch in batches()]
    with pytest.raises(PlugInError, match="dictionaries with 'image' and 'label'; this batch is a tuple"):
        trainer_of(network, [dual(network)], data=pairs).run()


def test_a_loss_that_is_not_a_number_ends_the_epoch_with_what_to_do() -> None:
    network = narrow()
    data = batches(1)
    data[0]["label"][0] = torch.nan
    with pytest.raises(FloatingPointError, match="classification_loss is nan in epoch 1.*lower learning_rate"):
        trainer_of(network, [AdversarialTraining(network, standard_ratio=1)], data=data).run()
