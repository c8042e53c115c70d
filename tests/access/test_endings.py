"""How tokens go on and how they end: refresh in families, revocation, introspection, secrets and keys that change."""

import asyncio
import base64
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlparse

import asyncpg
import httpx
import pytest

from gateway.access import accounts, consents, registration
from gateway.access.follow import read_again
from gateway.access.tokens import TokenRefused
from gateway.database import Database
from gateway.http import login
from gateway.main import create_app
from gateway.settings import read_settings
from tests.access.test_oauth import authorization, olga
from tests.access.test_operators import session_of
from tests.access.test_refreshing import REDIRECT, app_tokens
from tests.founding import OPERATOR_PASSWORD
from tests.house.test_embedded import Gateway
from tests.ledger.test_batches import waits
from tests.points import ann_logs_in, codes, until_revoked
from tests.world import World, engine, free_door, log_in, started

ME = "{ me { id } }"
PARTNER = "{ partner { code } }"


async def test_introspection_tells_a_client_of_its_own_tokens_alone(world: World) -> None:
    token = await world.token("grocer")
    own = (await world.http.post("/oauth/introspect", data={"token": token}, auth=world.clients["grocer"])).json()
    assert (own["active"], own["client_id"], own["iss"]) == (True, "partner-grocer", world.url)
    for hint in ("access_token", "refresh_token", "x", "ä", 'a"b'):  # which is no more than where to look first
        hinted = await world.http.post("/oauth/introspect", data={"token": token, "token_type_hint": hint}, auth=world.clients["grocer"])
        assert hinted.json() == own
    other = await world.http.post("/oauth/introspect", data={"token": token}, auth=world.clients["fuel"])
    assert other.json() == {"active": False}
    assert (await world.http.post("/oauth/introspect", data={"token": token})).status_code == 401
    unknown = await world.http.post("/oauth/introspect", data={"token": "x.y.z"}, auth=world.clients["grocer"])
    assert unknown.json() == {"active": False}


async def test_a_client_can_end_its_own_token_and_no_other(world: World) -> None:
    token = await world.token("grocer")
    foreign = await world.http.post("/oauth/revoke", data={"token": token}, auth=world.clients["fuel"])
    assert foreign.status_code == 400
    assert (await world.post(token, PARTNER)).status_code == 200
    assert (await world.http.post("/oauth/revoke", data={"token": token}, auth=world.clients["grocer"])).status_code == 200
    await until_revoked(world, token)
    again = await world.http.post("/oauth/revoke", data={"token": "nothing"}, auth=world.clients["grocer"])
    assert again.status_code == 200


async def test_a_new_secret_leaves_the_one_before_and_ends_older_ones(world: World) -> None:
    partner_id = (await world.sql("select partner_id from partner where code = 'grocer'"))[0]["partner_id"]
    database = Database(world.dsn, 2)
    await database.open()
    made = [world.clients["grocer"]]
    for n in range(2):
        async with database.transaction() as tx:
            at = world.clock.now() + timedelta(seconds=n + 1)
            made.append(await registration.create_partner_client(tx, partner_id, "grocer", at))
    statuses = [
        (await world.http.post("/oauth/token", data={"grant_type": "client_credentials"}, auth=each)).status_code for each in made
    ]
    assert statuses == [401, 200, 200]
    async with database.transaction() as tx:  # by a clock that is behind the one of those before
        newest = await registration.create_partner_client(tx, partner_id, "grocer", world.clock.now(), keep=1)
    await database.close()
    for each, status in ((made[1], 401), (made[2], 401), (newest, 200)):
        answer = await world.http.post("/oauth/token", data={"grant_type": "client_credentials"}, auth=each)
        assert answer.status_code == status
    stored = await world.sql("select secret_hash from oauth_secret")
    assert all(newest[1].encode() not in row["secret_hash"] for row in stored)


PROGRAMMES = "{ programmes { code } }"
NEW_PASSWORD = "another long password"


