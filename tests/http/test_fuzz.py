"""Documents and bodies that nobody wrote: hypothesis-graphql's against every field, schemathesis's against the endpoint."""

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from graphql import build_schema, print_schema
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis_graphql import nodes
from hypothesis_graphql import strategies as documents

from gateway import ids
from tests.points import ann_logs_in, bob_joins
from tests.world import World

ROOT = Path(__file__).parent.parent.parent
# `make fuzz` asks for more, and for others every time.
TIMES = int(os.environ.get("FUZZ_TIMES", "1"))
STATUSES = {200, 400, 401, 403, 404, 405, 413, 415, 429}


def plain_schema() -> str:
    """The contract without the directives of the federation, which hypothesis-graphql has no need to know."""
    return print_schema(build_schema((ROOT / "schema.graphql").read_text(), assume_valid=True))


SCALARS = {
    "Points": st.integers(-(2**60), 2**60).map(nodes.Int),
    "Decimal": st.sampled_from(["0", "1.50", "-1", "1e9", "x", "0.000000000000000001"]).map(nodes.String),
    "DateTime": st.sampled_from(["2026-10-01T12:00:00Z", "yesterday", "9999-12-31T23:59:59Z"]).map(nodes.String),
    "Date": st.sampled_from(["2026-10-01", "x", "0001-01-01"]).map(nodes.String),
    "Day": st.sampled_from(["2026-10-01", "x", "0001-01-01"]).map(nodes.String),
    "YearMonth": st.sampled_from(["2026-10", "x", "0001-01"]).map(nodes.String),
    "CurrencyCode": st.sampled_from(["USD", "usd", ""]).map(nodes.String),
    "_Any": st.just(nodes.String("x")),
    "federation__FieldSet": st.just(nodes.String("id")),
    "federation__Scope": st.just(nodes.String("x")),
    "federation__Policy": st.just(nodes.String("x")),
    "link__Import": st.just(nodes.String("x")),
}


STRING = re.compile(r'"(?:[^"\\\n]|\\.)*"')


async def lived_in(world: World) -> tuple[list[str], dict[str, set[str]]]:
    """Something happens to Ann and Bob; answers ids and names of what is there, and what is not the grocer's or Ann's to see."""
    await bob_joins(world)
    ann = await ann_logs_in(world)
    update = "mutation($i: UpdatePersonInput!) { updatePerson(input: $i) { errors { code } } }"
    await world.ask(ann, update, i={"name": "Ann Hidden", "email": "ann.hidden@example.org"})
    await world.record("7.00", who="fuel", receipt="receipt-at-the-pump")
    await world.record("8.00", member={"externalId": "bob"}, receipt="receipt-of-bob")
    hidden = {"grocer": {"receipt-at-the-pump", "ann.hidden", "Ann Hidden"}, "ann": {"receipt-of-bob"}}
    found = await world.sql(
        "select 'mbs', membership_id from membership union all select 'mem', member_id from member"
        " union all select 'ptn', partner_id from partner union all select 'txn', transaction_id from transaction"
    )
    return ["ann", "bob", "CARD-1", "CARD-2", "MER", *(ids.show(prefix, id) for prefix, id in found)], hidden


async def test_no_document_gets_a_500_a_traceback_or_somebody_elses_data(world: World) -> None:
    words, hidden = await lived_in(world)
    ann, grocer, operator = await ann_logs_in(world), await world.token("grocer"), await world.operator()
    loop = asyncio.get_running_loop()
    seen = {"data": 0, "documents": 0}

    async def check(text: str) -> None:
        for token in (None, grocer, ann, operator):
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            asked = await world.named(token or "", text)
            answer = await world.http.post("/graphql", json=asked, headers=headers)
            assert answer.status_code in STATUSES, (answer.status_code, text)
            assert "INTERNAL" not in answer.text, (answer.text, text)
            assert "Traceback" not in answer.text
            for marker in {grocer: hidden["grocer"], ann: hidden["ann"], None: hidden["grocer"] | hidden["ann"]}.get(token, ()):
                assert marker not in answer.text, text
            seen["documents"] += 1
            seen["data"] += bool(answer.json().get("data"))

    @settings(max_examples=40 * TIMES, deadline=None, database=None, derandomize=TIMES == 1, suppress_health_check=list(HealthCheck))
    @given(documents.from_schema(plain_schema(), custom_scalars=SCALARS), st.data())
    def walk(text: str, data: st.DataObject) -> None:
        # What nobody wrote finds nothing; every other text names something that is there.
        if data.draw(st.booleans()):
            text = STRING.sub(lambda _: json.dumps(data.draw(st.sampled_from(words))), text)
        asyncio.run_coroutine_threadsafe(check(text), loop).result(60)

    await asyncio.to_thread(walk)
    assert seen["documents"] >= 120
    assert seen["data"] >= 5
    assert await world.broken() == []


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["query", "variables", "operationName", "documentId", "extensions", "x"]), inner, max_size=5),
    max_leaves=12,
)  # fmt: skip


