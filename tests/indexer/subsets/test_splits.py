"""Splits: near copies on one side, shares as asked for."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.subsets.splits import connected, cut_by_chance, divide, parse_shares
from massl.core.errors import MasslError

SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}


def test_shares_are_read() -> None:
    assert parse_shares("train=0.8, val=0.1,test=.1") == SHARES
    assert parse_shares("all=1") == {"all": 1.0}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train=0.8", "add up to 1"),
        ("train=0.8,val=0.3", "not to 1.1"),
        ("train=0.5,train=0.5", "is no part"),
        ("train:0.5,val:0.5", "is no part"),
        ("../x=0.5,y=0.5", "is no part"),
        ("a=nan,b=0.5", "is no part"),
        ("a=0,b=1", "is no part"),
        ("", "is no part"),
    ],
)
def test_other_shares_are_refused(text: str, said: str) -> None:
    with pytest.raises(MasslError, match=said):
        parse_shares(text)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_pairs_stay_on_one_side_and_everything_has_a_part(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 60))
    drawn = data.draw(st.lists(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)), max_size=30))
    pairs = np.array(drawn, np.int64).reshape(-1, 2)
    classes = data.draw(st.lists(st.sampled_from("abc"), min_size=count, max_size=count))
    parts = divide(connected(count, pairs), classes, SHARES, data.draw(st.integers(0, 5)))
    assert len(parts) == count
    assert set(parts) <= set(SHARES)
    assert all(parts[one] == parts[other] for one, other in drawn)


def test_each_class_is_divided_by_the_shares_and_a_seed_repeats_it() -> None:
    classes = ["rare"] * 20 + ["common"] * 400
    groups = np.arange(420)
    groups[20:120:2] = groups[21:120:2]  # 50 pairs
    parts = divide(groups, classes, SHARES)
    counts = Counter(zip(classes, parts, strict=True))
    assert counts["rare", "train"] == 16
    assert counts["rare", "val"] == counts["rare", "test"] == 2
    assert abs(counts["common", "train"] - 320) <= 2
    assert divide(groups, classes, SHARES) == parts != divide(groups, classes, SHARES, seed=1)


def test_chance_cuts_as_many_pairs_as_is_said() -> None:
    draws = np.random.default_rng(0).choice(3, (20_000, 2), p=list(SHARES.values()))
    assert cut_by_chance(20_000, SHARES) == pytest.approx((draws[:, 0] != draws[:, 1]).sum(), rel=0.05)
