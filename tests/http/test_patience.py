"""Connections: who dribbles, floods, reads nothing or never ends is let go, and nothing of it piles up."""

import asyncio
import base64
import contextlib
import gzip
import json
from urllib.parse import urlsplit

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from gateway.http import patience
from tests.http.slow_reader import slow_reader
from tests.world import RECORD, World, serving

PARTNER = "{ partner { code } }"


async def connection(world: World) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    address = urlsplit(world.url)
    return await asyncio.open_connection(address.hostname, address.port)


@pytest.mark.parametrize("reads", [False, True])
async def test_who_asks_for_much_and_reads_nothing_of_it_is_let_go(monkeypatch: pytest.MonkeyPatch, reads: bool) -> None:
    monkeypatch.setattr(patience, "UNREAD_SECONDS", 0.8)
    much = "x" * (16 << 20)  # more than the kernel keeps for a socket

    async def answer(request: Request) -> Response:
        return PlainTextResponse(much)

    async with serving(Starlette(routes=[Route("/", answer)])) as (url, server, _):
        address = urlsplit(url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        got = len(await reader.readuntil(b"\r\n\r\n"))
        if reads:  # slowly, for longer than the patience lasts
            while got < len(much):
                await asyncio.sleep(0.01)
                got += len(await reader.read(1 << 16))
            assert server.server_state.connections
        else:
            async with asyncio.timeout(20):
                while server.server_state.connections:
                    await asyncio.sleep(0.05)
        writer.close()


async def test_who_dribbles_its_headers_or_its_body_is_let_go(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "HEADER_SECONDS", 0.8)
    monkeypatch.setattr(patience, "BODY_SECONDS", 0.8)
    for said in (b"", b"GET / HTTP/1.1\r\nHost:", b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\nGET /livez HTTP/1.1\r\nX: "):
        reader, writer = await connection(world)
        writer.write(said)
        answer = await asyncio.wait_for(reader.read(), 5)
        assert answer.count(b"200 OK") == (1 if b"livez" in said else 0)
        writer.close()
    reader, writer = await connection(world)
    token = await world.token("grocer")
    head = f"POST /graphql HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{{"
    writer.write(head.encode())
    answer = await asyncio.wait_for(reader.read(4_000), 5)
    assert b"408" in answer.split(b"\r\n")[0]
    assert b"BODY_TOO_SLOW" in answer
    writer.close()
    assert (await world.post("grocer", PARTNER)).status_code == 200


HEAD_IN_CHUNKS = b"POST /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


async def test_trailers_are_read_by_nobody_and_a_request_without_an_end_is_cut_off(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = await connection(world)
    writer.write(HEAD_IN_CHUNKS + b"0\r\nX-Trailer: y\r\n\r\nGET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await asyncio.wait_for(reader.readuntil(b"alive"), 5)).count(b"HTTP/1.1 ") == 2
    writer.close()

    monkeypatch.setattr(patience, "REQUEST_MAX_BYTES", 1 << 20)
    for said in (b"x1: y\r\n" * 10_000, b"x" * 70_000, b"1\r\nx\r\n" * 10_000):
        reader, writer = await connection(world)
        writer.write(HEAD_IN_CHUNKS + (b"" if said[:1] == b"1" else b"0\r\n") + (b"x: " if said[1:2] == b"x" else b""))
        with pytest.raises(ConnectionError):
            await pour(writer, said, 64 << 20)
        writer.close()
    assert (await world.post("grocer", PARTNER)).status_code == 200


async def pour(writer: asyncio.StreamWriter, said: bytes, most: int) -> None:
    for _ in range(most // len(said)):
        writer.write(said)
        await writer.drain()


async def test_a_request_that_was_answered_before_its_end_ends_in_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "BODY_SECONDS", 0.4)
    monkeypatch.setattr(patience, "GRACE_SECONDS", 0.4)
    reader, writer = await connection(world)
    writer.write(HEAD_IN_CHUNKS)
    answer = asyncio.create_task(reader.read())
    async with asyncio.timeout(5):
        while not answer.done():
            writer.write(b"1\r\nx\r\n")
            await asyncio.sleep(0.05)
    assert (await answer).startswith(b"HTTP/1.1 405")
    writer.close()


@pytest.mark.parametrize("late", [5, 60])
async def test_requests_wait_behind_a_slow_one_for_as_long_as_it_takes_and_in_their_order(
    late: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last bytes of the last one, of its body or of its headers, come when nothing is read any more."""
    monkeypatch.setattr(patience, "HEADER_SECONDS", 0.2)
    monkeypatch.setattr(patience, "BODY_SECONDS", 0.2)
    monkeypatch.setattr(patience, "GRACE_SECONDS", 0.1)
    began: list[str] = []

    async def answer(request: Request) -> Response:
        began.append(request.query_params["n"])
        if request.query_params["n"] == "0":
            await asyncio.sleep(1.0)
        return PlainTextResponse((await request.body()).decode())

    async with serving(Starlette(routes=[Route("/", answer, methods=["POST"])])) as (url, _, _):
        address = urlsplit(url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        said = b""
        for n in range(5):
            body = f"{n}{'x' * 40}|"
            said += f"POST /?n={n} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        writer.write(said[:-late])
        await asyncio.sleep(0.05)
        writer.write(said[-late:])
        said = b""
        async with asyncio.timeout(10):
            while said.count(b"|") < 5:
                more = await reader.read(1 << 16)
                assert more, f"closed after {said[:2000]!r}"
                said += more
        writer.close()
    bodies = [part.split(b"\r\n\r\n")[1][:2].decode() for part in said.split(b"HTTP/1.1 200 OK")[1:]]
    assert bodies == ["0x", "1x", "2x", "3x", "4x"]
    assert began == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize(
    "said",
    [
        b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n",
    ],
)
async def test_a_byte_that_begins_nothing_keeps_no_connection_open(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "HEADER_SECONDS", 0.5)

    async def alive(request: Request) -> Response:
        return PlainTextResponse("alive")

    async with serving(Starlette(routes=[Route("/livez", alive)])) as (url, server, _):
        server.config.timeout_keep_alive = 1
        address = urlsplit(url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(said)
        assert b"alive" in await asyncio.wait_for(reader.readuntil(b"alive"), 5)
        writer.write(b"x" if b"Length" in said else b"\r\n")
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


async def test_what_was_to_be_said_last_is_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is closed waits until its last bytes are read, and no longer than anything else waits to be."""
    monkeypatch.setattr(patience, "UNREAD_SECONDS", 0.8)

    async def answer(request: Request) -> Response:
        return PlainTextResponse("x" * (4 << 20), headers={"Connection": "close"})

    async with serving(Starlette(routes=[Route("/fill", answer)])) as (url, server, _):
        _, writer = await asyncio.open_connection(sock=await slow_reader(url))
        writer.transport.pause_reading()
        writer.write(b"GET /fill HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(20):
            while not server.server_state.connections:
                await asyncio.sleep(0.01)
            while server.server_state.connections:
                await asyncio.sleep(0.05)
        writer.close()


async def test_huge_headers_are_refused_and_bombs_are_not_unpacked(world: World) -> None:
    reader, writer = await connection(world)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: %s\r\n" % (n, b"x" * 20_000) for n in range(90)) + b"\r\n")
    answer = await asyncio.wait_for(reader.read(4_000), 5)
    assert answer.startswith(b"HTTP/1.1 431")
    assert "65536 bytes" in json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    writer.close()
    reader, writer = await connection(world)
    writer.write(b"nonsense\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(4_000), 5)
    assert answer.startswith(b"HTTP/1.1 400")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    writer.close()
    sent = {"query": "{ programmes { code } }"}
    for charset, status in (("utf-8", 200), ("UTF-8", 200), ("utf-16", 415), ("latin-1", 415)):
        headers = {"Authorization": f"Bearer {await world.token('grocer')}", "Content-Type": f"application/json; charset={charset}"}
        assert (await world.http.post("/graphql", content=json.dumps(sent), headers=headers)).status_code == status
    large = {"query": "{ programmes { code } }", "extensions": {"padding": "x" * 1_000_000}}
    token = {"Authorization": f"Bearer {await world.token('grocer')}"}
    assert (await world.http.post("/graphql", json=large, headers=token)).status_code == 200
    bomb = gzip.compress(b'{"query": "{ __typename }"' + b" " * 20_000_000 + b"}")
    for encoding in ("gzip", "deflate", "br", "zstd"):
        sent = await world.http.post("/graphql", content=bomb, headers={"Content-Type": "application/json", "Content-Encoding": encoding})
        assert sent.status_code == 415


async def test_of_more_requests_in_one_piece_than_anybody_waits_for_the_first_are_answered_and_the_rest_cut_off(world: World) -> None:
    token = await world.token("grocer")
    body = json.dumps({"query": RECORD, "variables": {"input": world.purchase("5.00")}})
    head = f"POST /graphql HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    alive = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
    for behind, answered in ((alive * 100, 100), (alive * 10_000, 100), (alive * 100 + b"GET /li", 100)):
        reader, writer = await connection(world)
        writer.write((head + body).encode() + behind)
        said = b""
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionError):
                while said.count(b"alive") < answered and (more := await reader.read(1 << 16)):
                    said += more
        assert said.count(b'"earning"') == 1
        assert said.count(b"alive") == answered
        if behind != alive * 100:
            with contextlib.suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
    assert await world.transactions() == 1


async def test_a_body_that_cannot_be_read_takes_no_answer_from_who_came_before(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "BODY_SECONDS", 0.4)
    token = await world.token("grocer")
    body = json.dumps({"query": RECORD, "variables": {"input": world.purchase("5.00")}})
    head = f"POST /graphql HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n"
    wrong = f"{head}Transfer-Encoding: chunked\r\n\r\nZZ\r\n"
    reader, writer = await connection(world)
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n{body}{wrong}".encode())
    said = await asyncio.wait_for(reader.read(), 5)
    assert (said.count(b"HTTP/1.1 "), said.count(b"HTTP/1.1 200"), said.count(b'"earning"')) == (2, 1, 1)
    assert b"HTTP/1.1 408" in said
    writer.close()
    assert await world.transactions() == 1


async def test_who_has_said_nothing_of_itself_is_told_so_before_its_body_is_read(world: World) -> None:
    reader, writer = await connection(world)
    writer.write(b"POST /graphql HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 4000000\r\n\r\n{")
    answer = await asyncio.wait_for(reader.readuntil(b"}]}"), 5)
    assert answer.startswith(b"HTTP/1.1 401")
    assert b"UNAUTHENTICATED" in answer
    writer.close()
    moved = await world.http.get("/livez/", headers={"Host": "evil.example"})
    assert (moved.status_code, moved.headers.get("location")) == (404, None)


@pytest.mark.parametrize("ends", [True, False])
async def test_very_many_headers_are_refused_however_short_they_are(world: World, ends: bool) -> None:
    reader, writer = await connection(world)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n" + b"a:\r\n" * 98 + b"\r\n")
    assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)).startswith(b"HTTP/1.1 200")
    await reader.readuntil(b"}")
    writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n" + b"a:\r\n" * 150 + (b"\r\n" if ends else b""))
    said = await asyncio.wait_for(reader.read(), 5)
    assert said.startswith(b"HTTP/1.1 431")
    assert json.loads(said.partition(b"\r\n\r\n")[2]) == {"error": "There are more than 100 headers."}
    writer.close()


async def test_a_form_that_ends_in_the_middle_is_no_error_of_ours(world: World, caplog: pytest.LogCaptureFixture) -> None:
    for path in ("token", "authorize", "par", "revoke", "introspect"):
        _, writer = await connection(world)
        kind = "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 500"
        writer.write(f"POST /oauth/{path} HTTP/1.1\r\nHost: x\r\n{kind}\r\n\r\nclient_id=x".encode())
        await asyncio.sleep(0.05)
        writer.transport.abort()
    await asyncio.sleep(0.2)
    assert [each for each in caplog.records if each.levelname in ("ERROR", "CRITICAL")] == []
    assert (await world.http.get("/livez")).status_code == 200


@pytest.mark.parametrize("text", ["%" * 12_000, "\u00e9%" * 4_000, "%4"])
async def test_what_is_not_encoded_is_told_and_not_read(world: World, text: str) -> None:
    """Python takes a hundred times as long over it as over other text."""
    sent = text.encode("latin-1")
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    for path in ("token", "par", "revoke", "introspect"):
        answer = await world.http.post(f"/oauth/{path}", content=b"a=" + sent, headers=headers)
        assert (answer.status_code, "%25" in answer.json()["error_description"]) == (400, True)
        for long in (text, "x" * 1_100):
            basic = base64.b64encode(f"grocer:{long}".encode()).decode()
            answer = await world.http.post(f"/oauth/{path}", data={"a": "b"}, headers={"Authorization": f"Basic {basic}"})
            assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    for path, head in (("/graphql", f"Authorization: Bearer {await world.token('grocer')}\r\n".encode()), ("/oauth/authorize", b"")):
        reader, writer = await connection(world)
        port = world.url.rpartition(":")[2].encode()
        writer.write(b"GET %s?a=%s HTTP/1.1\r\nHost: 127.0.0.1:%s\r\n%sConnection: close\r\n\r\n" % (path.encode(), sent.replace(b"\xe9", b"%zz")[:8_000], port, head))
        said = await asyncio.wait_for(reader.read(), 5)
        assert said.startswith(b"HTTP/1.1 400")
        assert b"%25" in said
        writer.close()
    answer = await world.http.get("/oauth/authorize", params={"state": "x" * 8_192})
    assert (answer.status_code, "8192 bytes" in answer.json()["error_description"]) == (400, True)


@pytest.mark.parametrize("name", [b"Connection", b"Sec-WebSocket-Protocol", b"sec-websocket-extensions", b"UPGRADE"])
async def test_lists_of_what_a_connection_is_to_become_are_short(world: World, name: bytes) -> None:
    reader, writer = await connection(world)
    plain = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n"
    for _ in range(60):  # which together say more
        writer.write(plain)
        assert (await asyncio.wait_for(reader.readuntil(b"}"), 5)).startswith(b"HTTP/1.1 200")
    lines = b"".join(b"%s: %s\r\n" % (name, b"a," * 300) for _ in range(2))
    writer.write(b"GET /graphql HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" + lines + b"\r\n")
    said = await asyncio.wait_for(reader.read(), 5)
    assert said.startswith(b"HTTP/1.1 431")
    assert "1024 bytes" in json.loads(said.partition(b"\r\n\r\n")[2])["error"]
    writer.close()


async def test_a_path_that_is_none_is_not_decoded(world: World) -> None:
    """By uvicorn, for which Python takes a hundred times as long where it is all `%`."""
    for path, told in ((b"/" + b"%" * 1_000, b"404"), (b"/" + b"%" * 1_024, b"414")):
        reader, writer = await connection(world)
        host = world.url.removeprefix("http://").encode()
        writer.write(b"GET %s?a=1 HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % (path, host))
        said = await asyncio.wait_for(reader.read(), 5)
        assert said.startswith(b"HTTP/1.1 " + told)
        assert json.loads(said.partition(b"\r\n\r\n")[2])["error"]
        writer.close()


async def test_query_strings_have_a_few_names(world: World) -> None:
    headers = {"Authorization": f"Bearer {await world.token('grocer')}"}
    asked = {"query": PARTNER, **{f"x{n}": "" for n in range(9)}}
    assert (await world.http.get("/graphql", params=asked, headers=headers)).status_code == 200
    answer = await world.http.get("/graphql", params={**asked, "one": "more"}, headers=headers)
    assert (answer.status_code, answer.json()["errors"][0]["message"]) == (400, "The query string has more than 10 names.")
    strangers = await world.http.get("/oauth/authorize", params={f"x{n}": "" for n in range(51)})
    assert (strangers.status_code, strangers.json()["error_description"]) == (400, "The query string has more than 50 names.")


@pytest.mark.parametrize("wrong", [b"GET / HTTP/1.1\r\n" + b"a:\r\n" * 150, b"no request\r\n\r\n", b"GET / HTTP/1.1\r\nb: " + b"x" * 200_000])
async def test_what_is_wrong_behind_a_request_ends_the_connection_after_its_answer(wrong: bytes) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def answer(request: Request) -> Response:
        asked.set()
        await go_on.wait()
        return PlainTextResponse("an answer of its own|")

    async with serving(Starlette(routes=[Route("/slow", answer)])) as (url, _, _):
        address = urlsplit(url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        await asked.wait()
        for piece in range(0, len(wrong), 20_000):
            writer.write(wrong[piece : piece + 20_000])
            await asyncio.sleep(0.01)
        go_on.set()
        said = await asyncio.wait_for(reader.readuntil(b"|"), 5)
        assert said.startswith(b"HTTP/1.1 200")
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