@pytest.mark.parametrize("who", ["grocer", "operator"])
async def test_no_body_whatever_gets_a_500(world: World, who: str) -> None:
    token = await world.operator() if who == "operator" else await world.token(who)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    loop = asyncio.get_running_loop()

    async def send(body: bytes, more: dict[str, str]) -> None:
        answer = await world.http.post("/graphql", content=body, headers={**headers, **more})
        assert answer.status_code in STATUSES, (answer.status_code, body)
        assert "INTERNAL" not in answer.text, body
        assert answer.json()

    accepts = st.sampled_from([{}, {"Accept": "application/graphql-response+json"}, {"Accept": "*/*;q=x"}, {"Accept": ","}])

    @settings(max_examples=150 * TIMES, deadline=None, database=None, derandomize=TIMES == 1)
    @given(st.binary(max_size=60) | ANYTHING.map(lambda value: json.dumps(value).encode()), accepts)
    def walk(body: bytes, more: dict[str, str]) -> None:
        asyncio.run_coroutine_threadsafe(send(body, more), loop).result(60)

    await asyncio.to_thread(walk)
    deep = b"[" * 100_000 + b"]" * 100_000
    nested = b'{"query": "{ programmes { code } }", "variables": {"x": ' + b"[" * 300 + b"]" * 300 + b"}}"
    for body in (deep, nested, b'{"query":' + deep + b"}", b'{"query": "{a' + b"{a" * 5_000 + b'"}', b"\xff\xfe", b'{"query": "\\ud800"}'):
        await send(body, {})


async def test_values_nested_to_any_depth_are_bad_input_and_no_error_of_ours(world: World) -> None:
    headers = {"Authorization": f"Bearer {await world.token('grocer')}", "Content-Type": "application/json"}
    for depth in range(200, 1_021, 20):
        body = '{"query": "query($v: ID!) { node(id: $v) { __typename } }", "variables": {"v": ' + "[" * depth + "]" * depth + "}}"
        answer = await world.http.post("/graphql", content=body, headers=headers)
        assert answer.status_code in (200, 400), depth
        assert {error["extensions"]["code"] for error in answer.json()["errors"]} <= {"BAD_INPUT", "BAD_REQUEST"}, depth


@pytest.mark.parametrize("who", ["grocer", "operator"])
async def test_schemathesis_finds_no_fault_at_the_endpoint(world: World, tmp_path: Path, who: str) -> None:
    _, hidden = await lived_in(world)
    token = await world.operator() if who == "operator" else await world.token(who)
    schema = tmp_path / "schema.graphql"
    schema.write_text(plain_schema())
    (tmp_path / "schemathesis.toml").write_text("")
    (tmp_path / "hooks.py").write_text(HOOKS)
    command = [
        sys.executable, "-m", "schemathesis.cli", "--config-file", str(tmp_path / "schemathesis.toml"), "run", str(schema), "--url", f"{world.url}/graphql",
        "--phases", "fuzzing", "--mode", "positive", "--max-examples", str(TIMES), "--checks", "nothing_unexpected", "--header",
        f"Authorization: Bearer {token}", "--generation-database", "none", *(["--seed", "7"] if TIMES == 1 else []), "--no-color",
    ]  # fmt: skip
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(tmp_path), "HIDDEN": "\n".join(hidden.get(who, ()))}
    done = await asyncio.to_thread(
        subprocess.run, command, cwd=tmp_path, capture_output=True, text=True, timeout=200 * TIMES, check=False, env=environment
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert "Tested: 5" in done.stdout, done.stdout
    assert await world.broken() == []


HOOKS = """
import os

import schemathesis
from hypothesis import strategies as st
from hypothesis_graphql import nodes

for name, text in [("Decimal", "1.50"), ("DateTime", "2026-10-01T12:00:00Z"), ("Day", "2026-10-01"), ("Date", "2026-10-01"),
                   ("YearMonth", "2026-10"), ("CurrencyCode", "USD"), ("_Any", "x")]:
    schemathesis.graphql.scalar(name, st.just(text).map(nodes.String))
schemathesis.graphql.scalar("Points", st.integers(-5, 2**53).map(nodes.Int))
for name in ("federation__FieldSet", "federation__Scope", "federation__Policy", "link__Import"):
    schemathesis.graphql.scalar(name, st.just("x").map(nodes.String))


# Schemathesis's own check takes any GraphQL error for the server's; ours are told by their codes.
@schemathesis.check
def nothing_unexpected(ctx, response, case):
    assert response.status_code < 500, response.status_code
    assert b'"INTERNAL"' not in response.content, response.content
    assert b"Traceback" not in response.content
    assert not [marker for marker in os.environ["HIDDEN"].splitlines() if marker.encode() in response.content]
"""