async def test_a_code_serves_nobody_once_its_account_has_a_new_password_or_is_disabled(world: World) -> None:
    query, verifier = authorization(world)
    form = {"grant_type": "authorization_code", "client_id": "console", "redirect_uri": query["redirect_uri"], "code_verifier": verifier}
    database = Database(world.dsn, 2)
    await database.open()
    for ending in ("password", "disabled"):
        world.http.cookies.clear()
        world.clock.set(world.clock.now() + timedelta(seconds=30))
        login = {**olga(world), "password": NEW_PASSWORD if ending == "disabled" else OPERATOR_PASSWORD}
        answer = await world.http.post("/oauth/authorize", params=query, data=login)
        code = parse_qs(urlparse(answer.headers["location"]).query)["code"][0]
        await (world.set_password("olga", NEW_PASSWORD) if ending == "password" else world.disable("olga"))
        refused = await world.http.post("/oauth/token", data={**form, "code": code})
        assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant"), ending
    assert (await world.sql("select count(*) from token_family where ended_at is null"))[0][0] == 0
    await database.close()


async def test_a_login_that_was_under_way_when_its_password_changed_leads_nowhere(world: World) -> None:
    """The login has checked the old password and waits, as for the member's row; the new one is set meanwhile."""
    await ann_logs_in(world)
    query, _ = authorization(world, client_id="member-app", redirect_uri=REDIRECT)
    ann: Any = (await world.sql("select member_id from card where number = 'CARD-1'"))[0][0]
    database = Database(world.dsn, 2)
    await database.open()
    async with database.transaction() as tx:
        await consents.decide_alone(tx, ann)
        login = asyncio.create_task(
            world.http.post("/oauth/authorize", params=query, data={"login": "ann", "password": "ann's password"})
        )
        await waits(world, 1)
        changing = asyncio.create_task(world.set_password("ann", "another password", ann))
        await waits(world, 2)
    assert (await login).status_code == 303  # it came first, and what it led to ends with the new password
    await changing
    code = parse_qs(urlparse((await login).headers["location"]).query)["code"][0]
    form = {"grant_type": "authorization_code", "client_id": "member-app", "redirect_uri": REDIRECT, "code": code, "code_verifier": "x" * 43}
    refused = await world.http.post("/oauth/token", data=form)
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")
    assert (await world.sql("select count(*) from authorization_code where used_at is null"))[0][0] == 0
    late = await world.http.post("/oauth/authorize", params=query, data={"login": "ann", "password": "ann's password"})
    assert late.status_code == 401
    await database.close()


@pytest.mark.parametrize("ending", ["password", "disabled"])
async def test_an_account_ends_beside_who_forgets_its_member_though_a_code_is_open(world: World, ending: str) -> None:
    """Both lock codes first and accounts then: who came first goes on, and the other after it; neither is sent away."""
    await ann_logs_in(world)
    query, _ = authorization(world, client_id="member-app", redirect_uri=REDIRECT)
    await world.http.post("/oauth/authorize", params=query, data={"login": "ann", "password": "ann's password"})
    account: Any = (await world.sql("select account_id, member_id from account where member_id is not null"))[0]
    database = Database(world.dsn, 2)
    await database.open()

    async def end() -> None:
        if ending == "password":
            await world.set_password("ann", "another password", account["member_id"])
        else:
            async with database.transaction() as tx:
                await accounts.disable(tx, account, world.clock.now())

    async with database.transaction() as tx:
        await tx.run(accounts.sql.lock_codes_of, member=account["member_id"])
        other = asyncio.create_task(end())
        await waits(world, 1)
        await tx.run(accounts.sql.lock_accounts_of, member=account["member_id"])
    await other
    assert (await world.sql("select count(*) from authorization_code where used_at is null"))[0][0] == 0
    await database.close()


async def test_where_keys_have_leaked_nothing_goes_on_from_what_was_begun_before(world: World) -> None:
    """As after a backup is restored, with logins that had ended since."""
    await ann_logs_in(world)
    tokens = await app_tokens(world)
    await log_in(world, "console", f"{world.url}/graphiql", "olga", OPERATOR_PASSWORD)
    session = session_of(world)
    query, verifier = authorization(world, client_id="member-app", redirect_uri=REDIRECT)
    landed = await world.http.post("/oauth/authorize", params=query, data={"login": "ann", "password": "ann's password"})
    code = parse_qs(urlparse(landed.headers["location"]).query)["code"][0]
    gateway = Gateway(world.data_dir)
    gateway.environment |= {"DATABASE_URL": world.dsn}
    ran = gateway.run("keys", "rotate", "--leaked")
    assert (ran.returncode, "Every token and login has ended" in ran.stdout) == (0, True), ran.stderr
    for form in (
        {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]},
        {"grant_type": "authorization_code", "code": code, "redirect_uri": REDIRECT, "code_verifier": verifier},
    ):
        refused = await world.http.post("/oauth/token", data={"client_id": "member-app", **form})
        assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant"), form
    query, _ = authorization(world)
    assert (await world.http.get("/oauth/authorize", params=query, headers={"Cookie": session})).status_code == 200  # the form
    assert await world.sql("select from console_session") == []


