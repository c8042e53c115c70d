"""Who follows a wallet: clients of npm, and sockets of our own."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from gateway.http.documents import document_id
from tests.access.test_clients import CLIENTS, ROOT
from tests.world import World

FOLLOW = "subscription($after: String) { walletChanged(after: $after) { cursor kind activity { points } wallets { available } } }"


class Follower:
    """A Node process that follows, and prints a line for everything that it sees."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def line(self) -> dict[str, Any]:
        assert self._process.stdout
        line = await asyncio.wait_for(self._process.stdout.readline(), 20)
        assert line, (await self._process.stderr.read()).decode() if self._process.stderr else ""
        said: dict[str, Any] = json.loads(line)
        return said

    async def event(self) -> dict[str, Any]:
        """The next event; what the connection does in between is passed over."""
        while "data" not in (said := await self.line()):
            assert "error" not in said, said
        changed: dict[str, Any] = said["data"]["walletChanged"]
        return changed

    async def say(self, command: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(f"{command}\n".encode())
        await self._process.stdin.drain()


@asynccontextmanager
async def following(world: World, token: str, which: str, *after: str) -> AsyncIterator[Follower]:
    url, id = f"{world.url}/graphql", (await world.named(token, FOLLOW))["documentId"]
    command = [sys.executable, str(ROOT / "console/node.py"), "node", "live.mjs", url, token, id, which, *after]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, cwd=CLIENTS, stdin=pipe, stdout=pipe, stderr=pipe)
    try:
        yield Follower(process)
    finally:
        assert process.stdin
        process.stdin.close()
        await process.wait()


@asynccontextmanager
async def open_socket(world: World, token: str | None, **options: Any) -> AsyncIterator[ClientConnection]:
    url = world.url.replace("http", "ws") + "/graphql"
    await world.named(token or "", FOLLOW)
    async with connect(url, subprotocols=["graphql-transport-ws"], **options) as socket:  # type: ignore[list-item]
        if token is not None:
            await socket.send(json.dumps({"type": "connection_init", "payload": {"Authorization": f"Bearer {token}"}}))
            assert json.loads(await socket.recv()) == {"type": "connection_ack"}
        yield socket


async def subscribe(socket: ClientConnection, **variables: Any) -> None:
    payload = {"documentId": document_id(FOLLOW), "variables": variables}
    await socket.send(json.dumps({"type": "subscribe", "id": "1", "payload": payload}))


async def next_of(socket: ClientConnection) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(await asyncio.wait_for(socket.recv(), 5))
    return said


async def closed_with(socket: ClientConnection) -> int | None:
    try:
        while True:
            await asyncio.wait_for(socket.recv(), 15)
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else None
