"""Refresh tokens: families that go on, and that end when one comes a second time."""

import asyncio
import base64
import hashlib
import secrets
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlparse

import asyncpg
import httpx

from tests.ledger.test_batches import waits
from tests.points import ann_logs_in, until_revoked
from tests.world import World, log_in

REDIRECT = "com.example.loyalty:/callback"


async def app_tokens(world: World) -> dict[str, Any]:
    """What Ann's app gets for a code."""
    await ann_logs_in(world)
    verifier = secrets.token_urlsafe(48)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    query = {"response_type": "code", "client_id": "member-app", "redirect_uri": REDIRECT, "state": "s",
             "code_challenge": challenge, "code_challenge_method": "S256"}  # fmt: skip
    answer = await world.http.post("/oauth/authorize", params=query, data={"login": "ann", "password": "ann's password"})
    code = parse_qs(urlparse(answer.headers["location"]).query)["code"][0]
    form = {"grant_type": "authorization_code", "client_id": "member-app", "redirect_uri": REDIRECT, "code": code}
    answer = await world.http.post("/oauth/token", data={**form, "code_verifier": verifier})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def refresh(world: World, token: str, client_id: str = "member-app", **changes: str) -> httpx.Response:
    form = {"grant_type": "refresh_token", "client_id": client_id, "refresh_token": token, **changes}
    return await world.http.post("/oauth/token", data=form)


async def test_two_tabs_that_refresh_at_once_both_go_on(world: World) -> None:
    first = (await app_tokens(world))["refresh_token"]
    tabs = await asyncio.gather(refresh(world, first), refresh(world, first))
    assert [tab.status_code for tab in tabs] == [200, 200]
    assert tabs[0].json()["refresh_token"] != tabs[1].json()["refresh_token"]
    for tab in tabs:
        assert (await refresh(world, tab.json()["refresh_token"])).status_code == 200


async def test_a_predecessor_that_comes_late_ends_the_whole_family(world: World) -> None:
    first = (await app_tokens(world))["refresh_token"]
    second = (await refresh(world, first)).json()
    world.clock.set(world.clock.now() + timedelta(seconds=11))
    late = await refresh(world, first)
    assert (late.status_code, late.json()["error"]) == (400, "invalid_grant")
    assert (await refresh(world, second["refresh_token"])).status_code == 400
    await until_revoked(world, second["access_token"])


async def test_a_predecessor_whose_successor_was_used_ends_the_family_at_once(world: World) -> None:
    first = (await app_tokens(world))["refresh_token"]
    second = (await refresh(world, first)).json()["refresh_token"]
    third = (await refresh(world, second)).json()["refresh_token"]
    assert (await refresh(world, first)).status_code == 400
    assert (await refresh(world, third)).status_code == 400
    assert (await world.sql("select count(*) from token_family where ended_at is null"))[0]["count"] == 1  # ann_logs_in's own


async def test_a_refresh_token_serves_its_own_client_alone_and_can_narrow_and_not_widen(world: World) -> None:
    given = await app_tokens(world)
    assert (await refresh(world, given["refresh_token"], "console")).status_code in (400, 401)
    narrowed = await refresh(world, given["refresh_token"], scope="balance:read")
    assert narrowed.json()["scope"] == "balance:read"
    widened = await refresh(world, narrowed.json()["refresh_token"], scope="points:earn")
    assert (widened.status_code, widened.json()["error"]) == (400, "invalid_scope")


async def test_a_refresh_token_ends_after_thirty_days(world: World) -> None:
    given = await app_tokens(world)
    world.clock.set(world.clock.now() + timedelta(days=31))
    assert (await refresh(world, given["refresh_token"])).status_code == 400


async def test_the_console_gets_no_refresh_token(world: World) -> None:
    await log_in(world, "console", f"{world.url}/graphiql", "olga", "correct horse battery")
    assert (await world.sql("select count(*) from refresh_token"))[0]["count"] == 0


async def test_whoever_logs_out_ends_what_a_thief_made_of_its_refresh_token(world: World) -> None:
    stolen = (await app_tokens(world))["refresh_token"]
    thief = (await refresh(world, stolen)).json()
    out = await world.http.post("/oauth/revoke", data={"client_id": "member-app", "token": stolen, "grant_type": "refresh_token"})
    assert out.status_code == 200
    assert (await refresh(world, thief["refresh_token"])).json()["error"] == "invalid_grant"
    await until_revoked(world, thief["access_token"])


async def test_strangers_who_wait_for_one_token_leave_connections_for_everybody_else(world: World) -> None:
    given = await app_tokens(world)
    holder = await asyncpg.connect(world.dsn)
    await holder.execute("begin")
    await holder.fetch("select from token_family for update")
    async with httpx.AsyncClient(base_url=world.url, limits=httpx.Limits(max_connections=None), timeout=60) as http:
        form = {"client_id": "nobody", "token": given["refresh_token"]}
        # A code, which no introspection is about, gives nobody a turn of its own.
        asked = [form if n % 2 else {**form, "code": str(n), "refresh_token": str(n)} for n in range(40)]
        asking = [asyncio.create_task(http.post("/oauth/introspect", data=each)) for each in asked]
        await waits(world, 1)
        async with asyncio.timeout(3):
            assert (await http.post("/oauth/introspect", data={**form, "token": "another"})).status_code == 401
            assert (await world.record("1.00"))["errors"] == []
        waiting = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        assert [tuple(row) for row in await world.sql(waiting)] == [(1,)]
        await holder.close()
        assert {(await each).status_code for each in asking} <= {401, 503}
