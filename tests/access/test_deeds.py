"""The log of what operators did: who, what, to whom, with which token, and how it ended."""

import json
from datetime import timedelta
from typing import Any

from gateway import ids
from gateway.access.audit import DETAILS_MAX_BYTES
from tests.access.test_oauth import olga
from tests.access.test_operators import CLOSE, attempt, console_token, session_of
from tests.founding import OPERATOR_PASSWORD
from tests.points import ADJUST, ann_logs_in
from tests.world import World, log_in

AUDIT = "{ audit(first: 50) { nodes { number actorKind actor client token action result details } } }"


async def entries(world: World) -> list[dict[str, Any]]:
    return (await world.ask(await world.operator(), AUDIT))["audit"]["nodes"]


async def test_the_log_says_who_did_what_with_which_token_and_how_it_ended(world: World) -> None:
    await attempt(world, {**olga(world), "password": "wrong password"})
    operator = await world.operator()
    await world.ask(operator, '{ memberByCard(card: "CARD-1") { id } }')
    refused = {"idempotencyKey": "a", "member": "mem_x", "programme": "MER", "partner": "grocer", "points": 5, "reason": "sorry"}
    await world.post(operator, ADJUST, i=refused)
    log = list(reversed(await entries(world)))
    assert [(e["action"], e["result"]) for e in log] == [
        ("log in", "WRONG"), ("log in", "ok"), ("query memberByCard", "ok"),
        ("mutation adjustPoints", "ASKED"), ("mutation adjustPoints", log[-1]["result"]),
    ]  # fmt: skip
    assert log[-1]["result"] not in ("ok", "ASKED")
    assert [e["number"] for e in log] == [str(n + 1) for n in range(len(log))]
    account = log[1]["actor"]
    assert account.startswith("opr_")
    assert all(e["actor"] == account and e["token"] for e in log[2:])
    assert json.loads(log[3]["details"])["variables"]["i"]["reason"] == "sorry"
    # A till's purchases stand in the ledger; the log is of what people do.
    await world.record("1.00")
    await ann_logs_in(world)
    assert [e["action"] for e in (await entries(world))][:2] == ["log in", "query audit"]
    assert await world.broken() == []


FILTERED = "query($f: AuditFilter!) { audit(first: 50, filter: $f) { nodes { action actor about result } } }"


async def test_the_log_is_searched_by_who_did_it_to_whom_it_was_done_and_with_which_field(world: World) -> None:
    operator = await world.operator()
    ann = (await world.ask(operator, '{ memberByCard(card: "CARD-1") { id } }'))["memberByCard"]["id"]
    nobody = ids.show("mem", ids.new_id_in(3))
    await world.ask(operator, "query($i: ID!) { member(id: $i) { id } }", i=ann)
    await world.ask(operator, f'{{ member(id: "{nobody}") {{ id }} }}')
    given = {"idempotencyKey": "a", "member": ann, "programme": "MER", "partner": "grocer", "points": 5, "reason": "sorry"}
    await world.ask(operator, ADJUST, i=given)
    await world.new_operator("sue", ["support"])
    world.http.cookies.clear()
    sue = await log_in(world, "console", f"{world.url}/graphiql", "sue", OPERATOR_PASSWORD)
    await world.ask(sue, "query($i: ID!) { member(id: $i) { id } }", i=ann)

    async def found(**only: str) -> list[dict[str, Any]]:
        return (await world.ask(operator, FILTERED, f=only))["audit"]["nodes"]

    of_ann = [e["action"] for e in await found(about=ann) if e["action"] != "query audit"]
    assert of_ann == ["query member", "mutation adjustPoints", "mutation adjustPoints", "query member", "query memberByCard"]
    of_nobody = [e["action"] for e in await found(about=nobody) if e["action"] != "query audit"]
    assert of_nobody == ["query member"]
    adjusted = await found(field="adjustPoints", about=ann)
    assert [e["result"] for e in adjusted] == ["ok", "ASKED"]
    assert ann in adjusted[0]["about"]
    assert any(id.startswith("adj_") for id in adjusted[0]["about"])
    of_sue = (await found(field="member"))[0]["actor"]
    assert [e["action"] for e in await found(actor=of_sue)] == ["query member", "log in"]
    assert await found(actor=of_sue, field="adjustPoints") == []
    for only in ({"actor": "olga"}, {"about": ann[:-1]}, {"about": f"{ann} {ann}"}):
        answer = await world.post(operator, FILTERED, f=only)
        assert answer.json()["errors"][0]["extensions"]["code"] == "BAD_INPUT"
    assert await world.broken() == []


