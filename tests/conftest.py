"""Fixtures for all tests."""

import os

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes, and how long it takes to find one, is the machine's affair. And no test of ours minds that
# its examples share a folder. They are the same each time; `--hypothesis-profile=random` looks for new ones.
UNCHECKED = (HealthCheck.too_slow, HealthCheck.function_scoped_fixture)
settings.register_profile("random", deadline=None, suppress_health_check=UNCHECKED)
settings.register_profile("plait", settings.get_profile("random"), derandomize=True)
settings.load_profile("plait")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What programs under test keep for later is not put where the user's own is."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def anyio_backend() -> str:
    """Plait runs on asyncio only."""
    return "asyncio"
