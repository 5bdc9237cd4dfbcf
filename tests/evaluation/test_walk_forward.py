from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading.evaluation.walk_forward import FoldsError, walk_forward

DAYS = [date(2025, 1, 1) + timedelta(days=i) for i in range(40)]


@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 5), st.integers(0, 5))
def test_no_test_day_leaks_into_training(folds, test_days, purge, embargo):
    made = walk_forward(DAYS, folds=folds, test_days=test_days, purge=purge, embargo=embargo)
    assert [day for fold in made for day in fold.test] == DAYS[-folds * test_days :]
    for i, fold in enumerate(made):
        assert fold.train[-1] < fold.test[0] - timedelta(days=purge)
        for earlier in made[:i]:
            after = {earlier.test[-1] + timedelta(days=k + 1) for k in range(embargo)}
            assert not after & set(fold.train)


def test_days_too_few_for_the_folds_are_refused():
    with pytest.raises(FoldsError, match="fewer folds"):
        walk_forward(DAYS[:4], folds=2, test_days=2)


def test_days_out_of_order_are_refused():
    with pytest.raises(FoldsError, match="in order"):
        walk_forward([DAYS[1], DAYS[0], DAYS[2]], folds=1, test_days=1)


def test_negative_purge_is_refused():
    with pytest.raises(FoldsError, match="purge=-1"):
        walk_forward(DAYS, folds=1, test_days=1, purge=-1)
