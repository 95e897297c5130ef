"""Growing a batch repeats every key or refuses: MONAI's decollate would fill short ones with None in silence."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor, decollate_batch, list_data_collate

from pipeline.methods import grow_batch
from pipeline.methods.rows import adversarial_rows, split_rows, weighted_group_means


def batch(**more) -> dict:
    return {"image": torch.rand(3, 1, 2, 2), "label": torch.tensor([[0.0], [1.0], [1.0]])} | more


def test_every_key_grows_clean_rows_first() -> None:
    given = batch(patient_id=["a", "b", "c"], view=("CC", "MLO", "CC"), weight=torch.arange(3))
    attacked = given["image"] + 0.1
    grown = grow_batch(given, attacked)
    assert torch.equal(grown["image"], torch.cat([given["image"], attacked]))
    assert torch.equal(grown["label"], given["label"].repeat(2, 1))
    assert grown["patient_id"] == ["a", "b", "c"] * 2 and list(grown["view"]) == ["CC", "MLO", "CC"] * 2
    assert grown["weight"].tolist() == [0, 1, 2, 0, 1, 2]
    assert grown["adversarial"].tolist() == [False] * 3 + [True] * 3 and grown["adversarial"].dtype == torch.bool
    assert given.keys() == {"image", "label", "patient_id", "view", "weight"}, "the given batch is left alone"


def test_after_decollate_no_key_of_any_row_is_none() -> None:
    items = [{"image": torch.rand(1, 2, 2), "label": torch.ones(1), "patient_id": str(i)} for i in range(3)]
    grown = grow_batch(list_data_collate(items), torch.rand(3, 1, 2, 2))
    rows = decollate_batch(grown)
    assert len(rows) == 6 and all(value is not None for row in rows for value in row.values())
    assert [row["patient_id"] for row in rows] == ["0", "1", "2"] * 2
    assert [bool(row["adversarial"]) for row in rows] == [False] * 3 + [True] * 3


def test_meta_tensors_grow_as_well() -> None:
    items = [{"image": torch.rand(1, 2, 2), "mask": MetaTensor(torch.rand(1, 2, 2), meta={"a": i})} for i in range(3)]
    collated = list_data_collate(items)
    assert grow_batch(collated, torch.rand(3, 1, 2, 2))["mask"].shape == (6, 1, 2, 2)


def test_values_without_rows_stay() -> None:
    grown = grow_batch(batch(epoch=3, note="x", none=None, scale=torch.tensor(2.0)), torch.rand(3, 1, 2, 2))
    assert (grown["epoch"], grown["note"], grown["none"], float(grown["scale"])) == (3, "x", None, 2.0)


@pytest.mark.parametrize("short", [["a", "b"], torch.zeros(4), ()])
def test_a_key_of_another_length_is_refused(short) -> None:
    with pytest.raises(ValueError, match=rf"batch\['extra'\] has {len(short)} rows, the images 3"):
        grow_batch(batch(extra=short), torch.rand(3, 1, 2, 2))


@pytest.mark.parametrize("odd", [{"a": 1}, np.zeros(3), {1, 2, 3}])
def test_a_key_that_cannot_be_repeated_is_refused(odd) -> None:
    with pytest.raises(TypeError, match=r"batch\['extra'\] is a .*remove the key in the training transform"):
        grow_batch(batch(extra=odd), torch.rand(3, 1, 2, 2))


def test_rows_of_a_batch_that_no_method_touched_are_clean() -> None:
    assert adversarial_rows(batch(), 3).tolist() == [False] * 3
    assert adversarial_rows((1, 2), 2).tolist() == [False] * 2
    with pytest.raises(ValueError, match="has 3 rows, the output 2"):
        adversarial_rows({"adversarial": torch.zeros(3, dtype=torch.bool)}, 2)


def test_group_means_are_weighted_whatever_the_group_sizes() -> None:
    values, flags = torch.tensor([1.0, 2.0, 10.0]), torch.tensor([False, False, True])
    assert float(weighted_group_means(values, flags, 0.25)) == pytest.approx(0.25 * 1.5 + 0.75 * 10)
    for one_group in (torch.zeros(3, dtype=torch.bool), torch.ones(3, dtype=torch.bool)):
        assert float(weighted_group_means(values, one_group, 0.25)) == pytest.approx(13 / 3)


@pytest.mark.parametrize("flags", [[0, 0, 1, 1, 1], [1, 0, 1, 0, 0], [0, 0], [1, 1, 1]])
def test_rows_are_split_by_their_flag_in_any_order(flags):
    flag = torch.tensor(flags, dtype=torch.bool)
    values = torch.arange(len(flags) * 2.0).view(-1, 2).requires_grad_(True)
    clean, attacked = split_rows(values, flag)
    torch.testing.assert_close(clean, values[~flag])
    torch.testing.assert_close(attacked, values[flag])
    (gradient,) = torch.autograd.grad(clean.sum() + 3 * attacked.sum(), values)
    torch.testing.assert_close(gradient, torch.where(flag, 3.0, 1.0)[:, None].expand(-1, 2))
