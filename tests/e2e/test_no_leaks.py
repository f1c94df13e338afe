"""The short form of `leaks.py`; the long one has 500 sessions."""

import pytest

from e2e import leaks


@pytest.mark.parametrize("seed", [1, 2])
async def test_nothing_is_lost_doubled_or_left_behind(seed: int) -> None:
    report = await leaks.run(60, 4, seed=seed)

    assert report.problems == []
    # Otherwise nothing was put to the test.
    assert report.figures["aborts seen by the upstream"] > 30
    assert report.figures["turns at the callers"]["completed"] > 60
