"""A coordinator that is served, for every test that asks for one."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.training_field import LONG, Place, standing


@pytest.fixture(params=["memory", "grpc"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def place(kind: str, tmp_path: Path) -> AsyncIterator[Place]:
    async with standing(Place(kind, tmp_path, LONG)) as place:
        yield place
