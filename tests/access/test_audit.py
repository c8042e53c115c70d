"""The audit log holds what it must, also where somebody goes away or asks for itself."""

import asyncio
import contextlib
import json
import re
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlparse

import pytest
from websockets.exceptions import ConnectionClosed

from gateway import ids
from gateway.access import audit
from gateway.database import LostRace
from tests.access.consenting import WITHDRAW, agree, ask_on_the_page, client_with_page, exchange
from tests.access.test_oauth import authorization, olga
from tests.access.test_operators import session_of
from tests.adjustment.test_adjust import ann
from tests.events.following import open_socket
from tests.ledger.test_batches import locked_wallet, waits
from tests.points import ADJUST, ann_hands_over, ann_logs_in, until_revoked
from tests.privacy.test_people import ANN, UPDATE
from tests.world import World


async def noted(world: World) -> list[tuple[str, str, str]]:
    """Who did what, and how it ended."""
    rows = await world.sql("select actor_kind, action, result from audit_log order by number")
    return [(row["actor_kind"], row["action"], row["result"]) for row in rows]


async def test_a_mutation_whose_client_goes_away_is_posted_and_its_result_noted(world: World) -> None:
    operator = await world.operator()
    await world.record("50.00")
    given = {"member": await ann(world), "programme": "MER", "partner": "grocer", "points": 7, "reason": "A till was down"}
    before = len(await noted(world))
    for n, leave in enumerate(("complete", "close")):
        variables = {"i": {**given, "idempotencyKey": f"a{n}"}}
        asked = {"type": "subscribe", "id": "1", "payload": {"query": ADJUST, "variables": variables}}
        async with open_socket(world, operator) as socket:
            async with locked_wallet(world):
                await socket.send(json.dumps(asked))
                await waits(world, 1)
                if leave == "close":
                    await socket.close()
                else:
                    await socket.send(json.dumps({"type": "complete", "id": "1"}))
                    await asyncio.wait_for(await socket.ping(), 5)
            async with asyncio.timeout(5):
                while await world.available() < 50 + 7 * (n + 1):
                    await asyncio.sleep(0.02)
            async with asyncio.timeout(5):
                while len(await noted(world)) < before + 2 * (n + 1):
                    await asyncio.sleep(0.02)
            with contextlib.suppress(ConnectionClosed):
                await socket.close()
    assert (await noted(world))[before:] == [
        ("operator", "mutation adjustPoints", "ASKED"),
        ("operator", "mutation adjustPoints", "ok"),
    ] * 2
    assert await world.broken() == []


async def test_a_partner_that_asks_what_is_known_of_people_is_noted_and_what_else_it_asks_is_not(world: World) -> None:
    member = await ann_logs_in(world)
    await world.ask(member, UPDATE, i=ANN)
    assert (await noted(world))[-1] == ("member", "update person", "ok")
    await agree(world, data_classes=("contact",))
    before = len(await noted(world))
    await world.ask("fuel", "{ memberships(first: 10) { nodes { id } } }")
    assert len(await noted(world)) == before
    query = "{ memberships(first: 10) { nodes { id person { email } } } }"
    found = (await world.ask("fuel", query))["memberships"]["nodes"]
    assert found[0]["person"]["email"] == "ann.other@example.org"
    assert (await noted(world))[before:] == [("partner", "query memberships", "ok")]
    about = (await world.sql("select about from audit_log order by number desc limit 1"))[0]["about"]
    assert found[0]["id"] in about
    # So it is where nothing is asked for but whether anything is known.
    await world.ask("fuel", "{ memberships(first: 10) { nodes { person { __typename } } } }")
    assert (await noted(world))[before + 1 :] == [("partner", "query memberships", "ok")]
    sealed = await world.sql("select true from audit_log where about::text || action like '%example.org%'")
    assert sealed == []


async def test_the_log_is_no_place_to_fill_what_partners_do_is_short_and_paid_for(world: World) -> None:
    query = "query($r: MemberRef!) { membership(ref: $r) { id person { email } } }"
    long = {"externalId": "x" * 100_000}
    paid = (await world.post("fuel", query, r=long)).json()["extensions"]["cost"]["requestedQueryCost"]
    assert 25_000 < paid < 30_000
    answer = await world.http.post("/oauth/token", data={"grant_type": "client_credentials", "scope": "partner"}, auth=world.clients["fuel"])
    narrow = answer.json()["access_token"]
    assert (await world.post(narrow, query, r=long)).status_code == 403
    before = len(await noted(world))
    await world.sql("update budget set available = 0, as_of = clock_timestamp() + interval '50 seconds'")
    statuses = [(await world.post(narrow, query, r=long)).status_code for _ in range(250)]
    assert set(statuses) == {403, 429}
    assert statuses[-1] == 429
    assert len(await noted(world)) - before == statuses.count(403) <= 200


