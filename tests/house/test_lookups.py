"""Names whose servers do not answer hold up nobody else."""

import asyncio
import socket
import threading
from collections.abc import Coroutine
from typing import Any

import httpx
import pytest
import uvloop

from gateway.lookups import Loop

SLOW = "slow.partner.test"


async def run(work: Coroutine[Any, Any, None]) -> None:
    """On a loop as the gateway's own, which this test's is not."""
    await asyncio.to_thread(uvloop.run, work, loop_factory=Loop)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> "tuple[list[str], threading.Event]":
    """The names that were looked up; of the slow one nothing is known until the event is set."""
    names: list[str] = []
    answering, look_up = threading.Event(), socket.getaddrinfo

    def looked_up(host: str | bytes, *given: Any, **named: Any) -> Any:
        names.append(host.decode() if isinstance(host, bytes) else host)
        if names[-1] == SLOW:
            answering.wait(20)
            raise socket.gaierror(socket.EAI_AGAIN, "Try again")
        return look_up(host, *given, **named)

    monkeypatch.setattr(socket, "getaddrinfo", looked_up)
    return names, answering


async def test_a_name_whose_servers_do_not_answer_is_looked_up_once_and_holds_up_no_other(
    asked: tuple[list[str], threading.Event]
) -> None:
    names, answering = asked

    async def work() -> None:
        async def hello(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
            writer.close()

        server = await asyncio.start_server(hello, "127.0.0.1")
        port = server.sockets[0].getsockname()[1]
        async with httpx.AsyncClient(timeout=0.3, trust_env=False) as http:
            for _ in range(3):  # each gives up, and leaves nothing behind that others wait for
                gone = await asyncio.gather(*(http.get(f"http://{SLOW}/") for _ in range(8)), return_exceptions=True)
                assert {type(each) for each in gone} == {httpx.ConnectTimeout}
            async with asyncio.timeout(2):
                assert (await http.get(f"http://localhost:{port}/")).text == "hello"
        assert names.count(SLOW) == 1
        answering.set()
        async with asyncio.timeout(5):
            while [each for each in threading.enumerate() if SLOW in each.name]:
                await asyncio.sleep(0.02)
        with pytest.raises(socket.gaierror):  # and it is looked up anew
            await asyncio.get_running_loop().getaddrinfo(SLOW, 80)
        assert names.count(SLOW) == 2
        server.close()

    await run(work())


async def test_a_process_ends_while_a_name_is_looked_up(asked: tuple[list[str], threading.Event]) -> None:
    async def work() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.get_running_loop().getaddrinfo(SLOW, 80), 0.1)

    await asyncio.wait_for(run(work()), 5)
    asked[1].set()  # what it finds now, nobody wants to know
    for each in threading.enumerate():
        if SLOW in each.name:
            each.join(5)
            assert not each.is_alive()


async def test_a_look_up_that_cannot_begin_fails_and_is_begun_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        start = threading.Thread.start
        monkeypatch.setattr(threading.Thread, "start", lambda self: (_ for _ in ()).throw(RuntimeError("can't start new thread")))
        with pytest.raises(OSError, match="can't start new thread"):
            await asyncio.get_running_loop().getaddrinfo("localhost", 80)
        monkeypatch.setattr(threading.Thread, "start", start)
        assert await asyncio.get_running_loop().getaddrinfo("localhost", 80)

    await run(work())
