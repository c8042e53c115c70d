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
from gateway.database import Database
from gateway.embedded import EmbeddedPostgres
from gateway.lookups import Loop
from gateway.migrate import migrate
from tests.founding import Founded, found_coalition
from tests.world import Place, World, ann_joins, open_world

_numbers = itertools.count(1)


class _Policy(asyncio.DefaultEventLoopPolicy):
    """Tests run on the loop that the service runs on."""

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return Loop()


asyncio.set_event_loop_policy(_Policy())

MEMORY_NEEDED = 4 * 1024**3  # bytes: what the data of a run, logs and all, is sure to fit in

# Files that take long come first, so that the workers end together.
LONG = (
    "journeys/test_demo", "journeys/test_faults", "house/test_embedded", "ledger/test_processes", "ledger/test_plans",
    "house/test_docs", "http/test_fuzz", "http/test_rights", "access/test_walls", "ledger/test_model",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: next((n for n, name in enumerate(LONG) if name in item.nodeid), len(LONG)))


def open_folder() -> Path:
    """A temporary folder that the database's own user can enter, which pytest's are not.

    In memory where there is room: a new database is some hundred files, and takes a tenth of the time there.
    """
    memory = Path("/dev/shm")  # noqa: S108
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > MEMORY_NEEDED
    folder = Path(tempfile.mkdtemp(prefix="gateway-test-", dir=memory if roomy else None))
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


async def drop_database(server: EmbeddedPostgres, name: str) -> None:
    connection = await asyncpg.connect(server.dsn)
    try:
        await connection.execute(f'drop database "{name}" with (force)')
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def template(server: EmbeddedPostgres) -> str:
    """A migrated, empty database to copy from."""
    dsn = asyncio.run(create_database(server, "gateway_template"))
    migrate(dsn)
    return "gateway_template"


@pytest.fixture
async def dsn(server: EmbeddedPostgres, template: str) -> AsyncIterator[str]:
    """A migrated, empty database of this test's own."""
    name = f"test_{next(_numbers)}"
    yield await create_database(server, name, template)
    await drop_database(server, name)


@pytest.fixture(scope="session")
async def founded(server: EmbeddedPostgres, template: str) -> Founded:
    """The small coalition of most tests, founded once and copied for each."""
    name, folder = "gateway_founded", open_folder()
    dsn = await create_database(server, name, template)
    made = await found_coalition(name, dsn, folder)
    async with open_world(Place(dsn, folder, made), jobs=()) as world:
        await ann_joins(world)
    shutil.rmtree(folder)
    return made


@pytest.fixture
async def place(server: EmbeddedPostgres, founded: Founded, tmp_path: Path) -> AsyncIterator[Place]:
    """A copy of the small coalition's database, of this test's own."""
    name = f"test_{next(_numbers)}"
    yield Place(await create_database(server, name, founded.template), tmp_path, founded)
    await drop_database(server, name)


@pytest.fixture
async def world(place: Place) -> AsyncIterator[World]:
    """A small coalition behind a running gateway, reached over real sockets."""
    async with open_world(place) as opened:
        yield opened


@pytest.fixture
async def database(world: World) -> AsyncIterator[Database]:
    """The world's database, beside the gateway."""
    opened = Database(world.dsn, 4)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def real_time(place: Place) -> AsyncIterator[World]:
    """The same, by the clock on the wall, for clients that look at it too."""
    async with open_world(place, clock=SystemClock()) as opened:
        yield opened
