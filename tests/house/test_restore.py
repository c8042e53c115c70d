"""A ledger that goes on, on another server, from a dump; by the commands of the guide."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from gateway import ids
from gateway.access.vault import KEY_FILE
from gateway.clock import SystemClock
from gateway.database import Database
from gateway.embedded import EmbeddedPostgres
from gateway.events.outbox import OfAnotherServer
from gateway.ledger.seal import seal
from tests.access.consenting import GRANT
from tests.house.test_embedded import Gateway
from tests.points import ann_logs_in
from tests.world import Place, World, open_world

GUIDE = Path(__file__).parent.parent.parent / "docs" / "operating.md"


def steps() -> list[list[str]]:
    """The commands of the guide's chapter on backups, a list a block."""
    chapter = re.search(r"## Backups\n(.*?)\n## ", GUIDE.read_text(), re.S)
    assert chapter
    return [block.strip().splitlines() for block in re.findall(r"```sh\n(.*?)```", chapter[1], re.S)]


def as_owner(path: Path) -> dict[str, Any]:
    """How to run a command as whom a server's folder belongs to."""
    owner = path.stat()
    return {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if os.geteuid() == 0 else {}


async def sealed(world: World) -> int:
    database = Database(world.dsn, 2)
    await database.open()
    try:
        return await seal(database, await world.signer(database), SystemClock().now())
    finally:
        await database.close()


async def test_a_dump_goes_on_on_another_server_as_the_guide_says(server: EmbeddedPostgres, place: Place, tmp_path: Path) -> None:
    async with open_world(place) as world:
        first = await world.record("100.00", idempotencyKey="before", receipt="r")
        assert await sealed(world) == 1
        ann = await ann_logs_in(world)
        given = {"partner": "fuel", "purpose": "to save points", "scopes": ["balance:read"]}
        consent = (await world.ask(ann, GRANT, i=given))["grantConsent"]["consent"]["id"]

    taking, bringing, looking, again = steps()
    said = {"OLD": place.dsn, "PGDATA": ""}

    def run(line: str, **how: Any) -> str:
        program, *words = (re.sub(r"\$([A-Z]+)", lambda name: said[name[1]], word) for word in shlex.split(line))
        ran = subprocess.run([server.binaries / program, *words], cwd=how.pop("cwd", tmp_path), capture_output=True, text=True, check=False, **how)
        assert ran.returncode == 0, f"{line}: {ran.stderr}"
        return str(ran.stdout).strip()

    roles, dump, epoch = taking
    run(roles)
    run(dump)
    said["EPOCH"] = run(epoch)
    assert int(said["EPOCH"]) >= 1

    folder = tmp_path / "elsewhere"
    new = EmbeddedPostgres(folder)
    said["NEW"] = new.start()
    try:
        for line in bringing[1:]:
            run(line)
        # The new server's count is set to be behind: what the guide does first was left out.
        await behind(said["NEW"])
        with pytest.raises(OfAnotherServer):
            async with open_world(Place(said["NEW"], folder, place.founded)):
                pass
    finally:
        new.stop()
    new.forget()
    new.start()
    new.stop()
    said["PGDATA"] = str((folder / "postgres").resolve())
    run(bringing[0], cwd="/", **as_owner(Path(said["PGDATA"])))
    new.start()
    try:
        for line in bringing[1:]:
            run(line)
        assert not await one(said["NEW"], "select has_database_privilege('gateway_app', current_database(), 'TEMP')")
        async with open_world(Place(said["NEW"], folder, place.founded)) as world:
            assert await world.record("100.00", idempotencyKey="before", receipt="r") == first
            assert (await world.record("50.00", idempotencyKey="after"))["errors"] == []
            assert await sealed(world) == 1
            assert await world.transactions() == 2
        shutil.copy(place.folder / KEY_FILE, folder)
        gateway = Gateway(folder)
        gateway.environment["DATABASE_URL"] = said["NEW"]
        for line in looking:
            ran = gateway.run(*shlex.split(line)[1:])
            assert ran.returncode == 0, ran.stdout + ran.stderr
        assert "2 blocks with 2 transactions hold." in ran.stdout
        ann = ids.show("mem", await one(said["NEW"], "select member_id from card where number = 'CARD-1'"))
        for line in again:
            ran = gateway.run(*shlex.split(line.replace("mem_...", ann).replace("cns_...", consent))[1:])
            assert ran.returncode == 0, ran.stdout + ran.stderr
        noted = "select string_agg(action, ', ' order by number) from audit_log where action like 'member%'"
        assert await one(said["NEW"], noted) == "member forget, member withdraw"
    finally:
        new.stop()


async def one(dsn: str, query: str) -> Any:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def behind(dsn: str) -> None:
    """As if the old server had come further than a new one does in a test."""
    connection = await asyncpg.connect(dsn)
    await connection.execute("update outbox set xid = (xid::text::bigint + 1000000)::text::xid8")
    await connection.close()
