"""What ends, and when: retired keys, old passwords, suspended partners; and requests that used to be errors of ours."""

from datetime import timedelta

import pytest
from joserfc.jwk import ECKey

from gateway.access import accounts
from gateway.access.follow import read_again
from gateway.access.scopes import CEILING
from gateway.access.tokens import RETIRED_SECONDS, Subject, TokenRefused, Tokens, load_signing_keys, rotate_signing_keys
from gateway.access.vault import open_vault
from gateway.database import Database
from gateway.settings import read_settings
from tests.access.test_keys import proof
from tests.access.test_oauth import authorization
from tests.house.test_embedded import Gateway
from tests.world import OPERATOR_PASSWORD, World, log_in

PROGRAMMES = "{ programmes { code } }"
NEW_PASSWORD = "another long password"


async def test_a_retired_key_opens_nothing_once_its_tokens_have_ended(world: World) -> None:
    database = Database(world.dsn, 2)
    await database.open()
    keys = await load_signing_keys(database, world.clock)
    thief, running = Tokens(world.url, keys, world.clock), Tokens(world.url, keys, world.clock)
    grocer = Subject("partner", (await world.sql("select partner_id from partner where code = 'grocer'"))[0][0])
    async with database.transaction() as tx:
        await rotate_signing_keys(tx, world.clock.now())
    await read_again(database, running, world.clock)
    forged = thief.issue(grocer, "partner-grocer", CEILING["partner"], world.clock.now())
    assert running.verify(forged).subject_id == grocer.id
    world.clock.set(world.clock.now() + timedelta(seconds=RETIRED_SECONDS))
    await read_again(database, running, world.clock)
    with pytest.raises(TokenRefused, match="not one of this gateway's"):
        running.verify(thief.issue(grocer, "partner-grocer", CEILING["partner"], world.clock.now()))
    assert running.verify(running.issue(grocer, "partner-grocer", CEILING["partner"], world.clock.now())).subject_id == grocer.id
    await database.close()


async def test_a_new_password_ends_what_was_begun_with_the_old_one(world: World) -> None:
    old = await log_in(world, "console", f"{world.url}/graphiql", "olga", OPERATOR_PASSWORD)
    assert (await world.post(old, PROGRAMMES)).status_code == 200
    assert (await world.sql("select count(*) from console_session"))[0][0] == 1
    database = Database(world.dsn, 2)
    await database.open()
    async with database.transaction() as tx:
        await accounts.set_password(tx, "operator", "olga", NEW_PASSWORD, None, world.clock.now())
    assert (await world.sql("select count(*) from console_session"))[0][0] == 0
    keys = Tokens(world.url, await load_signing_keys(database, world.clock), world.clock)
    await read_again(database, keys, world.clock)
    with pytest.raises(TokenRefused, match="revoked"):
        keys.verify(old)
    world.clock.set(world.clock.now() + timedelta(minutes=2))
    new = await log_in(world, "console", f"{world.url}/graphiql", "olga", NEW_PASSWORD)
    await read_again(database, keys, world.clock)
    assert keys.verify(new).kind == "operator"
    async with database.transaction() as tx:
        account = await tx.one(accounts.sql.account_by_login, login="olga")
        assert account is not None
        await accounts.disable(tx, account, world.clock.now())
        vault = await open_vault(database, read_settings({}, data_dir=world.data_dir))
        assert await accounts.check_login(tx, vault, "olga", NEW_PASSWORD, world.code_of("olga"), world.clock.now()) is None
    await database.close()


