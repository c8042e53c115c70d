"""What a token opens that has ended while something was under way: nothing more."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator
from datetime import timedelta
from typing import Any
from urllib.parse import urlparse

import pytest
from graphql import ExecutionResult
from joserfc.jwk import ECKey
from websockets.exceptions import ConnectionClosed

from gateway.access.signing_keys import replace_signing_keys
from gateway.access.tokens import RETIRED_SECONDS
from gateway.database import Database
from gateway.http.admission import Admission
from gateway.http.doorman import Doorman
from gateway.http.events import EventStream
from tests.access.consenting import GRANT, PERSON, WITHDRAW, agree, exchange
from tests.access.test_keys import ask, assertion, keyed_client, proof
from tests.access.test_refreshing import app_tokens
from tests.events.following import closed_with, next_of, open_socket
from tests.http.slow_reader import slow_reader
from tests.ledger.test_batches import locked_wallet, waits
from tests.points import ann_hands_over, ann_logs_in, codes, run_job, until_revoked
from tests.world import RECORD, World

PARTNER = "{ partner { code } }"


@pytest.mark.parametrize("way", ["revocation", "leaked keys"])
async def test_a_login_that_has_ended_decides_nothing_more_although_its_token_is_read_by_for_a_second_yet(
    world: World, database: Database, way: str
) -> None:
    given = await app_tokens(world)
    token = given["access_token"]
    if way == "revocation":
        ended = await world.http.post("/oauth/revoke", data={"token": given["refresh_token"], "client_id": "member-app"})
        assert ended.status_code == 200
    else:
        now, vault = world.clock.now(), await world.vault(database)
        async with database.transaction() as tx:
            await replace_signing_keys(tx, vault, now, now - timedelta(seconds=RETIRED_SECONDS))
    asked = {"partner": "fuel", "purpose": "to save points", "scopes": ["points:transfer"], "dataClasses": ["contact"]}
    for query, input_ in ((GRANT, asked), (PERSON, {"email": "ann@example.org"})):
        late = await world.post(token, query, i=input_)
        if late.status_code == 200:
            (payload,) = late.json()["data"].values()
            assert codes(payload) == ["NOT_ALLOWED"]
        else:
            assert late.status_code == 401
    assert await world.sql("select from consent") == await world.sql("select from person") == []
    await until_revoked(world, token)


@pytest.mark.parametrize("way", ["password", "revocation", "consent"])
async def test_what_was_revoked_stays_so_for_as_long_as_it_would_have_lived(world: World, way: str) -> None:
    if way == "password":
        token = await ann_logs_in(world)
        member = (await world.sql("select member_id from card where number = 'CARD-1'"))[0]["member_id"]
        await world.set_password("ann", "another password", member)
    elif way == "revocation":
        token = await world.token("grocer")
        assert (await world.http.post("/oauth/revoke", data={"token": token}, auth=world.clients["grocer"])).status_code == 200
    else:
        consent = await agree(world, "profile:read")
        token = (await exchange(world, await ann_hands_over(world, "profile:read"))).json()["access_token"]
        await world.ask(await ann_logs_in(world), WITHDRAW, i={"consent": consent})
    await until_revoked(world, token)
    for _ in range(4):
        world.clock.set(world.clock.now() + timedelta(seconds=70))
        await run_job(world, "tidy")
        kept = {row[0] for row in await world.sql("select mark from revocation where until > $1", world.clock.now())}
        assert kept  # what every process reads each second
        assert (await world.post(token, "{ __typename }")).status_code == 401


async def test_a_socket_begins_nothing_more_once_its_token_has_ended_whatever_is_under_way_on_it(world: World) -> None:
    """What a mutation does is told to the end; but not that another one begins meanwhile, or that anything is read."""
    await world.record("50.00")
    token = await world.token("grocer")
    post = "mutation($i: [PurchaseInput!]!) { recordPurchases(input: $i) { earning { points } errors { code } } }"

    async def ask(socket: Any, id: str, query: str, **variables: Any) -> None:
        await socket.send(json.dumps({"type": "subscribe", "id": id, "payload": {"query": query, "variables": variables}}))

    async with open_socket(world, token) as socket:
        async with locked_wallet(world):
            await ask(socket, "under way", post, i=[world.purchase("7.00")])
            await waits(world, 1)
            revoked = await world.http.post("/oauth/revoke", data={"token": token}, auth=world.clients["grocer"])
            assert revoked.status_code == 200
            await until_revoked(world, token)
            for id, query, variables in (("read", PARTNER, {}), ("posted", post, {"i": [world.purchase("9.00")]})):
                await ask(socket, id, query, **variables)
                said = await next_of(socket)
                assert (said["id"], said["type"]) == (id, "error")
                assert said["payload"][0]["extensions"]["code"] == "UNAUTHENTICATED"
        said = await next_of(socket)
        assert (said["id"], said["type"]) == ("under way", "next")
        assert await closed_with(socket) == 4403
    assert {row[0] for row in await world.sql("select points from purchase")} <= {50, 7}


async def test_a_subscription_tells_nothing_more_once_its_consent_is_withdrawn_whatever_is_under_way_beside_it(world: World) -> None:
    consent = await agree(world, "balance:read", "points:convert")
    token = (await exchange(world, await ann_hands_over(world, "balance:read", "points:convert"))).json()["access_token"]
    async with open_socket(world, token) as socket:
        await socket.send(json.dumps({"type": "subscribe", "id": "f", "payload": {"query": "subscription { walletChanged { cursor } }"}}))
        assert (await next_of(socket))["type"] == "next"
        await world.ask(await ann_logs_in(world), WITHDRAW, i={"consent": consent})
        await until_revoked(world, token)
        await world.record("5.00")
        told = []
        with contextlib.suppress(ConnectionClosed):
            async with asyncio.timeout(5):
                while True:
                    told.append(json.loads(await socket.recv()))
    assert [each for each in told if each["type"] == "next" and each["payload"].get("data")] == []


async def test_a_token_that_ended_while_a_body_came_opens_nothing(world: World) -> None:
    token = await world.token("grocer")
    address, body = urlparse(world.url), json.dumps({"query": RECORD, "variables": {"input": world.purchase("5.00")}})
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    head = f"POST /graphql HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(f"{head}{body[:10]}".encode())
    await asyncio.sleep(0.1)
    assert (await world.http.post("/oauth/revoke", data={"token": token}, auth=world.clients["grocer"])).status_code == 200
    await until_revoked(world, token)
    await asyncio.sleep(1.2)
    writer.write(body[10:].encode())
    assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 401")
    writer.close()
    assert await world.transactions() == 0


async def test_whoever_reads_the_answer_of_a_mutation_slowly_does_not_stay_longer_for_it(world: World) -> None:
    token, many = await world.token("grocer"), "mutation($i: [EnrolMemberInput!]!) { enrolMembers(input: $i) { %s } }"
    wide = many % " ".join(f"{'a' * 60}{n:02}: __typename" for n in range(30))
    asked = {"query": wide, "variables": {"i": [{"externalId": "ann"}] * 400}}
    async with open_socket(world, token, max_queue=1, compression=None) as socket:
        for n in range(12):
            await socket.send(json.dumps({"type": "subscribe", "id": f"{n}", "payload": asked}))
        await asyncio.sleep(1)
        assert (await world.http.post("/oauth/revoke", data={"token": token}, auth=world.clients["grocer"])).status_code == 200
        await until_revoked(world, token)
        late = {"query": RECORD, "variables": {"input": world.purchase("5.00")}}
        await socket.send(json.dumps({"type": "subscribe", "id": "late", "payload": late}))
        assert await closed_with(socket) in (4403, None)  # the frame that says why may be behind what is not read
    assert await world.transactions() == 0


@pytest.mark.parametrize("way", ["request", "socket"])
async def test_a_token_that_ended_while_its_operation_waited_to_be_admitted_opens_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    token, admit, admitted = await world.token("grocer"), Admission.admit, asyncio.Event()

    async def slowly(self: Admission, caller: Any, asked: dict[str, Any], *given: Any, **named: Any) -> Any:
        found = await admit(self, caller, asked, *given, **named)
        if "recordPurchase" in str(asked):
            await admitted.wait()
        return found

    monkeypatch.setattr(Admission, "admit", slowly)
    asked = {"query": RECORD, "variables": {"input": world.purchase("5.00")}}
    async with open_socket(world, token) as socket:
        if way == "socket":
            await socket.send(json.dumps({"type": "subscribe", "id": "1", "payload": asked}))
        posted = asyncio.create_task(world.post(token, RECORD, input=world.purchase("5.00")))
        await asyncio.sleep(1.1)
        assert (await world.http.post("/oauth/revoke", data={"token": token}, auth=world.clients["grocer"])).status_code == 200
        await until_revoked(world, token)
        admitted.set()
        assert (await posted).status_code == 401
        assert await closed_with(socket) == 4403
    assert await world.transactions() == 0


class Unread:
    """A connection whose answers are read when it is asked for them, and hardly before."""

    def __init__(self, world: World, token: str) -> None:
        self._url, self._token = world.url, token

    async def __aenter__(self) -> "Unread":
        self._socket = await slow_reader(self._url)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._socket.close()

    async def ask(self, accept: str, query: str, **variables: Any) -> None:
        body = json.dumps({"query": query, "variables": variables})
        head = (
            f"POST /graphql HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self._token}\r\nAccept: {accept}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        await asyncio.get_running_loop().sock_sendall(self._socket, (head + body).encode())

    async def read(self, until: bytes) -> bytes:
        """All that was answered, to something that the last answer says."""
        said = b""
        async with asyncio.timeout(10):
            while until not in said:
                said += await asyncio.get_running_loop().sock_recv(self._socket, 1 << 20)
        return said


@pytest.mark.parametrize("accept", ["text/event-stream", "application/json"])
async def test_a_mutation_behind_an_answer_that_nobody_reads_is_not_kept_until_its_token_has_ended(world: World, accept: str) -> None:
    token = await world.token("grocer")
    fields = " ".join(f"{'a' * 60}{n:02}: __typename" for n in range(30))
    wide = f"query($r: [MemberRef!]!) {{ membershipsByRef(refs: $r) {{ {fields} }} }}"
    async with Unread(world, token) as unread:
        for n in range(4):
            await unread.ask("application/json", wide, r=[{"externalId": "ann"}] * 200)
            await unread.ask(accept, RECORD, input=world.purchase("1.00", receipt=f"r-{n}"))
        await asyncio.sleep(1)
        posted = await world.transactions()
        assert posted < 4
        assert (await world.http.post("/oauth/revoke", data={"token": token}, auth=world.clients["grocer"])).status_code == 200
        await until_revoked(world, token)
        assert b"UNAUTHENTICATED" in await unread.read(b"UNAUTHENTICATED")
        await asyncio.sleep(0.3)
        assert await world.transactions() == posted


async def test_a_stream_asks_for_its_first_result_whether_or_not_anybody_reads() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def results() -> AsyncGenerator[ExecutionResult, None]:
        begun.set()
        try:
            yield ExecutionResult({"n": 1})
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def nobody_reads(_: Any) -> None:
        await asyncio.Event().wait()

    async def receive() -> Any:
        await asyncio.Event().wait()

    stream = EventStream(results(), None, is_ending=lambda: False)
    sending = asyncio.create_task(stream({"type": "http", "asgi": {"spec_version": "2.3"}}, receive, nobody_reads))
    await asyncio.wait_for(begun.wait(), 1)
    sending.cancel()
    await asyncio.wait([sending])
    assert ended.is_set()


async def test_a_token_that_ended_while_the_proof_of_its_key_was_checked_opens_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    client_id, (jwk,) = await keyed_client(world, "fuel", dpop=True)
    key = ECKey.import_key(jwk)
    url, checked, go_on = f"{world.url}/oauth/token", Doorman._check_proof, asyncio.Event()
    given = await ask(world, assertion(world, client_id, key), dpop=proof(key, url))
    token = given.json()["access_token"]

    async def slowly(*given: Any) -> None:
        await checked(*given)
        await go_on.wait()

    monkeypatch.setattr(Doorman, "_check_proof", slowly)
    headers = {"Authorization": f"DPoP {token}", "DPoP": proof(key, f"{world.url}/graphql", token=token)}
    enrol = {"query": "mutation { enrolMember(input: {externalId: \"late\"}) { errors { code } } }"}
    late = asyncio.create_task(world.http.post("/graphql", json=enrol, headers=headers))
    await asyncio.sleep(0.2)
    await world.sql("insert into revocation values ($1, $2, $3)", f"client:{client_id}", world.clock.now(), world.clock.now() + timedelta(minutes=9))
    await asyncio.sleep(2.2)  # by then every process knows
    go_on.set()
    assert (await late).status_code == 401
    assert await world.sql("select from membership where external_id = 'late'") == []
