"""The door: registered documents, budgets, who is told the schema, entities, headers, and what comes from elsewhere."""

import asyncio
import json
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from websockets import InvalidStatus, connect

from gateway.http import patience
from gateway.http.budget import PLANS
from gateway.http.documents import document_id
from gateway.http.headers import COMMON
from gateway.http.wire import address_of
from tests.access.test_oauth import authorization
from tests.points import ann_logs_in, bob_joins
from tests.world import World, serving

ME = "{ me { id } }"
PARTNER = "{ partner { code } }"
ENTITIES = """query($r: [_Any!]!) { _entities(representations: $r) { __typename
  ... on Membership { id externalId } ... on Partner { code } ... on Programme { code } ... on Store { code } ... on Contract { version } } }"""


async def send(world: World, token: str | None, **asked: Any) -> Any:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return await world.http.post("/graphql", json=asked, headers=headers)


def code_of(answer: Any) -> str | None:
    found: str | None = answer.json()["errors"][0].get("extensions", {}).get("code")
    return found


async def test_a_members_app_sends_ids_of_registered_documents_alone(world: World) -> None:
    ann = await ann_logs_in(world)
    free = await send(world, ann, query=ME)
    assert (free.status_code, code_of(free)) == (403, "DOCUMENT_NOT_TRUSTED")
    unknown = await send(world, ann, documentId=document_id("{ me { since } }"))
    assert (unknown.status_code, code_of(unknown)) == (404, "DOCUMENT_UNKNOWN")
    named = await world.named(ann, ME)
    assert (await send(world, ann, **named)).json()["data"]["me"]["id"]
    for wrong in ({"documentId": 7}, {"documentId": named["documentId"], "query": ME}, {"documentId": "sha256:../etc"}, {"documentId": ""}):
        assert (await send(world, ann, **wrong)).status_code in (400, 404)


async def test_a_document_serves_the_client_that_registered_it(world: World) -> None:
    ann = await ann_logs_in(world)
    named = await world.named(ann, PARTNER)
    assert (await send(world, await world.token("grocer"), **named)).status_code == 404
    assert (await send(world, ann, **named)).status_code == 403
    assert (await send(world, await world.token("grocer"), **named)).status_code == 404  # also once the gateway remembers it
    # A stranger is not told which there are, and no database is asked for it.
    for id in (named["documentId"], "sha256:" + 64 * "0"):
        stranger = await send(world, None, documentId=id)
        assert (stranger.status_code, stranger.headers["www-authenticate"]) == (401, "Bearer")


async def test_the_schema_and_its_names_are_told_to_partners_and_operators_alone(world: World) -> None:
    ann = await ann_logs_in(world)
    for query in ("{ __schema { types { name } } }", '{ __type(name: "Member") { name } }', "{ _service { sdl } }"):
        for who in ("grocer", await world.operator()):
            assert "errors" not in (await world.post(who, query)).json()
        assert (await send(world, ann, **await world.named(ann, query))).status_code == 403
        assert (await send(world, None, query=query)).status_code == 401
    wrong = "{ programmez { code } }"
    assert "Did you mean" in (await world.post("grocer", wrong)).text
    person = "mutation($i: UpdatePersonInput!) { updatePerson(input: $i) { errors { code } } }"
    misspelt = (await world.post(ann, person, i={"email": "ann@example.com", "emial": "x"})).text
    assert "emial" in misspelt
    assert "Did you mean" not in misspelt
    assert "ann@example.com" not in misspelt
    assert "Did you mean" not in (await world.post(ann, wrong)).text
    assert "programmes" not in (await world.post(ann, wrong)).text