async def test_where_keys_have_leaked_what_is_being_begun_from_a_session_or_a_code_is_waited_for(world: World) -> None:
    await ann_logs_in(world)
    await app_tokens(world)
    await log_in(world, "console", f"{world.url}/graphiql", "olga", OPERATOR_PASSWORD)
    gateway = Gateway(world.data_dir)
    gateway.environment |= {"DATABASE_URL": world.dsn}
    at_work = await asyncpg.connect(world.dsn)
    async with at_work.transaction():  # as the server is, for a session, and for an app that redeems a code
        assert await at_work.fetch("select from console_session for share")
        assert await at_work.fetch("select from authorization_code for update")
        command = asyncio.create_task(asyncio.to_thread(gateway.run, "keys", "rotate", "--leaked"))
        await waits(world, 1)
        for table, new in (("authorization_code", r"'code_hash', '\x00', 'used_at', null"), ("token_family", "'family_id', gen_random_uuid()")):
            copy = f"select (json_populate_record(t, json_build_object({new}))).* from {table} t limit 1"
            await at_work.execute(f"insert into {table} {copy}")
    await at_work.close()
    assert (await command).returncode == 0
    assert await world.sql("select from authorization_code where used_at is null") == []
    assert await world.sql("select from token_family where ended_at is null") == []


async def test_a_new_password_ends_what_was_begun_with_the_old_one(world: World) -> None:
    old = await log_in(world, "console", f"{world.url}/graphiql", "olga", OPERATOR_PASSWORD)
    assert (await world.post(old, PROGRAMMES)).status_code == 200
    assert (await world.sql("select count(*) from console_session"))[0][0] == 1
    database = Database(world.dsn, 2)
    await database.open()
    await world.set_password("olga", NEW_PASSWORD)
    assert (await world.sql("select count(*) from console_session"))[0][0] == 0
    keys = await world.signer(database)
    await read_again(database, await world.vault(database), keys, world.clock)
    with pytest.raises(TokenRefused, match="revoked"):
        keys.verify(old)
    world.clock.set(world.clock.now() + timedelta(minutes=2))
    new = await log_in(world, "console", f"{world.url}/graphiql", "olga", NEW_PASSWORD)
    await read_again(database, await world.vault(database), keys, world.clock)
    assert keys.verify(new).kind == "operator"
    await world.disable("olga")
    async with database.transaction() as tx:
        vault = await world.vault(database)
        assert await accounts.check_login(tx, vault, vault.blind("login", "olga"), NEW_PASSWORD, world.code_of("olga"), world.clock.now()) is None
    await database.close()


async def test_an_operator_is_shut_out_while_keys_are_replaced_whoever_comes_first(world: World) -> None:
    """Both wait for what the other one has."""
    await log_in(world, "console", f"{world.url}/graphiql", "olga", OPERATOR_PASSWORD)
    gateway = Gateway(world.data_dir)
    gateway.environment |= {"DATABASE_URL": world.dsn}
    at_work = await asyncpg.connect(world.dsn)
    async with at_work.transaction():
        await at_work.execute("select from account for update")
        disabling = asyncio.create_task(asyncio.to_thread(gateway.run, "operator", "disable", "olga"))
        await waits(world, 1)
        rotating = asyncio.create_task(asyncio.to_thread(gateway.run, "keys", "rotate", "--leaked"))
        await waits(world, 2)
    await at_work.close()
    assert [(await each).returncode for each in (disabling, rotating)] == [0, 0]
    assert await world.sql("select from account where disabled_at is null") == await world.sql("select from console_session") == []
    assert len(await world.sql("select from signing_key where state = 'retired'")) == 2


