"""The keys that sign: how they rotate, retire and leak, and what they have signed."""

import asyncio
from datetime import timedelta
from typing import Any

import orjson
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from gateway.access import tokens
from gateway.access.follow import read_again
from gateway.access.scopes import CEILING
from gateway.access.signing_keys import load_signing_keys, replace_signing_keys, rotate_signing_keys
from gateway.access.tokens import RETIRED_SECONDS, Subject, TokenRefused, Tokens
from gateway.access.vault import Vault
from gateway.cipher import CannotOpen, new_key
from gateway.database import Database
from tests.access.test_refreshing import app_tokens
from tests.world import World, said_by

PARTNER = "{ partner { code } }"


def jwt_header(token: str) -> dict[str, Any]:
    from gateway.access.clients import unverified

    return unverified(token, 0)


async def test_keys_rotate_without_anybody_noticing(world: World) -> None:
    before = await world.token("grocer")
    published = (await world.http.get("/oauth/jwks")).json()["keys"]
    assert len(published) == 2  # the one that signs, and the next one
    database = Database(world.dsn, 2)
    await database.open()
    async with database.transaction() as tx:
        await rotate_signing_keys(tx, await world.vault(database), world.clock.now())
    async with asyncio.timeout(3):
        while len((await world.http.get("/oauth/jwks")).json()["keys"]) != 3:
            await asyncio.sleep(0.05)
    world.tokens.clear()
    after = await world.token("grocer")
    assert jwt_header(before)["kid"] != jwt_header(after)["kid"]
    assert jwt_header(after)["kid"] in {key["kid"] for key in published}  # it was published before it signed
    for token in (before, after):
        assert (await world.post(token, PARTNER)).status_code == 200
    rows = await world.sql("select jwk, sealed, state from signing_key order by state")
    assert [(row["state"], row["sealed"] is None) for row in rows] == [("active", False), ("next", False), ("retired", True)]
    assert not any('"d"' in row["jwk"] for row in rows)  # a thief of the database finds no private part
    world.clock.set(world.clock.now() + timedelta(seconds=tokens.RETIRED_SECONDS + 1))
    signer = await world.signer(database)
    await read_again(database, await world.vault(database), signer, world.clock)
    assert len(signer.public_jwks()["keys"]) == 2  # type: ignore[arg-type]
    content = b"a block"
    assert signer.is_signed(content, signer.sign(content), signer.key_id)
    await database.close()


async def test_blocks_sealed_before_a_rotation_are_still_good(world: World) -> None:
    from gateway.ledger.seal import seal, verify_chain

    await world.record("10.00")
    database = Database(world.dsn, 2)
    await database.open()
    signer = await world.signer(database)
    assert await seal(database, signer, world.clock.now()) > 0
    async with database.transaction() as tx:
        await rotate_signing_keys(tx, await world.vault(database), world.clock.now())
    world.clock.set(world.clock.now() + timedelta(days=400))
    rotated = await world.signer(database)
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


async def test_a_retired_key_opens_nothing_once_its_tokens_have_ended(world: World) -> None:
    database = Database(world.dsn, 2)
    await database.open()
    keys = await load_signing_keys(database, await world.vault(database), world.clock)
    thief, running = Tokens(world.url, keys, world.clock), Tokens(world.url, keys, world.clock)
    grocer = Subject("partner", (await world.sql("select partner_id from partner where code = 'grocer'"))[0][0])
    async with database.transaction() as tx:
        await rotate_signing_keys(tx, await world.vault(database), world.clock.now())
    await read_again(database, await world.vault(database), running, world.clock)
    forged = thief.issue(grocer, "partner-grocer", CEILING["partner"], world.clock.now())
    assert running.verify(forged).subject_id == grocer.id
    world.clock.set(world.clock.now() + timedelta(seconds=RETIRED_SECONDS))
    await read_again(database, await world.vault(database), running, world.clock)
    with pytest.raises(TokenRefused, match="not one of this gateway's"):
        running.verify(thief.issue(grocer, "partner-grocer", CEILING["partner"], world.clock.now()))
    assert running.verify(running.issue(grocer, "partner-grocer", CEILING["partner"], world.clock.now())).subject_id == grocer.id
    await database.close()