async def test_entities_are_found_as_nodes_are_and_null_where_they_are_not_the_callers(world: World) -> None:
    await bob_joins(world)
    own = (await world.ask("grocer", '{ membership(ref: {externalId: "bob"}) { id } }'))["membership"]["id"]
    others = (await world.ask("fuel", '{ membership(ref: {externalId: "ann"}) { id } partner { id } }'))
    me = (await world.ask("grocer", "{ partner { id stores(first: 1) { nodes { id } } contracts { id } } }"))["partner"]
    programme = (await world.ask("grocer", "{ programmes { id code } }"))["programmes"][0]
    representations = [
        {"__typename": "Membership", "id": own},
        {"__typename": "Membership", "id": others["membership"]["id"]},
        {"__typename": "Partner", "id": me["id"]},
        {"__typename": "Partner", "id": others["partner"]["id"]},
        {"__typename": "Programme", "id": programme["id"]},
        {"__typename": "Store", "id": me["stores"]["nodes"][0]["id"]},
        {"__typename": "Contract", "id": me["contracts"][0]["id"]},
        {"__typename": "Membership", "id": me["id"]},
        {"__typename": "Nothing", "id": own}, {"__typename": "Member"}, {"id": own}, {"__typename": "Member", "id": 7},
    ]  # fmt: skip
    found = (await world.ask("grocer", ENTITIES, r=representations))["_entities"]
    assert found[:7] == [
        {"__typename": "Membership", "id": own, "externalId": "bob"}, None, {"__typename": "Partner", "code": "grocer"}, None,
        {"__typename": "Programme", "code": programme["code"]}, {"__typename": "Store", "code": "s1"}, {"__typename": "Contract", "version": 1},
    ]  # fmt: skip
    assert found[7:] == [None] * 5
    assert (await world.post(None, ENTITIES, r=representations)).status_code == 401
    too_many = await world.post("grocer", ENTITIES, r=representations[:1] * 1001)
    assert too_many.json()["errors"][0]["extensions"]["code"] == "BAD_INPUT"
    for nonsense in ([7], ["x"], [None]):
        assert (await world.post("grocer", ENTITIES, r=nonsense)).status_code == 200


async def test_a_socket_that_is_not_opened_is_answered_with_the_same_headers(world: World) -> None:
    for path, status in (("/nowhere", 404), ("/graphql", 400)):  # at the latter no subprotocol is asked for
        with pytest.raises(InvalidStatus) as refused:
            async with connect(world.url.replace("http", "ws") + path):
                pass
        answer = refused.value.response
        assert answer.status_code == status
        assert {name: answer.headers.get(name) for name in COMMON} == COMMON


