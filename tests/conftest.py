"""What every test stands on: one real PostgreSQL, a migrated template, and a fresh database a test."""

import asyncio
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from gateway.clock import SystemClock
from gateway.embedded import EmbeddedPostgres
from gateway.migrate import migrate
from tests.world import World, open_world

_numbers = itertools.count(1)

# Files that take long come first, so that the workers end together.
LONG = (
    "journeys/test_demo", "journeys/test_faults", "house/test_embedded", "ledger/test_processes", "ledger/test_plans",
    "house/test_docs", "http/test_fuzz", "http/test_rights", "access/test_walls", "ledger/test_model",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: next((n for n, name in enumerate(LONG) if name in item.nodeid), len(LONG)))



def open_folder() -> Path:
    """A temporary folder that the database's own user can enter, which pytest's are not."""
    folder = Path(tempfile.mkdtemp(prefix="gateway-test-"))
    folder.chmod(0o755)
    return folder


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    folder = open_folder()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedPostgres]:
    """One PostgreSQL for the run; nothing outlives it, so it need not wait for the disk, nor be ended with care.

    What hundreds of databases leave behind takes long to delete, and nobody has to wait for that either.
    """
    folder = open_folder()
    embedded = EmbeddedPostgres(folder, {"fsync": "off", "shared_buffers": "64MB"})
    embedded.start()
    yield embedded
    os.kill(int((folder / "postgres/postmaster.pid").read_text().split()[0]), signal.SIGQUIT)
    embedded.stop()
    subprocess.Popen(["rm", "-rf", str(folder)], start_new_session=True)


def database_dsn(server: EmbeddedPostgres, name: str) -> str:
    return server.dsn.replace("/postgres?", f"/{name}?")


async def create_database(server: EmbeddedPostgres, name: str, template: str = "template1") -> str:
    connection = await asyncpg.connect(server.dsn)
    try:
        await connection.execute(f'create database "{name}" template "{template}" strategy file_copy')
    finally:
        await connection.close()
    return database_dsn(server, name)


@pytest.fixture(scope="session")
def template(server: EmbeddedPostgres) -> str:
    """A migrated, empty database to copy from."""
    dsn = asyncio.run(create_database(server, "gateway_template"))
    migrate(dsn)
    return "gateway_template"


@pytest.fixture
async def dsn(server: EmbeddedPostgres, template: str) -> str:
    """A migrated, empty database of this test's own."""
    return await create_database(server, f"test_{next(_numbers)}", template)


@pytest.fixture
async def world(dsn: str, tmp_path: Path) -> AsyncIterator[World]:
    """A small coalition behind a running gateway, reached over real sockets."""
    async with open_world(dsn, tmp_path) as opened:
        yield opened


@pytest.fixture
async def real_time(dsn: str, tmp_path: Path) -> AsyncIterator[World]:
    """The same, by the clock on the wall, for clients that look at it too."""
    async with open_world(dsn, tmp_path, clock=SystemClock()) as opened:
        yield opened