@pytest.mark.parametrize("who", ["operator", "partner"])
async def test_what_does_not_fit_into_the_log_is_not_done(world: World, who: str) -> None:
    """Else the size of a request would hide what it did, or whom it looked up."""
    await world.ask(await ann_logs_in(world), UPDATE, i=ANN)
    await agree(world, data_classes=("contact",))
    operator = await world.operator()
    caller = operator if who == "operator" else "fuel"
    junk = "x" * 140_000
    looked = {
        "operator": 'query($j: ID!, $c: String!) { a: member(id: $j) { since } memberByCard(card: $c) { person { email } } }',
        "partner": 'query($j: String!, $c: String!) { a: membership(ref: {externalId: $j}) { id } membership(ref: {card: $c}) { person { email } } }',
    }[who]
    before = len(await noted(world))
    refused = await world.post(caller, looked, j=junk, c="CARD-1")
    assert (refused.status_code, refused.json()["errors"][0]["extensions"]["code"]) == (413, "BODY_TOO_LARGE")
    assert "example.org" not in refused.text
    assert [(kind, result) for kind, _, result in (await noted(world))[before:]] == [(who, "BODY_TOO_LARGE")]
    deep: Any = "CARD-1"
    for _ in range(300):
        deep = [deep]
    assert (await world.post(caller, looked, j="x", c=deep)).status_code in (400, 413)
    # What just fits is kept whole.
    found = await world.ask(caller, looked, j=junk[:100_000], c="CARD-1")
    assert "ann.other@example.org" in str(found)
    newest = (await world.ask(operator, "{ audit(first: 1) { nodes { details about } } }"))["audit"]["nodes"][0]
    assert json.loads(newest["details"])["variables"] == {"j": junk[:100_000], "c": "CARD-1"}
    assert await ann(world) in newest["about"]


async def test_who_was_looked_up_is_in_the_log_whatever_was_asked_of_them(world: World) -> None:
    operator = await world.operator()
    for query in ('{ memberByCard(card: "CARD-1") { wallets { available } } }', '{ memberByCard(card: "CARD-1") { __typename } }'):
        await world.ask(operator, query)
        row = (await world.sql("select about from audit_log order by number desc limit 1"))[0]
        assert row["about"] == [await ann(world)]


async def test_the_log_knows_who_came_while_locked_came_back_with_a_session_and_left(world: World) -> None:
    query, _ = authorization(world)
    for _ in range(7):
        await world.http.post("/oauth/authorize", params=query, data={"login": "nobody", "password": "x", "code": "1"})
    await world.operator()
    await world.http.get("/oauth/authorize", params=query, headers={"cookie": session_of(world)})
    assert (await world.http.post("/oauth/logout", headers={"cookie": session_of(world)})).status_code == 204
    assert await noted(world) == [
        *[("nobody", "log in", "WRONG")] * 5, *[("nobody", "log in", "LOCKED")] * 2,
        ("operator", "log in", "ok"), ("operator", "come back with a session", "ok"), ("operator", "log out", "ok"),
    ]  # fmt: skip
    # The session has ended: its cookie brings the form again.
    assert (await world.http.get("/oauth/authorize", params=query, headers={"cookie": session_of(world)})).status_code == 200


async def test_who_leaves_the_console_has_no_token_any_more(world: World) -> None:
    operator = await world.operator()
    assert (await world.post(operator, "{ partners(first: 1) { nodes { code } } }")).status_code == 200
    assert (await world.http.post("/oauth/logout", headers={"cookie": session_of(world)})).status_code == 204
    await until_revoked(world, operator)


