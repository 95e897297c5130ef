"""Check of the resolved configuration inside a small MONAI workflow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from monai.bundle import ConfigWorkflow

from pipeline.runs import ConfigurationError, RunDirectory, check_configuration
from pipeline.runs.configuration import current_configuration
from pipeline.runs.errors import own_error

SMALL = {
    "imports": ["$import pipeline", "$import pipeline.runs"],
    "standard_ratio": 0.5,
    "learning_rate": 0.1,
    "output_dir": "runs",
    "train": {"ratio": "@standard_ratio", "rate": "@learning_rate"},
    "run_directory": {"_target_": "pipeline.runs.RunDirectory", "output_dir": "@output_dir", "name": "a"},
    "initialize": ["$pipeline.runs.check_configuration()"],
    "run": ["$@run_directory.open()"],
}


@pytest.fixture
def bundle(tmp_path: Path):
    def build(content: dict | None = None, *, files: tuple[str, ...] = ("train.json",), **override) -> ConfigWorkflow:
        (tmp_path / "methods").mkdir(exist_ok=True)
        (tmp_path / "train.json").write_text(json.dumps(SMALL | (content or {})))
        (tmp_path / "methods" / "overlay.json").write_text(json.dumps({"beta_of_overlay": 6, "train#rate": 0.2}))
        (tmp_path / "metadata.json").write_text(json.dumps({"version": "0"}))
        paths = [str(tmp_path / file) for file in files]
        return ConfigWorkflow(paths, logging_file=False, workflow_type=None, **override)

    return build


def refusal(workflow: ConfigWorkflow) -> str:
    with pytest.raises(RuntimeError) as raised:
        workflow.initialize()
    own = own_error(raised.value)
    assert isinstance(own, ConfigurationError)
    return str(own)


def test_the_shipped_configuration_passes(bundle) -> None:
    bundle().initialize()
    bundle(standard_ratio=0.25).initialize()
    bundle(**{"train#rate": 1}).initialize()


def test_a_misspelled_id_is_named_with_its_near_match(bundle) -> None:
    message = refusal(bundle(standart_ratio=1))
    assert (
        "'standart_ratio' is no id of this bundle and nothing refers to it; did you mean 'standard_ratio'?" in message
    )
    assert "Scalars that can be set: " in message and "learning_rate" in message
    assert "nothing known is like it" in refusal(bundle(zzz=1))


def test_two_misspelled_ids_are_reported_at_once(bundle) -> None:
    message = refusal(bundle(standart_ratio=1, lerning_rate=1))
    assert "'standart_ratio'" in message and "did you mean 'learning_rate'" in message


def test_an_id_that_something_refers_to_is_allowed(bundle) -> None:
    bundle(my_rate=0.3, learning_rate="@my_rate").initialize()


def test_ids_of_overlays_are_known(bundle) -> None:
    bundle(beta_of_overlay=3).initialize()
    bundle(files=("train.json", "methods/overlay.json")).initialize()


GROUP = {
    "train": {
        "rate": "@learning_rate",
        "optimizer": {"_target_": "torch.optim.SGD", "params": "$[]", "lr": "@train#rate"},
        "transform": {"_target_": "Compose", "transforms": [{"_target_": "Flipd", "keys": "image"}]},
        "loader": {"_target_": "DataLoader", "dataset": "$[]", "anything": 1},
        "options": {"free": 1},
    }
}


def test_arguments_that_a_method_hands_on_to_its_base_are_known(bundle) -> None:
    attack = {"_target_": "pipeline.attacks.NFGSM", "budget": 0.1, "memory_gib": 1.0}
    bundle(SMALL | {"imports": [*SMALL["imports"], "$import pipeline.attacks"], "attack": attack}).initialize()
    wrong = bundle(SMALL | {"attack": attack | {"bound": 1}})
    assert "attack#bound is no argument of pipeline.attacks.NFGSM; did you mean 'bounds'" in refusal(wrong)


def test_ids_inside_a_group_of_components_are_checked(bundle) -> None:
    bundle(GROUP).initialize()
    bundle(GROUP, **{"train#options": {"other": 1}}).initialize()
    bundle(GROUP, **{"train#mine": 3, "learning_rate": "@train#mine"}).initialize()
    assert "'train#ratee' is no id of this bundle" in (text := refusal(bundle(GROUP, **{"train#ratee": 1})))
    assert "did you mean 'train#rate'" in text


@pytest.mark.parametrize(
    ("key", "target", "nearest"),
    [
        ("train#optimizer#momemtum", "torch.optim.SGD", "momentum"),
        ("train#transform#transforms#0#spatial_axes", "Flipd", "spatial_axis"),
        ("run_directory#resum", "pipeline.runs.RunDirectory", "resume"),
    ],
)
def test_arguments_that_a_component_does_not_take_are_refused(bundle, key: str, target: str, nearest: str) -> None:
    assert f"{key} is no argument of {target}; did you mean '{nearest}'" in refusal(bundle(GROUP, **{key: 1}))


def test_rules_that_do_not_hold_are_refused(bundle) -> None:
    rule = "$pipeline.runs.check_configuration(rules={'standard_ratio lies in [0, 1]': 0 <= @standard_ratio <= 1})"
    bundle({"initialize": [rule]}).initialize()
    assert refusal(bundle({"initialize": [rule]}, standard_ratio=2)) == "standard_ratio lies in [0, 1]"


def test_the_run_directory_records_the_configuration_after_overrides(bundle, tmp_path: Path) -> None:
    workflow = bundle(output_dir=str(tmp_path / "runs"), learning_rate=0.3)
    workflow.initialize()
    workflow.run()
    recorded = json.loads((tmp_path / "runs" / "a" / "config.json").read_text())
    assert recorded["learning_rate"] == 0.3 and recorded["train"]["rate"] == "@learning_rate"


def test_resuming_with_another_value_is_refused(bundle, tmp_path: Path) -> None:
    runs = str(tmp_path / "runs")
    first = bundle(output_dir=runs)
    first.initialize()
    first.run()
    second = bundle(output_dir=runs, learning_rate=0.3, **{"run_directory#resume": True})
    second.initialize()
    with pytest.raises(RuntimeError) as raised:
        second.run()
    assert "learning_rate: 0.1 then, 0.3 now" in str(own_error(raised.value))


def test_outside_a_configuration_it_says_so() -> None:
    with pytest.raises(ConfigurationError, match="called from a bundle's `initialize`"):
        check_configuration()
    with pytest.raises(ConfigurationError, match="no configuration is being evaluated"):
        current_configuration()
    with pytest.raises(ConfigurationError, match="no configuration is being evaluated"):
        RunDirectory("somewhere", "a").open()