async def test_a_hint_that_is_unknown_is_ignored_and_the_token_ends(world: World) -> None:
    token = await world.token("grocer")
    revoked = await world.http.post(
        "/oauth/revoke", data={"token": token, "token_type_hint": "jwt"}, auth=world.clients["grocer"]
    )
    assert revoked.status_code == 200
    assert (await world.sql("select count(*) from revocation where mark like 'jti:%'"))[0][0] == 1


async def test_secrets_and_refresh_tokens_are_prefixed_and_cannot_be_guessed(world: World) -> None:
    refresh_token = (await app_tokens(world))["refresh_token"]
    for secret, prefix in ((world.clients["grocer"][1], "gws_"), (refresh_token, "gwr_")):
        assert secret.startswith(prefix)
        assert len(base64.urlsafe_b64decode(secret.removeprefix(prefix) + "=")) == 32


async def test_what_one_gateway_revokes_ends_within_two_seconds_in_another_too(world: World) -> None:
    door, port = free_door()
    settings = read_settings({}, data_dir=world.data_dir, port=port, issuer=world.url, jobs=())
    server, task = await started(await create_app(settings, world.dsn, world.clock, engine()), door)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as other:

        async def ends(token: str, http: httpx.AsyncClient) -> float:
            began = asyncio.get_running_loop().time()
            headers = {"Authorization": f"Bearer {token}"}
            async with asyncio.timeout(2):
                while (await http.post("/graphql", json={"query": PARTNER}, headers=headers)).status_code != 401:
                    await asyncio.sleep(0.02)
            return asyncio.get_running_loop().time() - began

        for here, there in ((world.http, other), (other, world.http)):
            form = {"grant_type": "client_credentials"}
            token = (await here.post("/oauth/token", data=form, auth=world.clients["grocer"])).json()["access_token"]
            for http in (here, there):
                answer = await http.post("/graphql", json={"query": PARTNER}, headers={"Authorization": f"Bearer {token}"})
                assert answer.status_code == 200
            assert (await here.post("/oauth/revoke", data={"token": token}, auth=world.clients["grocer"])).status_code == 200
            assert max(await asyncio.gather(ends(token, here), ends(token, there))) < 2
    server.should_exit = True
    await task


async def test_to_forget_waits_for_who_logs_in_and_neither_breaks_the_other_off(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ann, real = await ann_logs_in(world), login.decide_alone

    async def slowly(*given: Any) -> None:
        await asyncio.sleep(0.3)
        await real(*given)

    monkeypatch.setattr(login, "decide_alone", slowly)
    query, _ = authorization(world, client_id="member-app", redirect_uri=REDIRECT)
    form = {"login": "ann", "password": "ann's password"}
    coming = asyncio.create_task(world.http.post("/oauth/authorize", params=query, data=form))
    await asyncio.sleep(0.15)
    forgotten = await world.ask(ann, "mutation { forgetPerson(input: {confirm: true}) { errors { code } } }")
    assert codes(forgotten["forgetPerson"]) == []
    assert (await coming).status_code == 303
    assert [each["login_hash"] for each in await world.sql("select login_hash from account where kind = 'member'")] == [None]
    assert (await world.sql("select count(*) from authorization_code where used_at is null"))[0][0] == 0
    assert await world.sql("select from login_failure where failures > 0") == []
    monkeypatch.setattr(login, "decide_alone", real)
    assert (await world.http.post("/oauth/authorize", params=query, data=form)).status_code == 401


async def test_whoever_logs_in_anew_leaves_no_session_behind(world: World) -> None:
    await world.operator()
    first = session_of(world)
    query, _ = authorization(world)
    world.clock.set(world.clock.now() + timedelta(seconds=30))  # a one-time code serves once
    again = await world.http.post("/oauth/authorize", params=query, data=olga(world), headers={"cookie": first})
    assert again.status_code == 303
    assert (await world.http.get("/oauth/authorize", params=query, headers={"cookie": first})).status_code == 200  # the form
    second = again.headers["set-cookie"].partition(";")[0]
    assert (await world.http.get("/oauth/authorize", params=query, headers={"cookie": second})).status_code == 303
    assert (await world.sql("select count(*) from console_session"))[0][0] == 1
