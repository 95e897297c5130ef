"""The adaptive attack gets the term that ARFL trained, with its scale, correlation, place and weight."""

from typing import Any

import pytest
import torch
from torch import nn

from pipeline.methods import FeatureTerm, robust_feature_rows, trained_term


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 3, 3), nn.Flatten())


def checkpoint(training: dict[str, Any], **handlers: Any) -> dict[str, Any]:
    return {"model": {"training": training}, "handlers": handlers}


def test_the_settings_of_the_training_make_the_term() -> None:
    arfl = {"layer": None, "weight": 3.0, "feature_scale": 1.0, "correlation": "signed", "after_relu": True}
    term = trained_term(checkpoint({"arfl": arfl, "arfl_weight": 3.0}), network())
    assert term == FeatureTerm("2", 3.0, 1.0, "signed", True)
    named = trained_term(checkpoint({"arfl": arfl | {"layer": "0"}, "arfl_weight": 3.0}), network())
    assert named is not None and named.layer == "0"


def test_a_measured_scale_is_that_of_the_training() -> None:
    content = checkpoint({"arfl": {"feature_scale": "auto"}, "arfl_weight": 10}, **{"ARFL-1": {"scale": 4.0}})
    term = trained_term(content, network())
    assert term is not None and (term.scale, term.weight) == (4.0, 10.0)


def test_the_term_divides_before_it_looks_behind_the_relu() -> None:
    features, labels = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 0, 1])
    term = FeatureTerm("2", 1.0, 2.0, "signed", True)
    expected = robust_feature_rows(torch.relu(features / 2.0), labels, correlation="signed")
    torch.testing.assert_close(term(features, labels), expected)


def test_no_arfl_gives_no_term_and_an_unknown_one_is_refused() -> None:
    assert trained_term(checkpoint({"arfl": None, "arfl_weight": 0}), network()) is None
    assert trained_term(checkpoint({"arfl_weight": 0}), network()) is None
    with pytest.raises(ValueError, match="does not say how ARFL was set"):
        trained_term(checkpoint({"arfl_weight": 10.0}), network())