async def test_a_member_does_not_get_into_the_console_and_the_log_says_who_tried(world: World) -> None:
    await ann_logs_in(world)
    query, _ = authorization(world)
    refused = await world.http.post("/oauth/authorize", params=query, data={"login": "ann", "password": "ann's password"})
    wrong = await world.http.post("/oauth/authorize", params=query, data={"login": "ann", "password": "wrong"})
    assert refused.status_code == wrong.status_code == 401
    assert re.sub(r'nonce="[^"]*"', "", refused.text) == re.sub(r'nonce="[^"]*"', "", wrong.text)
    assert "set-cookie" not in refused.headers
    assert await world.sql("select from console_session") == await world.sql("select from authorization_code where client_id = 'console'") == []
    assert (await noted(world))[-2:] == [("nobody", "log in", "NOT_ITS_CLIENT"), ("nobody", "log in", "WRONG")]


async def test_what_is_too_dear_for_an_operator_is_noted_and_paid_for(world: World) -> None:
    operator = await world.operator()
    before = len(await noted(world))
    query = "{ partners(first: 1000) { nodes { stores(first: 1000) { nodes { code } } } } }"
    assert (await world.post(operator, query)).json()["errors"][0]["extensions"]["code"] == "COST_TOO_HIGH"
    assert [result for _, _, result in (await noted(world))[before:]] == ["COST_TOO_HIGH"]
    await world.sql("update budget set available = 0, as_of = clock_timestamp() + interval '50 seconds'")
    statuses = []
    while 429 not in statuses and len(statuses) < 200:
        statuses.append((await world.post(operator, query)).status_code)
    # A process has taken a twentieth of the budget, which is 500,000; each of these costs 1,000. What comes too early is not noted.
    assert len(await noted(world)) - before - 1 == len(statuses) - 1 <= 25


async def test_what_members_decide_is_in_the_log_with_whom_it_is_about(world: World) -> None:
    consent = await agree(world, "profile:read")
    ann_, fuel = await ann_logs_in(world), (await world.ask("fuel", "{ partner { id } }"))["partner"]["id"]
    await world.ask(ann_, WITHDRAW, i={"consent": consent})
    await client_with_page(world)
    page, _ = await ask_on_the_page(world, login="ann", password="ann's password", decision="allow")
    assert page.status_code == 303
    await world.ask(ann_, "mutation { forgetPerson(input: {confirm: true}) { errors { code } } }")
    rows = await world.sql("select action, result, about from audit_log where actor_kind = 'member' and action <> 'log in' order by number")
    given_on_page = ids.show("cns", (await world.sql("select consent_id from consent order by granted_at desc, consent_id desc limit 1"))[0][0])
    assert [(row["action"], row["result"]) for row in rows] == [
        ("give consent", "ok"), ("withdraw consent", "ok"), ("give consent", "ok"), ("forget person", "ok"),
    ]  # fmt: skip
    assert [{consent, fuel} <= set(row["about"]) for row in rows[:2]] == [True, True]
    assert {given_on_page, fuel} <= set(rows[2]["about"])


async def test_what_a_partner_does_in_a_members_name_is_noted_with_the_member_also_where_it_only_listens(world: World) -> None:
    await agree(world, "balance:read", "profile:read")
    acting = (await exchange(world, await ann_hands_over(world, "balance:read", "profile:read"))).json()["access_token"]
    before = len(await noted(world))
    async with open_socket(world, acting) as socket:
        for after in ("null", '"no cursor"'):
            query = f"subscription {{ walletChanged(after: {after}) {{ cursor }} }}"
            await socket.send(json.dumps({"type": "subscribe", "id": after, "payload": {"query": query}}))
            await asyncio.wait_for(socket.recv(), 5)
    await world.ask(acting, "{ programmes { code } }")
    assert [result for _, action, result in (await noted(world))[before:] if action == "subscription walletChanged"] == [
        "ASKED", "ok", "ASKED", "BAD_INPUT",
    ]  # fmt: skip
    assert (await noted(world))[-1] == ("partner", "query programmes", "ok")
    for row in await world.sql("select about from audit_log order by number desc limit 5"):
        assert row["about"] == [await ann(world)]


