"""How tokens go on and how they end: refresh in families, revocation, introspection, secrets and keys that change."""

import asyncio
import base64
import hashlib
import secrets
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlparse

import httpx
from joserfc import jwt
from joserfc.jwk import KeySet

from gateway.access import accounts, tokens
from gateway.access.follow import read_again
from gateway.database import Database
from tests.points import ann_logs_in, until_revoked
from tests.world import World, log_in

REDIRECT = "com.example.loyalty:/callback"
ME = "{ me { id } }"
PARTNER = "{ partner { code } }"


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


async def test_introspection_tells_a_client_of_its_own_tokens_alone(world: World) -> None:
    token = await world.token("grocer")
    own = (await world.http.post("/oauth/introspect", data={"token": token}, auth=world.clients["grocer"])).json()
    assert (own["active"], own["client_id"], own["iss"]) == (True, "partner-grocer", world.url)
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
            made.append(await accounts.create_partner_client(tx, partner_id, "grocer", at))
    statuses = [
        (await world.http.post("/oauth/token", data={"grant_type": "client_credentials"}, auth=each)).status_code for each in made
    ]
    assert statuses == [401, 200, 200]
    async with database.transaction() as tx:
        newest = await accounts.create_partner_client(tx, partner_id, "grocer", world.clock.now() + timedelta(seconds=9), keep=1)
    await database.close()
    for each, status in ((made[1], 401), (made[2], 401), (newest, 200)):
        answer = await world.http.post("/oauth/token", data={"grant_type": "client_credentials"}, auth=each)
        assert answer.status_code == status
    stored = await world.sql("select secret_hash from oauth_secret")
    assert all(newest[1].encode() not in row["secret_hash"] for row in stored)


async def test_keys_rotate_without_anybody_noticing(world: World) -> None:
    before = await world.token("grocer")
    published = (await world.http.get("/oauth/jwks")).json()["keys"]
    assert len(published) == 2  # the one that signs, and the next one
    database = Database(world.dsn, 2)
    await database.open()
    async with database.transaction() as tx:
        await tokens.rotate_signing_keys(tx, world.clock.now())
    async with asyncio.timeout(3):
        while len((await world.http.get("/oauth/jwks")).json()["keys"]) != 3:
            await asyncio.sleep(0.05)
    world.tokens.clear()
    after = await world.token("grocer")
    assert jwt_header(before)["kid"] != jwt_header(after)["kid"]
    assert jwt_header(after)["kid"] in {key["kid"] for key in published}  # it was published before it signed
    for token in (before, after):
        assert (await world.post(token, PARTNER)).status_code == 200
    retired = await world.sql("select jwk from signing_key where state = 'retired'")
    assert len(retired) == 1
    assert '"d"' not in retired[0]["jwk"]
    world.clock.set(world.clock.now() + timedelta(seconds=tokens.RETIRED_SECONDS + 1))
    signer = tokens.Tokens(world.url, await tokens.load_signing_keys(database, world.clock), world.clock)
    await read_again(database, signer, world.clock)
    assert len(signer.public_jwks()["keys"]) == 2  # type: ignore[arg-type]
    content = b"a block"
    assert signer.is_signed(content, signer.sign(content), signer.key_id)
    await database.close()


def jwt_header(token: str) -> dict[str, Any]:
    from gateway.access.clients import unverified

    return unverified(token, 0)


async def test_blocks_sealed_before_a_rotation_are_still_good(world: World) -> None:
    from gateway.ledger.seal import seal, verify_chain

    await world.record("10.00")
    database = Database(world.dsn, 2)
    await database.open()
    signer = tokens.Tokens(world.url, await tokens.load_signing_keys(database, world.clock), world.clock)
    assert await seal(database, signer, world.clock.now()) > 0
    async with database.transaction() as tx:
        await tokens.rotate_signing_keys(tx, world.clock.now())
    world.clock.set(world.clock.now() + timedelta(days=400))
    rotated = tokens.Tokens(world.url, await tokens.load_signing_keys(database, world.clock), world.clock)
    assert rotated.key_id != signer.key_id
    faults = [fault async for _, _, fault in verify_chain(database, rotated) if fault]
    await database.close()
    assert faults == []


async def test_a_token_is_signed_with_a_published_key_and_says_its_family(world: World) -> None:
    given = await app_tokens(world)
    keys = KeySet.import_key_set((await world.http.get("/oauth/jwks")).json())
    claims = jwt.decode(given["access_token"], keys, algorithms=["ES256"]).claims
    families = {str(row["family_id"]) for row in await world.sql("select family_id from token_family")}
    assert claims["sid"] in families