async def test_pages_and_answers_carry_their_headers_and_nothing_is_open_to_other_sites(world: World) -> None:
    for path in ("/limits", "/livez", "/oauth/jwks", "/.well-known/oauth-authorization-server", "/graphiql", "/nowhere"):
        answer = await world.http.get(path, headers={"Origin": "https://elsewhere.example"})
        said = {name: answer.headers[name] for name in COMMON if name.lower() != "cache-control"}
        assert said == {name: value for name, value in COMMON.items() if name != "Cache-Control"}, path
        assert not [name for name in answer.headers if name.startswith("access-control-")]
        if answer.headers["content-type"].startswith("text/html"):
            policy = answer.headers["content-security-policy"]
            assert "'nonce-" in policy
            assert "frame-ancestors 'none'" in policy
            assert "default-src 'none'" in policy
            assert "base-uri 'none'" in policy
            assert "*" not in policy
            assert "http" not in policy
            if path == "/graphiql":
                assert "connect-src 'self'" in policy
                assert "'unsafe-inline'" not in policy.partition("script-src")[2].partition(";")[0]
            assert policy != (await world.http.get(path)).headers["content-security-policy"]
    preflight = await world.http.request(
        "OPTIONS", "/graphql", headers={"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "POST"}
    )
    assert preflight.status_code == 405
    assert not [name for name in preflight.headers if name.startswith("access-control-")]
    # What a form of another site can send, without asking first, is not read.
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        sent = await world.http.post("/graphql", content=json.dumps({"query": "{ programmes { code } }"}), headers={"Content-Type": kind})
        assert sent.status_code == 415


async def test_the_page_of_limits_says_them_in_words(world: World) -> None:
    page = (await world.http.get("/limits")).text
    for said in (f"{PLANS['partner'].maximum:,}", "THROTTLED", "Retry-After", "extensions.cost", "200,000", "times the items of every list"):
        assert said in page


@pytest.mark.parametrize("credentials", [{"client_secret": "x"}, None])
async def test_an_app_without_secrets_that_sends_some_is_refused_and_nothing_is_kept(world: World, credentials: dict[str, str] | None) -> None:
    query, _ = authorization(world, client_id="member-app", redirect_uri="com.example.loyalty:/callback")
    basic = {"auth": ("member-app", "x")} if credentials is None else {}
    answer = await world.http.post("/oauth/par", data={**query, **(credentials or {})}, **basic)  # type: ignore[arg-type]
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    assert (await world.sql("select count(*) from pushed_request"))[0][0] == 0


async def test_no_mutation_runs_by_get_as_a_stream_either(world: World) -> None:
    headers = {"Authorization": f"Bearer {await world.token('grocer')}"}
    query = 'mutation { enrolMember(input: {externalId: "new"}) { errors { code } } }'
    for accept in ("application/json", "text/event-stream"):
        answer = await world.http.get("/graphql", params={"query": query}, headers={**headers, "Accept": accept})
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert await world.sql("select from external_id where external_id = 'new'") == []


@pytest.mark.parametrize(("proxies", "seen"), [((), "127.0.0.1"), (("127.0.0.1",), "203.0.113.7"), (("10.0.0.0/8",), "127.0.0.1")])
async def test_a_proxy_is_believed_where_its_callers_are_if_it_is_named(proxies: tuple[str, ...], seen: str) -> None:
    async def where(request: Request) -> Response:
        return PlainTextResponse(address_of(request))

    async with serving(Starlette(routes=[Route("/", where)]), proxies) as (url, *_), httpx.AsyncClient(trust_env=False) as http:
        assert (await http.get(url, headers={"X-Forwarded-For": "198.51.100.1, 203.0.113.7"})).text == seen


async def test_a_query_that_takes_too_long_is_broken_off_and_the_next_one_works(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.token("grocer")
    monkeypatch.setattr(patience, "QUERY_SECONDS", 0.5)
    connection_ = await asyncpg.connect(world.dsn)
    async with connection_.transaction():
        await connection_.execute("lock table wallet in access exclusive mode")
        answer = await world.post("grocer", '{ membership(ref: {externalId: "ann"}) { wallets { available } } }')
        assert (answer.status_code, code_of(answer)) == (503, "TOO_SLOW")
        assert "data" not in answer.json()
    await connection_.close()
    monkeypatch.undo()
    assert (await world.wallet())["available"] == 0


def test_what_every_answer_tells_the_browser() -> None:
    assert COMMON == {
        "Cache-Control": "no-store",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=()",
        "Referrer-Policy": "no-referrer",
        "Strict-Transport-Security": "max-age=63072000",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
    }


async def test_one_request_carries_one_token(world: World) -> None:
    tokens = [f"Bearer {await world.token(who)}" for who in ("grocer", "fuel")]
    for both in (tokens, tokens[::-1], [tokens[0], tokens[0]]):
        answer = await world.http.post("/graphql", json={"query": "{ partner { code } }"}, headers=[("Authorization", each) for each in both])
        assert answer.status_code == 401
        assert "data" not in answer.json()


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /livez HTTP/1.1\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n", 400),
        (b"POST /graphql HTTP/1.1\r\nHost: a\r\nHost: a\r\n", 400),
        (b"GET /livez HTTP/1.0\r\n", 200),
        (b"GET /livez HTTP/1.1\r\nHost: a\r\n", 200),
        (b"POST /graphql HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Type: text/plain\r\n", 415),
        (b"POST /graphql HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Encoding: identity\r\nContent-Encoding: gzip\r\n", 415),
        (b"POST /graphql HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n", 501),
    ],
)
async def test_a_request_names_one_host_and_one_type_and_comes_in_no_coding(world: World, head: bytes, status: int) -> None:
    address = urlsplit(world.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(head + b"Connection: close\r\n\r\n")
    said = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    assert said.startswith(b"HTTP/1.1 %d " % status)
    assert status == 200 or b"error" in said
    assert (b'"code":"BAD_REQUEST"' in said) == (status == 400 and b"/graphql" in head)


async def test_a_members_app_is_told_no_names_by_a_subscription_either(world: World) -> None:
    ann = await ann_logs_in(world)
    text = "subscription($a: String) { walletChanged(after: $a) { cursor } }"
    told = {}
    for who in (ann, None):
        headers = {"Authorization": f"Bearer {ann}", "Accept": "text/event-stream"}
        named = await world.named(ann, text if who else text.replace("cursor", "cursar"))
        answer = await world.http.post("/graphql", json={**named, "variables": {"a": {"no": "text"}}}, headers=headers)
        told[who] = answer.text
    assert "BAD_INPUT" in told[ann]
    assert "BAD_DOCUMENT" in told[None]
    assert "Did you mean" not in str(told)


async def test_every_page_has_its_own_nonce(world: World) -> None:
    query, _ = authorization(world)
    for path, params in (("/limits", {}), ("/oauth/authorize", query)):
        policies = {(await world.http.get(path, params=params)).headers["content-security-policy"] for _ in range(2)}
        assert len(policies) == 2
        assert all("base-uri 'none'" in policy for policy in policies)


@pytest.mark.parametrize("hosts", [b"", b"Host: a\r\nHost: b\r\n"])
async def test_a_socket_is_opened_for_one_host_too(world: World, hosts: bytes) -> None:
    address = urlsplit(world.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    asked = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: graphql-transport-ws\r\n"
    writer.write(b"GET /graphql HTTP/1.1\r\n" + hosts + asked + b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n")
    said = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    writer.close()
    assert b" 400 " in said.split(b"\r\n")[0]
