"""What holds for every test."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, Phase, settings

# Examples take what they take: a machine that is busy with something else is no failure.
settings.register_profile("warmline", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("warmline")
# For scripts/mutate.py: the same examples each time, and no search for the smallest that fails.
settings.register_profile("mutation", settings.default, derandomize=True, phases=[Phase.explicit, Phase.generate])

# How long what was told to end may take to end.
ENDING_S = 1.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and pytest_asyncio.is_async_test(item):
            # First to be set up, so that it looks after all other fixtures have cleaned up.
            item.fixturenames.insert(0, "leaves_no_task")


@pytest.fixture
async def leaves_no_task() -> AsyncIterator[None]:
    """Fails an async test that leaves a task running."""
    yield
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        _, left = await asyncio.wait(left, timeout=ENDING_S)
    assert not left, f"tasks that nobody ended: {', '.join(sorted(map(repr, left)))}"
