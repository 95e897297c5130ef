"""Summary of distances: quartiles of images, those that were not flipped counted as farther than any other."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.statistics import distance_summary


def test_images_that_were_not_flipped_push_the_quartiles_up_and_may_leave_them_open() -> None:
    found = distance_summary([0.001, None, 0.004, 0.002])
    assert (found.images, found.found, found.quartiles) == (4, 3, [0.001, 0.002, 0.004])
    assert found.grey_levels["12 bit"] == [4.095, 8.19, 16.38]
    assert distance_summary([0.001, None, None, None]).quartiles == [0.001, None, None]
    empty = distance_summary([])
    assert empty.images == 0 and empty.reason and empty.quartiles == [None, None, None]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.integers(0, 40))
def test_quartiles_are_values_below_which_lies_the_share_that_they_name(values: list[float], missing: int) -> None:
    found = distance_summary([*values, *[None] * missing])
    every = np.array([*values, *[np.inf] * missing])
    for share, quartile in zip((0.25, 0.5, 0.75), found.quartiles, strict=True):
        value = np.inf if quartile is None else quartile
        assert (every <= value).mean() >= share
        assert (every < value).mean() < share
