"""Worlds in which nobody moves orders on but the test."""

from collections.abc import AsyncIterator

import pytest

from tests.world import Place, World, open_world


@pytest.fixture
async def world(place: Place) -> AsyncIterator[World]:
    async with open_world(place, jobs=()) as opened:
        yield opened