async def test_what_a_partner_is_refused_is_paid_for_by_what_it_fills_in_the_log(world: World) -> None:
    answer = await world.http.post("/oauth/token", data={"grant_type": "client_credentials", "scope": "partner"}, auth=world.clients["fuel"])
    narrow, query = answer.json()["access_token"], "query($r: MemberRef!) { membership(ref: $r) { id person { email } } }"
    short = {"externalId": "x" * 5_000}  # nothing of the body itself is charged
    assert (await world.post(narrow, query, r=short)).status_code == 403
    before = len(await noted(world))
    await world.sql("update budget set available = 0, as_of = clock_timestamp() + interval '50 seconds'")
    statuses = []
    while 429 not in statuses and len(statuses) < 400:
        statuses.append((await world.post(narrow, query, r=short)).status_code)
    # A process has taken a twentieth of the budget, which is 4,000,000; each of these fills two pages, at 1,000.
    assert statuses.count(403) == len(await noted(world)) - before <= 200_000 // 2_000


async def test_what_a_mutation_did_is_told_also_where_its_note_cannot_be_written(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    operator = await world.operator()
    await world.record("50.00")
    note = audit.Audit.note

    async def fails(self: Any, deed: Any) -> None:
        if deed.result != "ASKED":
            raise LostRace("somebody else")
        await note(self, deed)

    monkeypatch.setattr(audit.Audit, "note", fails)
    given = {"member": await ann_of(world), "programme": "MER", "partner": "grocer", "points": 7, "reason": "A till was down"}
    done = (await world.ask(operator, ADJUST, i={**given, "idempotencyKey": "a"}))["adjustPoints"]
    assert done["adjustment"]["state"] == "POSTED"
    assert (await noted(world))[-1] == ("operator", "mutation adjustPoints", "ASKED")
    # What is only read is not told without being noted.
    looked = await world.post(operator, '{ memberByCard(card: "CARD-1") { id } }')
    assert (looked.status_code, looked.json()["errors"][0]["extensions"]["code"]) == (429, "BUSY")


async def ann_of(world: World) -> str:
    return ids.show("mem", (await world.sql("select member_id from card where number = 'CARD-1'"))[0][0])


async def test_logins_returns_and_logouts_with_one_cookie_break_nobody_off(world: World) -> None:
    await world.operator()
    cookie, (query, _) = session_of(world), authorization(world)
    world.http.cookies.clear()

    async def comes_back() -> int:
        return (await world.http.get("/oauth/authorize", params=query, headers={"cookie": cookie})).status_code

    async def logs_in() -> int:
        return (await world.http.post("/oauth/authorize", params=query, data=olga(world), headers={"cookie": cookie})).status_code

    async def logs_out() -> int:
        return (await world.http.post("/oauth/logout", headers={"cookie": cookie})).status_code

    for _ in range(6):
        world.clock.set(world.clock.now() + timedelta(seconds=31))
        statuses = await asyncio.gather(*(each() for each in (logs_in, logs_out, comes_back) for _ in range(3)))
        assert set(statuses) <= {200, 204, 303, 401, 429}  # a one-time code serves once, and five that do not lock
    assert (await world.sql("select deadlocks from pg_stat_database where datname = current_database()"))[0][0] == 0
    assert await world.broken() == []


async def test_who_comes_back_with_a_session_again_and_again_is_told_to_wait(world: World) -> None:
    await world.operator()
    query, _ = authorization(world)
    await world.sql("update budget set available = 0, as_of = clock_timestamp() + interval '50 seconds' where holder like 'address %'")
    before, statuses = len(await noted(world)), []
    while 429 not in statuses and len(statuses) < 60:
        answer = await world.http.get("/oauth/authorize", params=query, headers={"cookie": session_of(world)})
        statuses.append(answer.status_code)
    assert statuses[-1] == 429
    assert len(await noted(world)) - before == statuses.count(303)
    # The page itself, without a session, leaves nothing behind.
    assert (await world.http.get("/oauth/authorize", params=query)).status_code == 200


async def test_a_code_from_before_leaving_the_console_is_worth_nothing(world: World) -> None:
    await world.operator()
    query, verifier = authorization(world)
    landed = await world.http.get("/oauth/authorize", params=query, headers={"cookie": session_of(world)})
    code = parse_qs(urlparse(landed.headers["location"]).query)["code"][0]
    assert (await world.http.post("/oauth/logout", headers={"cookie": session_of(world)})).status_code == 204
    form = {"grant_type": "authorization_code", "client_id": "console", "redirect_uri": query["redirect_uri"], "code": code}
    late = await world.http.post("/oauth/token", data={**form, "code_verifier": verifier})
    assert (late.status_code, late.json()["error"]) == (400, "invalid_grant")