async def test_variables_that_nothing_declares_neither_hide_whom_a_deed_was_about_nor_fill_the_log(world: World) -> None:
    operator = await world.operator()
    ann = (await world.ask(operator, '{ memberByCard(card: "CARD-1") { id } }'))["memberByCard"]["id"]
    junk = [ids.show("mem", ids.new_id_in(n % 256)) for n in range(1_200)]
    await world.ask(operator, "query($i: ID!) { member(id: $i) { id } }", junk=junk, i=ann)
    newest = (await world.ask(operator, FILTERED, f={"about": ann, "field": "member"}))["audit"]["nodes"]
    assert [e["action"] for e in newest] == ["query member"]
    assert newest[0]["about"] == [ann]
    many = [{"__typename": "Member", "id": id} for id in [*junk[:999], ann]]
    await world.ask(operator, "query($r: [_Any!]!) { _entities(representations: $r) { __typename } }", r=many)
    found = (await world.ask(operator, FILTERED, f={"about": junk[0]}))["audit"]["nodes"]
    assert [e["action"] for e in found] == ["query _entities"]
    of_ann = (await world.ask(operator, FILTERED, f={"about": ann, "field": "_entities"}))["audit"]["nodes"]
    assert [e["action"] for e in of_ann] == ["query _entities"]
    good = {"idempotencyKey": "a", "member": ann, "programme": "MER", "partner": "grocer", "points": 777, "reason": "sorry"}
    two = "mutation($a: AdjustPointsInput!, $b: AdjustPointsInput!) { x: adjustPoints(input: $a) { errors { code } } y: adjustPoints(input: $b) { errors { code } } }"
    large = {**good, "idempotencyKey": "b", "programme": "x" * 100_000}
    refused = await world.post(operator, two, a={**large, "programme": "x" * 300_000}, b=good)
    assert (refused.status_code, await world.transactions()) == (413, 0)
    said = await world.ask(operator, two, a=large, b=good)
    assert [len(said[name]["errors"]) for name in "xy"] == [1, 0]
    kept = await world.sql("select max(length(sealed)) from audit_log")
    assert kept[0][0] < DETAILS_MAX_BYTES
    whole = (await entries(world))[0]
    assert (whole["action"], whole["result"]) == ("mutation adjustPoints", "PROGRAMME_UNKNOWN ok")
    assert json.loads(whole["details"])["variables"] == {"a": large, "b": good}
    assert await world.broken() == []


async def test_what_an_operator_was_refused_before_it_ran_is_in_the_log(world: World) -> None:
    given = {"month": "2026-01"}
    for login, role, status in (("sue", "support", 403), ("ada", "admin", 401)):
        await world.new_operator(login, [role])
        world.http.cookies.clear()
        await log_in(world, "console", f"{world.url}/graphiql", login, OPERATOR_PASSWORD)
        world.clock.set(world.clock.now() + timedelta(minutes=16))
        token = await console_token(world, session_of(world))
        assert (await world.post(token, CLOSE, i=given)).status_code == status
    world.http.cookies.clear()
    log = [e for e in await entries(world) if e["action"] == "mutation closePeriod"]
    assert [e["result"] for e in log] == ["STEP_UP_NEEDED", "FORBIDDEN"]
    assert all(e["actor"].startswith("opr_") and json.loads(e["details"])["variables"] == {"i": given} for e in log)
    assert len({e["actor"] for e in log}) == 2


