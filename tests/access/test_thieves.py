"""Somebody else has a cookie, a token, a password: how soon it serves no more, and what it gives away until then."""

import asyncio
import base64
import json
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlparse

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc.jwk import ECKey, RSAKey

from gateway.access import accounts
from gateway.access.jwks import read_keys
from gateway.coalition import catalogue
from gateway.database import Database, DatabaseAway
from gateway.http.budget import SITE_BITS, network_of
from tests.access.consenting import GRANT
from tests.access.test_endings import PARTNER
from tests.access.test_keys import assertion, keyed_client, proof
from tests.access.test_oauth import authorization, exchange, olga
from tests.access.test_operators import session_of
from tests.access.test_refreshing import app_tokens, refresh
from tests.founding import OPERATOR_PASSWORD
from tests.points import until_revoked
from tests.privacy.test_people import FORGET
from tests.world import World, log_in, said_by

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
SEES = "{ programmes { code } }"


async def ask_for_codes(world: World, query: dict[str, str], cookie: str, codes: list[str]) -> None:
    """As often as the session is good for one."""
    while True:
        answer = await world.http.get("/oauth/authorize", params=query, headers={"cookie": cookie})
        if answer.status_code != 303:
            return
        codes += parse_qs(urlparse(answer.headers["location"]).query)["code"]


async def test_a_stolen_session_in_full_use_ends_with_the_password_and_leaves_no_code(world: World) -> None:
    """A code that is on its way while the sessions end is waited for, and ends with them."""
    await world.operator()
    database = Database(world.dsn, 2)
    await database.open()
    for round in range(3):
        query, verifier = authorization(world)
        await world.http.post("/oauth/authorize", params=query, data=olga(world))
        codes: list[str] = []
        asking = [asyncio.create_task(ask_for_codes(world, query, session_of(world), codes)) for _ in range(8)]
        async with asyncio.timeout(10):
            while len(codes) < 20:
                await asyncio.sleep(0.01)
        await world.set_password("olga", OPERATOR_PASSWORD)
        await asyncio.gather(*asking)
        answers = [await world.http.post("/oauth/token", data=exchange(world, code, verifier)) for code in codes]
        assert {answer.status_code for answer in answers} == {400}, round
        world.http.cookies.clear()
        world.clock.set(world.clock.now() + timedelta(minutes=1))
    await database.close()