async def test_the_command_line_suspends_and_admits_and_keeps_what_a_client_was_registered_with(world: World) -> None:
    gateway = Gateway(world.data_dir)
    gateway.environment |= {"DATABASE_URL": world.dsn, "GATEWAY_PASSWORD": OPERATOR_PASSWORD}
    for command in (
        "partner client fuel --dpop --redirect https://fuel.example/back --purpose saving",
        "partner client fuel",
        "partner suspend grocer",
        "operator create eve --role support",
        "operator factor eve",
        "operator code eve",
        "operator disable eve",
    ):
        ran = gateway.run(*command.split())
        assert ran.returncode == 0, ran.stderr
        if command == "operator code eve":
            assert ran.stdout.strip().isdigit()
    kept = (await world.sql("select dpop_bound, redirect_uris, purpose from oauth_client where client_id = 'partner-fuel'"))[0]
    assert tuple(kept) == (True, ["https://fuel.example/back"], "saving")
    assert gateway.run("partner", "client", "fuel", "--no-dpop").returncode == 0
    assert (await world.sql("select dpop_bound from oauth_client where client_id = 'partner-fuel'"))[0][0] is False
    asked = {"data": {"grant_type": "client_credentials"}, "auth": world.clients["grocer"]}
    assert (await world.http.post("/oauth/token", **asked)).status_code == 401  # type: ignore[arg-type]
    assert gateway.run("partner", "admit", "grocer").returncode == 0
    assert (await world.http.post("/oauth/token", **asked)).status_code == 200  # type: ignore[arg-type]
    assert gateway.run("partner", "suspend", "nobody").returncode != 0
    assert gateway.run("operator", "disable", "nobody").returncode != 0
    (world.data_dir / "bad.graphql").write_text("query { nothing }")
    refused = gateway.run("documents", "register", "member-app", str(world.data_dir / "bad.graphql"))
    assert refused.returncode != 0
    assert (await world.sql("select count(*) from trusted_document where text like '%nothing%'"))[0][0] == 0


STRANGE = (("response_type", "é"), ("response_type", 'a"b'), ("response_type", "a\\b"), ("redirect_uri", "https://x/é"), ("max_age", "²"))


async def test_strange_characters_at_the_login_are_no_error_of_ours(world: World) -> None:
    await log_in(world, "console", f"{world.url}/graphiql", "olga", OPERATOR_PASSWORD)
    for name, value in STRANGE:
        query, _ = authorization(world, **{name: value})
        answer = await world.http.get("/oauth/authorize", params=query)
        assert answer.status_code in (200, 303, 400)
        pushed = await world.http.post("/oauth/par", data=query, auth=world.clients["grocer"])
        assert 400 <= pushed.status_code < 500
        assert pushed.json()["error"]


async def test_a_hint_that_is_unknown_is_ignored_and_the_token_ends(world: World) -> None:
    token = await world.token("grocer")
    revoked = await world.http.post(
        "/oauth/revoke", data={"token": token, "token_type_hint": "jwt"}, auth=world.clients["grocer"]
    )
    assert revoked.status_code == 200
    assert (await world.sql("select count(*) from revocation where mark like 'jti:%'"))[0][0] == 1


async def test_who_does_not_authenticate_is_not_told_whether_its_tokens_are_bound(world: World) -> None:
    await world.sql("update oauth_client set dpop_bound = true where client_id = 'partner-grocer'")
    said = [
        await world.http.post("/oauth/token", data={"grant_type": "client_credentials"}, auth=(client, "gws_wrong"))
        for client in ("partner-grocer", "partner-nobody")
    ]
    assert [answer.status_code for answer in said] == [401, 401]
    assert said[0].json() == said[1].json()


async def test_a_request_that_is_pushed_with_a_proof_binds_its_code_to_that_key(world: World) -> None:
    key = ECKey.generate_key("P-256", private=True)
    asked, _ = authorization(world, client_id="member-app", redirect_uri="com.example.loyalty:/callback")
    nonsense = await world.http.post("/oauth/par", data=asked, headers={"DPoP": "nonsense"})
    assert (nonsense.status_code, nonsense.json()["error"]) == (400, "invalid_dpop_proof")
    made = proof(key, f"{world.url}/oauth/par", iat=int(world.clock.now().timestamp()))
    pushed = await world.http.post("/oauth/par", data=asked, headers={"DPoP": made})
    assert pushed.status_code == 201, pushed.text
    kept = (await world.sql("select parameters::text from pushed_request"))[0][0]
    assert str(key.thumbprint()) in kept