async def test_variables_nested_too_deeply_to_be_kept_do_not_hide_who_sent_them(world: World) -> None:
    deep: Any = 1
    for _ in range(300):
        deep = [deep]
    query = "query($x: MemberRef!) { membership(ref: $x) { id } }"
    refused = await world.post(await world.operator(), query, x=deep)
    assert refused.status_code == 403
    newest = (await entries(world))[0]
    assert (newest["action"], newest["result"]) == ("query membership", "FORBIDDEN")
    assert "nested too deeply" in newest["details"]
    far = await world.post(await world.operator(), '{ audit(first: 1, after: "' + "1" * 5_000 + '") { nodes { number } } }')
    assert far.json()["errors"][0]["extensions"]["code"] == "BAD_INPUT"


async def test_what_was_done_with_cannot_be_read_in_the_database_and_nothing_can_be_changed(world: World) -> None:
    operator = await world.operator()
    await world.ask(operator, "query($c: String!) { memberByCard(card: $c) { id } }", c="CARD-1")
    rows = await world.sql("select sealed from audit_log")
    assert rows
    assert all(b"CARD-1" not in row["sealed"] and b"olga" not in row["sealed"] for row in rows)
    for privilege in ("insert", "update", "delete", "truncate"):
        assert not (await world.sql(f"select has_table_privilege('gateway_app', 'audit_log', '{privilege}')"))[0][0]
    await world.sql("delete from audit_log where number = 1")
    assert await world.broken() == ["audit_log_is_chained"]


async def test_partners_and_members_do_not_read_the_log(world: World) -> None:
    for who in ("grocer", await ann_logs_in(world)):
        assert (await world.post(who, AUDIT)).status_code == 403


async def test_a_fragment_hides_nothing_from_the_log(world: World) -> None:
    operator = await world.operator()
    await world.ask(operator, '{ ... on Query { memberByCard(card: "CARD-1") { id } } }')
    await world.ask(operator, 'query { ...Who } fragment Who on Query { partners(first: 1) { nodes { code } } }')
    await world.ask(operator, 'query { ...Card } fragment Card on Query { memberByCard(card: "CARD-9") { id } }')
    await world.ask(operator, "{ __typename }")
    log = await entries(world)
    assert [e["action"] for e in log] == ["query memberByCard", "query partners", "query memberByCard", "log in"]
    assert "CARD-9" in json.loads(log[0]["details"])["document"]
    assert "CARD-1" in json.loads(log[2]["details"])["document"]


async def test_what_an_operator_asks_to_be_told_does_not_change_what_the_log_says(world: World) -> None:
    operator = await world.operator()
    bad = {"idempotencyKey": "a", "member": "mem_x", "programme": "MER", "partner": "grocer", "points": 5, "reason": "sorry"}
    for chosen in ("adjustment { id }", "e: errors { c: code }", "errors: adjustment { id }", "errors: __typename"):
        document = f"mutation($i: AdjustPointsInput!) {{ adjustPoints(input: $i) {{ {chosen} }} }}"
        assert (await world.post(operator, document, i=bad)).status_code == 200, chosen
    for query in ('{ member(id: "mem_x") { errors: id } }', "{ partners(first: 1) { errors: nodes { id } } }"):
        assert (await world.post(operator, query)).status_code == 200, query
    skipped = "mutation($i: AdjustPointsInput!) { adjustPoints(input: $i) @skip(if: true) { __typename } }"
    assert (await world.post(operator, skipped, i=bad)).status_code == 200
    also = skipped.replace("{ adjust", "{ a: __typename adjust")
    for document in (also, also.replace("@skip(if: true)", "")):
        assert (await world.post(operator, document, i=bad)).status_code == 200
    results = [(e["action"], e["result"]) for e in await entries(world) if not e["action"].startswith("log")]
    for result in ("INPUT_NOT_ACCEPTED", "ASKED", "NOTHING", "ASKED", "NOTHING", "ASKED"):
        action, found = results.pop(0)
        assert (action.removeprefix("mutation ").split()[-1], found) == ("adjustPoints", result)
    assert [result for action, result in results if action == "mutation adjustPoints"] == ["INPUT_NOT_ACCEPTED", "ASKED"] * 4
    assert results[0] == ("query partners", "ok")