async def test_a_crowd_at_the_login_page_keeps_nobody_from_the_api(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "STALE_SECONDS", 0)
    query, _ = authorization(world)
    await world.token("grocer")
    async with asyncio.timeout(4):
        pages = [world.http.get("/oauth/authorize", params=query) for _ in range(60)]
        answers = await asyncio.gather(*pages, *(world.post("grocer", PARTNER) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}


async def test_nothing_is_checked_that_could_not_be_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong password that is not counted could be guessed for ever: where the page cannot be shown none is looked at."""

    async def away(self: catalogue.Catalogue) -> None:
        raise DatabaseAway

    query, _ = authorization(world)
    with monkeypatch.context() as patched:
        patched.setattr(catalogue.Catalogue, "current", away)
        for password in ("wrong", OPERATOR_PASSWORD):
            answer = await world.http.post("/oauth/authorize", params=query, data={**olga(world), "password": password})
            assert answer.status_code == 503
    assert await world.sql("select from login_failure") == await world.sql("select from authorization_code") == []


async def test_of_two_who_refresh_apart_neither_goes_on(world: World) -> None:
    """Whoever took a token in the seconds of grace is found out at the next refresh."""
    first = (await app_tokens(world))["refresh_token"]
    own, stolen = [(await refresh(world, first)).json()["refresh_token"] for _ in range(2)]
    world.clock.set(world.clock.now() + timedelta(seconds=200))
    own = (await refresh(world, own)).json()
    world.clock.set(world.clock.now() + timedelta(seconds=11))
    assert (await refresh(world, stolen)).status_code == 400
    assert (await refresh(world, own["refresh_token"])).status_code == 400
    await until_revoked(world, own["access_token"])


async def test_two_tabs_go_on_side_by_side_for_days(world: World) -> None:
    tabs = [(await app_tokens(world))["refresh_token"]] * 2
    for _ in range(5):
        for n, seconds in ((0, 0), (1, 9)):
            world.clock.set(world.clock.now() + timedelta(seconds=seconds))
            answer = await refresh(world, tabs[n])
            assert answer.status_code == 200
            tabs[n] = answer.json()["refresh_token"]
        world.clock.set(world.clock.now() + timedelta(days=1))
    assert tabs[0] != tabs[1]


async def test_a_scope_that_nobody_of_the_kind_has_gives_nothing_and_none_gives_all(world: World) -> None:
    redirect = f"{world.url}/graphiql"
    assert said_by(await log_in(world, "console", redirect, "olga", OPERATOR_PASSWORD, scope="balance:read"))["scope"] == ""
    world.http.cookies.clear()
    world.clock.set(world.clock.now() + timedelta(seconds=30))  # the one-time code served
    everything = await log_in(world, "console", redirect, "olga", OPERATOR_PASSWORD)
    assert len(said_by(everything)["scope"].split()) > 5


async def test_what_was_begun_while_the_password_changed_ends_too(world: World) -> None:
    """The command that changes it may be slow, or on a machine whose clock is behind."""
    given = await app_tokens(world)
    member = (await world.sql("select member_id from card where number = 'CARD-1'"))[0]["member_id"]
    await world.set_password("ann", "another password", member, late=timedelta(seconds=30))
    await until_revoked(world, given["access_token"])
    assert (await refresh(world, given["refresh_token"])).status_code == 400


async def test_a_partners_tokens_do_not_come_back_when_it_is_admitted_again(world: World) -> None:
    leaked = await world.token("grocer")
    partner = (await world.sql("select partner_id from partner where code = 'grocer'"))[0]["partner_id"]
    database = Database(world.dsn, 2)
    await database.open()
    async with database.transaction() as tx:
        await accounts.end_partner(tx, partner, world.clock.now())
    await database.close()
    await until_revoked(world, leaked)
    world.clock.set(world.clock.now() + timedelta(seconds=1))
    world.tokens.clear()
    assert (await world.post("grocer", PARTNER)).status_code == 200
    marks = {row["mark"] for row in await world.sql("select mark from revocation")}
    assert marks == {f"sub:{partner}", "client:partner-grocer"}


def nested(levels: int) -> str:
    """JSON so deep that reading it must not end in a traceback, in the form of a JWT's part."""
    return base64.urlsafe_b64encode(b'{"a":' * levels + b"1" + b"}" * levels).rstrip(b"=").decode()


async def test_a_stranger_gets_a_no_and_no_500_for_what_is_nested_or_malformed(world: World) -> None:
    client_id, _ = await keyed_client(world, "fuel", dpop=False)
    claims = base64.urlsafe_b64encode(json.dumps({"sub": client_id}).encode()).rstrip(b"=").decode()
    form = {"grant_type": "client_credentials", "client_assertion_type": ASSERTION_TYPE}
    for levels in (500, 980, 1_020):
        for header, payload in ((nested(levels), claims), (nested(levels), nested(levels)), (nested(10), nested(levels))):
            answer = await world.http.post("/oauth/token", data={**form, "client_assertion": f"{header}.{payload}.x"})
            assert answer.status_code in (400, 401), (levels, answer.text)
            for odd in (f"{header}.{payload}.x", f"{header}.{payload}.{nested(3)}"):
                answer = await world.http.post(
                    "/oauth/token", data={"grant_type": "client_credentials"}, auth=world.clients["grocer"], headers={"DPoP": odd[:4_000]}
                )
                assert (answer.status_code, answer.json()["error"]) == (400, "invalid_dpop_proof")
                answer = await world.http.post("/graphql", json={"query": SEES}, headers={"Authorization": f"Bearer {header}.{payload}.x"})
                assert answer.status_code == 401
    query, _ = authorization(world, client_id="member-app", redirect_uri="com.example.loyalty:/callback")
    answer = await world.http.post("/oauth/par", data={**query, "a\0b": "1"})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    for origin in ("http://[", "http://]:1", "null", "x"):
        answer = await world.http.post("/oauth/authorize", params=query, data=olga(world), headers={"Origin": origin})
        assert answer.status_code == 400
    assert await world.sql("select from pushed_request") == []


async def test_a_parameter_without_a_value_is_as_if_it_were_not_there(world: World) -> None:
    answer = await world.http.post("/oauth/token", data={"grant_type": "client_credentials", "scope": ""}, auth=world.clients["grocer"])
    assert "points:earn" in answer.json()["scope"]
    twice = [("grant_type", "client_credentials"), ("scope", ""), ("scope", "partner")]
    answer = await world.http.post(
        "/oauth/token", content="&".join(f"{name}={value}" for name, value in twice), auth=world.clients["grocer"],
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )  # fmt: skip
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    query, _ = authorization(world, client_id="member-app", redirect_uri="com.example.loyalty:/callback")
    assert (await world.http.post("/oauth/par", data={**query, "client_secret": ""})).status_code == 201
    # It is a stranger's, and counted as one.
    assert (await world.sql("select count(*) from budget where holder = 'address 127.0.0.1'"))[0][0] == 1


async def test_an_empty_form_is_a_try_at_logging_in_and_counts_as_one(world: World) -> None:
    query, _ = authorization(world)
    await world.http.post("/oauth/authorize", params=query, data={"login": "", "password": ""})
    frozen = "update budget set available = 0, as_of = clock_timestamp() + interval '50 seconds' where holder = 'address 127.0.0.1'"
    await world.sql(frozen)
    statuses = [(await world.http.post("/oauth/authorize", params=query, data={"login": ""})).status_code for _ in range(20)]
    assert statuses[-1] == 429


async def test_strangers_of_one_address_who_wait_at_the_login_leave_room_for_others(world: World) -> None:
    query, _ = authorization(world)
    form = {"login": "nobody", "password": "wrong password", "code": "000000"}
    elsewhere = httpx.AsyncHTTPTransport(local_address="127.0.0.2", limits=httpx.Limits(max_connections=None))
    async with httpx.AsyncClient(base_url=world.url, transport=elsewhere, timeout=30) as http:
        attack = [asyncio.create_task(http.post("/oauth/authorize", params=query, data=form)) for _ in range(120)]
        honest = await world.http.post("/oauth/authorize", params=query, data=olga(world))
        answers = [(await each).status_code for each in attack]
    assert honest.status_code == 303
    assert answers.count(400) > 50  # told that too many log in at once


def test_an_ipv6_site_is_one_address_at_the_login_and_a_network_of_it_one_at_the_budget() -> None:
    one, another, elsewhere = "2001:db8:1:1::1", "2001:db8:1:2::1", "2001:db8:2:1::1"
    assert network_of(one, SITE_BITS) == network_of(another, SITE_BITS) != network_of(elsewhere, SITE_BITS)
    assert network_of(one) != network_of(another)
    assert network_of("::ffff:198.51.100.7", SITE_BITS) == network_of("198.51.100.7") == "198.51.100.7"


async def test_a_login_under_way_with_the_old_second_factor_does_not_stand(world: World) -> None:
    database = Database(world.dsn, 2)
    await database.open()
    vault = await world.vault(database)
    async with database.transaction() as tx:
        account = await tx.one(accounts.sql.account_by_login, login_hash=vault.blind("login", "olga"))
        assert account is not None
        asked = {
            "account_id": account["account_id"], "password_hash": account["password_hash"], "second_factor": account["second_factor"],
        }  # fmt: skip
        assert await tx.value(accounts.sql.account_stands, **asked) is True
    async with database.transaction() as tx:
        await accounts.set_second_factor(tx, vault, account["account_id"])
        assert await tx.value(accounts.sql.account_stands, **asked) is None
    await database.close()


async def test_of_one_refresh_token_no_more_tabs_than_a_few_go_on(world: World) -> None:
    first = await app_tokens(world)
    answers = [await refresh(world, first["refresh_token"]) for _ in range(10)]
    assert [answer.status_code for answer in answers] == [200] * 4 + [400] * 6
    again = [await refresh(world, answers[0].json()["refresh_token"]) for _ in range(6)]
    assert [answer.status_code for answer in again] == [200] * 4 + [400] * 2
    assert (await world.sql("select count(*) from token_family where ended_at is not null"))[0][0] == 0


async def test_whether_a_login_exists_is_not_told_by_when_it_is_locked(world: World) -> None:
    query, _ = authorization(world)

    async def tries(login: str, times: int) -> list[int]:
        form = {"login": login, "password": "wrong", "code": "000000"}
        return [(await world.http.post("/oauth/authorize", params=query, data=form)).status_code for _ in range(times)]

    assert await tries("olga", 4) == await tries("nobody", 4) == [401] * 4
    await world.operator()  # Olga herself logs in meanwhile
    assert await tries("olga", 3) == await tries("nobody", 3) == [401, 429, 429]
    world.clock.set(world.clock.now() + timedelta(minutes=16))
    assert await tries("olga", 1) == [401]


async def test_who_is_forgotten_logs_in_no_more_and_its_login_is_nowhere(world: World) -> None:
    member = (await world.sql("select member_id from card where number = 'CARD-1'"))[0]["member_id"]
    await world.set_password("ann.other@example.org", "ann's password", member)
    kept = await world.sql("select * from account")
    assert "example.org" not in str(kept)
    where = "com.example.loyalty:/callback"
    await world.http.post("/oauth/authorize", params=authorization(world)[0], data={"login": "ann.other@example.org", "password": "wrong"})
    token = await log_in(world, "member-app", where, "ann.other@example.org", "ann's password")
    given = {"partner": "fuel", "purpose": "to save points", "scopes": ["profile:read"], "dataClasses": ["contact"]}
    assert (await world.ask(token, GRANT, i=given))["grantConsent"]["errors"] == []
    await world.sql("insert into outside_identity values ('https://idp.example', 'ann@example.org', 'member', $1, now())", member)
    assert (await world.ask(token, FORGET))["forgetPerson"]["errors"] == []
    await until_revoked(world, token)
    assert await world.sql("select from consent where withdrawn_at is null") == []
    assert await world.sql("select from outside_identity") == []
    log = (await world.ask(await world.operator(), "{ audit(first: 50) { nodes { action details } } }"))["audit"]["nodes"]
    assert "log in" in {entry["action"] for entry in log}
    assert "example.org" not in str(log)
    query, _ = authorization(world, client_id="member-app", redirect_uri=where)
    form = {"login": "ann.other@example.org", "password": "ann's password"}
    assert (await world.http.post("/oauth/authorize", params=query, data=form)).status_code == 401
    assert [tuple(row) for row in await world.sql("select login, login_hash from account where kind = 'member'")] == [(None, None)]


async def test_one_request_names_one_client_in_one_way(world: World) -> None:
    (grocer, secret), (fuel, _) = world.clients["grocer"], world.clients["fuel"]
    good, bad = (f"Basic {base64.b64encode(f'{grocer}:{each}'.encode()).decode()}" for each in (secret, "gws_wrong"))
    form = {"grant_type": "client_credentials"}
    for headers in ([("Authorization", good), ("Authorization", bad)], [("Authorization", bad), ("Authorization", good)]):
        assert (await world.http.post("/oauth/token", data=form, headers=headers)).status_code == 400
    for client, status in ((grocer, 200), (fuel, 400)):
        answer = await world.http.post("/oauth/token", data={**form, "client_id": client}, headers={"Authorization": good})
        assert answer.status_code == status


@pytest.mark.parametrize("where", ["published", "proof"])
async def test_keys_that_take_long_to_check_or_are_too_many_are_no_keys(world: World, where: str) -> None:
    made_slow = rsa.generate_private_key(public_exponent=3, key_size=2048)
    slow = RSAKey.import_key(made_slow.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    if where == "proof":
        made = proof(slow, f"{world.url}/oauth/token", alg="PS256")
        answer = await world.http.post("/oauth/token", data={"grant_type": "client_credentials"}, auth=world.clients["fuel"], headers={"DPoP": made})
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_dpop_proof")
        return
    small = {"kty": "RSA", "e": "AQAB", "n": "x" * 341}
    good = ECKey.generate_key("P-256").as_dict(private=False)
    rsa2 = RSAKey.generate_key(2048).as_dict(private=False)
    unfit: list[Any] = [
        slow.as_dict(private=False), small, {**small, "n": "x" * 684}, {"kty": "oct", "k": "c2VjcmV0"}, {"kty": "new"}, None, 7,
        {**rsa2, "use": "tls"}, {**rsa2, "use": "enc"}, {**good, "kid": 7}, {**good, "crv": "brainpoolP256r1"}, {**good, "crv": "P-192"},
        {"kty": "OKP", "crv": "X448", "x": "AA"}, {**good, "x": good["y"]}, {**good, "key_ops": ["fly"]}, {**good, "x5c": "text"},
        {name: value for name, value in good.items() if name != "crv"}, {**rsa2, "n": f"{rsa2['n']}="},
    ]  # fmt: skip
    # Whoever publishes one beside good ones is not shut out.
    for keys in ([*unfit, good], [good, *unfit]):
        assert {key.thumbprint() for key in read_keys({"keys": keys}).keys} <= {ECKey.import_key(good).thumbprint()} | {
            RSAKey.import_key(rsa2).thumbprint()
        }
        assert ECKey.import_key(good).thumbprint() in {key.thumbprint() for key in read_keys({"keys": keys}).keys}
    assert len(read_keys({"keys": [good] * 100}).keys) == 30
    # A client that was registered with nothing else is told no, and is no fault of ours.
    client_id, _ = await keyed_client(world, "fuel", dpop=False)
    await world.sql("update oauth_client set jwks = $1 where client_id = $2", json.dumps({"keys": unfit}), client_id)
    form = {"grant_type": "client_credentials", "client_assertion": assertion(world, client_id, ECKey.generate_key("P-256"))}
    answer = await world.http.post("/oauth/token", data={**form, "client_assertion_type": ASSERTION_TYPE})
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
