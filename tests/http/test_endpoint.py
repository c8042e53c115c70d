"""The GraphQL endpoint: a clear answer and never a 500, whatever is sent."""

import gzip
import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
from graphql import build_schema

import gateway
from gateway.access.scopes import CATALOGUE
from gateway.http.engine import Engine
from gateway.http.guard import rights
from gateway.schema import create_schema, schema_text
from tests.world import RECORD, World

JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b'"x"', b"[]", b"{", b"{}", b'{"query": 3}', b'{"query": null}', b'{"query": "{ programmes { code } }", "variables": []}',
     b"\xff\xfe", b'{"query": "{ programmes { code } }", "operationName": 3}', b"[" * 50_000, b'{"a":' * 20_000],
)  # fmt: skip
async def test_a_body_that_is_no_request_is_a_400_in_json(world: World, body: bytes) -> None:
    headers = {**JSON, "Authorization": f"Bearer {await world.token('grocer')}"}
    answer = await world.http.post("/graphql", content=body, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["message"]
    assert "data" not in answer.json()


@pytest.mark.parametrize(
    "query",
    ["", "{", "query {", "{ nothing }", "{ programmes }", "subscription { x }", "query A { programmes { code } } query B { programmes { code } }",
     "{ programmes { ...F } } fragment F on Programme { ...F }", "{" + " a" * 5_000 + "}", "{ programmes " + "{ issuer " * 2_000, "\u0000",
     "mutation { recordPurchase }", "{ node(id: 3.5) { id } }"],
)  # fmt: skip
async def test_malformed_or_invalid_graphql_is_an_error_without_data(world: World, query: str) -> None:
    for accept, status in (("application/graphql-response+json", 400), ("application/json", 200)):
        headers = {"Accept": accept, "Authorization": f"Bearer {await world.token('grocer')}"}
        answer = await world.http.post("/graphql", json={"query": query}, headers=headers)
        assert answer.status_code == status
        assert answer.json()["errors"]
        assert "data" not in answer.json()
        assert "Traceback" not in answer.text


async def test_other_methods_types_and_sizes_are_refused(world: World) -> None:
    assert (await world.http.put("/graphql", json={})).status_code == 405
    packed = await world.http.post("/graphql", content=gzip.compress(b"{}"), headers={**JSON, "Content-Encoding": "gzip"})
    assert packed.status_code == 415
    for method, path, status in (("GET", "/nothing", 404), ("GET", "/oauth/token", 405), ("DELETE", "/livez", 405)):
        answer = await world.http.request(method, path)
        assert (answer.status_code, list(answer.json())) == (status, ["error"])
    assert (await world.http.post("/graphql", content=b"{}", headers={"Content-Type": "text/plain"})).status_code == 415
    headers = {**JSON, "Authorization": f"Bearer {await world.token('grocer')}"}
    assert (await world.http.post("/graphql", content=b" " * 5_000_000, headers=headers)).status_code == 413


async def test_queries_can_be_sent_with_get_and_mutations_cannot(world: World) -> None:
    query = "query($id: ID!) { programmes { code } node(id: $id) { id } }"
    headers = {"Authorization": f"Bearer {await world.token('grocer')}"}
    asked = await world.http.get("/graphql", params={"query": query, "variables": '{"id": "x"}'}, headers=headers)
    assert asked.json()["data"]["programmes"][0]["code"] == "MER"
    mutation = {"query": RECORD, "variables": json.dumps({"input": world.purchase("5.00")})}
    before = await world.transactions()
    refused = await world.http.get("/graphql", params=mutation, headers=headers)
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
    assert await world.transactions() == before
    for wrong in ("", "variables=%7B", "query=%7Bx%7D&query=%7Bx%7D", "query={programmes{code}}&variables=3"):
        answer = await world.http.get(f"/graphql?{wrong}", headers=headers)
        assert answer.status_code == 400
        assert answer.json()["errors"][0]["extensions"]["code"] == "BAD_REQUEST"


@pytest.mark.parametrize(
    "id", ["", "x", "mbs_", "mem_zzzzzzzzzzzzzzzzzzzzzzzzzz", "txn_01h455vb4pex5vsknk084sn02q", "ptn_\u0000", "_", "é_é"]
)
async def test_an_id_that_names_nothing_is_null(world: World, id: str) -> None:
    token = await world.operator()
    answer = await world.post(token, "query($id: ID!) { node(id: $id) { id } }", id=id)
    assert "errors" not in answer.json()
    assert answer.json()["data"] == {"node": None}


@pytest.mark.parametrize(
    ("query", "variables"),
    [
        ("{ partners(first: 0) { nodes { id } } }", {}),
        ("{ partners(first: 1001) { nodes { id } } }", {}),
        ("query($m: YearMonth!) { period(month: $m) { state } }", {"m": "2026-13"}),
        ("query($m: YearMonth!) { period(month: $m) { state } }", {"m": "0000-01"}),
        ("query($id: ID!, $d: Date!) { member(id: $id) { wallets { expiring(before: $d) { points } } } }", {"id": "mem_x", "d": "2026-02-30"}),
    ],
)  # fmt: skip
async def test_bad_arguments_are_named_and_not_masked(world: World, query: str, variables: dict[str, Any]) -> None:
    body = (await world.post(await world.operator(), query, **variables)).json()
    assert body["errors"][0]["extensions"]["code"] == "BAD_INPUT"
    assert body.get("data") is None


@pytest.mark.parametrize(
    "query", ["{", "{ nothing }", "{ programmes(first: 1) { code } }", "query A { programmes { code } } query B { programmes { code } }",
              "subscription { walletChanged { points } }", "{ node(id: 3.5) { id } }", "query($d: Nothing) { programmes { code } }"],
)  # fmt: skip
async def test_a_document_that_cannot_be_run_says_so_with_a_code(world: World, query: str) -> None:
    body = (await world.post("grocer", query)).json()
    assert {error["extensions"]["code"] for error in body["errors"]} == {"BAD_DOCUMENT"}
    assert "data" not in body


def test_every_code_of_a_refused_request_is_documented() -> None:
    sources = "".join(file.read_text() for file in Path(gateway.__file__).parent.glob("http/*.py"))
    codes = set(re.findall(r'RequestRefused\(\s*\d+,\s*"([A-Z_]+)"', sources)) | set(re.findall(r'"code": "([A-Z_]+)"', sources))
    told = (Path(gateway.__file__).parent.parent / "docs" / "integrating.md").read_text()
    assert len(codes) > 10
    assert {code for code in codes if f"`{code}`" not in told} == set()


async def test_without_a_token_no_document_is_even_read(world: World) -> None:
    for query in ("{ programmes { code } }", "{ programmes { code } partner { code } }", "{ nothing", "{" + " programmes { code }" * 480 + "}"):
        refused = await world.post(None, query)
        assert refused.status_code == 401
        assert "WWW-Authenticate" in refused.headers
        assert refused.json()["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"
        assert "data" not in refused.json()


async def test_a_partner_sees_itself_alone(world: World) -> None:
    grocer = (await world.ask("grocer", "{ partner { id contracts { issuePrice } stores(first: 5) { nodes { code } } } }"))[
        "partner"
    ]
    assert grocer["contracts"] == [{"issuePrice": "0.0100"}]
    assert grocer["stores"]["nodes"] == [{"code": "s1"}]
    assert (await world.ask("fuel", "query($id: ID!) { node(id: $id) { id } }", id=grocer["id"]))["node"] is None
    await world.record("10.00")
    issuer = "{ programmes { code issuer { contracts { issuePrice } } } }"
    body = (await world.post("fuel", issuer)).json()
    assert "0.0090" not in str(body)
    assert body["errors"]


async def test_another_partners_transaction_and_activity_are_not_seen(world: World) -> None:
    earning = (await world.record("10.00"))["earning"]
    node = "query($id: ID!) { node(id: $id) { id } }"
    assert (await world.ask("grocer", node, id=earning["id"]))["node"] == {"id": earning["id"]}
    assert (await world.ask("fuel", node, id=earning["id"]))["node"] is None
    activity = "query($ref: MemberRef!) { membership(ref: $ref) { activity(first: 9) { nodes { points } } } }"
    for partner, seen in (("grocer", [{"points": 10}]), ("fuel", [])):
        found = (await world.ask(partner, activity, ref={"externalId": "ann"}))["membership"]
        assert found["activity"]["nodes"] == seen


async def test_pages_follow_each_other_without_gap_or_repetition(world: World) -> None:
    for amount in range(1, 8):
        await world.record(f"{amount}.00")
    query = """query($ref: MemberRef!, $after: String) { membership(ref: $ref) {
      activity(first: 3, after: $after) { nodes { points } pageInfo { hasNextPage endCursor } } } }"""
    seen: list[int] = []
    after = None
    for _ in itertools.count():
        found = (await world.ask("grocer", query, ref={"externalId": "ann"}, after=after))["membership"]["activity"]
        seen += [n["points"] for n in found["nodes"]]
        after = found["pageInfo"]["endCursor"]
        if not found["pageInfo"]["hasNextPage"]:
            break
    assert sorted(seen) == [1, 2, 3, 4, 5, 6, 7]


async def test_long_documents_are_refused_and_unusual_ones_not_remembered(world: World) -> None:
    refused = await world.post("grocer", "{__typename}#" + "x" * 70_000)
    assert "longer than" in refused.json()["errors"][0]["message"]
    engine = Engine(create_schema())
    padded = "{__typename}#" + "x" * 10_000
    assert engine.prepare(padded) is not engine.prepare(padded)
    assert engine.prepare(padded, registered=True) is engine.prepare(padded, registered=True)


@pytest.mark.parametrize(
    "after", ["x", "0001-01-01T00:00:00+14:00~" + "0" * 32, "9999-12-31T23:59:59-14:00~" + "0" * 32, "\u0000"]
)
async def test_a_cursor_that_is_none_is_told_as_bad_input(world: World, after: str) -> None:
    query = 'query($a: String) { membership(ref: {externalId: "ann"}) { activity(first: 3, after: $a) { nodes { points } } } }'
    body = (await world.post("grocer", query, a=after)).json()
    assert body["errors"][0]["extensions"]["code"] == "BAD_INPUT"


def test_every_field_requires_known_scopes_or_is_declared_public() -> None:
    found = rights(create_schema()._schema)
    assert found["Mutation", "recordPurchase"] == (frozenset({"points:earn"}),)
    assert {scope for need in found.values() for alternative in need for scope in alternative} <= set(CATALOGUE)


def test_a_document_is_parsed_and_validated_once() -> None:
    engine = Engine(create_schema())
    assert engine.prepare("{ programmes { code } }") is engine.prepare("{ programmes { code } }")


def test_the_schemas_text_is_a_schema() -> None:
    text = schema_text().replace("directive @oneOf on INPUT_OBJECT\n", "")
    directives = "directive @requiresScopes(scopes: [[String!]!]!) on OBJECT | FIELD_DEFINITION | INTERFACE\n"
    directives += "directive @key(fields: String!) repeatable on OBJECT | INTERFACE\n"
    directives += "directive @link(url: String, import: [String]) repeatable on SCHEMA\n"
    assert build_schema(directives + text, assume_valid=False).query_type is not None
