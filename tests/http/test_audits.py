"""GraphQL over HTTP to the letter, as npm's graphql-http audits it."""

import asyncio
import json
from pathlib import Path

from tests.access.test_clients import clients, node
from tests.world import World

__all__ = ["clients"]


async def test_all_audits_of_graphql_http_pass(world: World, clients: Path) -> None:
    done = await asyncio.to_thread(node, "node", "audits.mjs", f"{world.url}/graphql", await world.token("grocer"))
    assert done.returncode == 0, done.stderr
    audits = json.loads(done.stdout)
    assert len(audits) == 61
    assert [(each["id"], each["name"], each["reason"]) for each in audits if each["status"] != "ok"] == []