async def test_a_token_that_lives_longer_than_ours_do_opens_nothing_and_none_is_remembered_past_its_key(world: World) -> None:
    database = Database(world.dsn, 2)
    await database.open()
    keys = await load_signing_keys(database, await world.vault(database), world.clock)
    running = Tokens(world.url, keys, world.clock)
    grocer = Subject("partner", (await world.sql("select partner_id from partner where code = 'grocer'"))[0][0])
    honest = running.issue(grocer, "partner-grocer", CEILING["partner"], world.clock.now())
    signing = next(each.key for each in keys if each.state == "active")
    header, claims = jwt_header(honest), jwt.decode(honest, signing, algorithms=["ES256"]).claims
    later = claims["iat"] + 10 * 365 * 86_400
    for changes, words in (({"exp": claims["iat"] + 301}, "lives longer"), ({"iat": later, "exp": later + 300}, "to come")):
        with pytest.raises(TokenRefused, match=words):
            running.verify(jwt.encode(header, {**claims, **changes}, signing, algorithms=["ES256"]))
    assert running.verify(honest).subject_id == grocer.id
    long_ago = world.clock.now() - timedelta(seconds=RETIRED_SECONDS)
    async with database.transaction() as tx:
        # It leaked, which was noticed after a rotation.
        await rotate_signing_keys(tx, await world.vault(database), world.clock.now())
        await replace_signing_keys(tx, await world.vault(database), world.clock.now(), long_ago)
    await read_again(database, await world.vault(database), running, world.clock)
    with pytest.raises(TokenRefused, match="not one of this gateway's"):
        running.verify(honest)
    await database.close()


async def test_a_key_that_lay_open_in_the_database_is_sealed_and_goes_on_signing(world: World) -> None:
    before = await world.token("grocer")
    database = Database(world.dsn, 2)
    await database.open()
    vault = await world.vault(database)
    for each in await load_signing_keys(database, vault, world.clock):
        whole = orjson.dumps(each.key.as_dict(private=True)).decode()
        await world.sql("update signing_key set jwk = $1, sealed = null where key_id = $2", whole, each.key.kid)
    sealed = await world.signer(database)
    assert await world.sql("select key_id from signing_key where sealed is null or jwk like '%\"d\"%'") == []
    assert sealed.key_id == jwt_header(before)["kid"]
    assert sealed.verify(sealed.issue(Subject("partner", sealed.verify(before).subject_id), "c", CEILING["partner"], world.clock.now()))
    stolen = Vault(vault.wrapping, {"signing": new_key()})
    with pytest.raises(CannotOpen):
        await load_signing_keys(database, stolen, world.clock)
    await database.close()


async def test_what_our_own_key_signed_is_no_token_unless_it_says_all_that_one_must(world: World) -> None:
    database = Database(world.dsn, 2)
    await database.open()
    keys = await load_signing_keys(database, await world.vault(database), world.clock)
    await database.close()
    key = next(each.key for each in keys if each.state == "active")
    good = said_by(await world.token("grocer"))
    at = int(world.clock.now().timestamp())

    async def status(typ: str = "at+jwt", **changes: Any) -> int:
        claims = {name: value for name, value in {**good, "jti": str(changes), **changes}.items() if value is not None}
        token = jwt.encode({"alg": "ES256", "typ": typ, "kid": key.kid}, claims, key, algorithms=["ES256"])
        return (await world.post(token, PARTNER)).status_code

    assert await status() == 200
    for changes in (
        {"iss": "https://elsewhere.example"}, {"iss": None}, {"aud": world.url}, {"aud": "https://elsewhere.example"}, {"aud": None},
        {"exp": at}, {"exp": None}, {"exp": at + 3_600}, {"iat": at + 120}, {"iat": None}, {"kind": "king"}, {"kind": None},
    ):  # fmt: skip
        assert await status(**changes) == 401, changes
    for typ in ("JWT", "dpop+jwt", ""):
        assert await status(typ) == 401, typ
