"""Outside issuers: npm's oidc-provider gives the tokens, and the gateway trusts it within its ceiling."""

import asyncio
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from gateway.access.issuers import BadIssuers, read_issuers
from gateway.clock import SystemClock
from gateway.main import create_app
from gateway.settings import read_settings
from tests.access.issuing import Publisher, forge, link, provider, publishing, token_of, trusting
from tests.access.test_clients import clients
from tests.access.test_keys import proof
from tests.world import Place, engine, free_door, open_world, started

__all__ = ["clients"]
PARTNER = "{ partner { code } }"


async def test_tokens_of_a_trusted_issuer_open_what_its_ceiling_allows_and_of_others_nothing(place: Place, tmp_path: Path, clients: Path) -> None:
    door, port = free_door()
    door.close()
    url, audience = f"http://127.0.0.1:{port}", "https://gateway.example/graphql"
    file = trusting(tmp_path, url, audience)
    async with (
        provider(port, audience),
        open_world(place, clock=SystemClock(), issuers_file=file, jwks_hosts=(f"127.0.0.1:{port}",)) as world,
    ):
        await link(world, url, "till-1", "grocer")
        token = await token_of(url, "till-1")
        assert (await world.ask(token, PARTNER))["partner"]["code"] == "grocer"
        # Its scope says more than its ceiling and its kind allow.
        assert (await world.post(token, "{ memberships(first: 1) { nodes { id } } }")).status_code == 403
        assert (await world.post(token, 'mutation { closePeriod(input: {month: "2026-01"}) { errors { code } } }')).status_code == 403
        record = await world.record("5.00", who=token, occurredAt="2026-10-01T00:00:00Z")
        assert record["errors"] == []
        stranger = await world.post(await token_of(url, "stranger"), PARTNER)
        assert stranger.status_code == 401
        assert "known" in stranger.json()["errors"][0]["message"]
        for elsewhere in ("https://elsewhere.example/graphql",):
            foreign = await token_of(url, "till-1", resource=elsewhere)
            assert (await world.post(foreign, PARTNER)).status_code == 401
        # One that is bound to a key serves with a proof of that key, and only so.
        key, others = ECKey.generate_key("P-256"), ECKey.generate_key("P-256")
        bound = await token_of(url, "till-1", key)
        proven = proof(key, f"{world.url}/graphql", token=bound, iat=int(time.time()))
        by_other = proof(others, f"{world.url}/graphql", token=bound, iat=int(time.time()))
        for headers, status in (
            ({"Authorization": f"Bearer {bound}"}, 401),
            ({"Authorization": f"DPoP {bound}"}, 401),
            ({"Authorization": f"DPoP {bound}", "DPoP": by_other}, 401),
            ({"Authorization": f"DPoP {bound}", "DPoP": proven}, 200),
            ({"Authorization": f"DPoP {bound}", "DPoP": proven}, 401),
        ):
            assert (await world.http.post("/graphql", json={"query": PARTNER}, headers=headers)).status_code == status
        head, payload, signature = token.split(".")
        assert (await world.post(f"{head}.{payload}.{signature[:-4]}AAAA", PARTNER)).status_code == 401
        # Many unknown keys at once ask the issuer once, not each for itself.
        forged = [forge(url, audience, f"unknown-{n}") for n in range(20)]
        answers = await asyncio.gather(*(world.post(each, PARTNER) for each in forged))
        assert {answer.status_code for answer in answers} == {401}
        async with httpx.AsyncClient(trust_env=False) as http:
            assert (await http.get(f"{url}/counts")).json()["jwks"] <= 2
        assert await world.transactions() == 1


async def test_an_outside_operator_steps_up_by_what_its_issuer_says_of_the_login(place: Place) -> None:
    publisher = Publisher()
    key = ECKey.generate_key("P-256", {"kid": "k"}, private=True)
    publisher.keys = [key]
    async with publishing(publisher) as url:
        changes = {
            "kind": '"operator"', "ceiling": '["coalition:read", "settlement:close"]', "claims": "{}", "algorithms": '["ES256"]',
            "jwks_uri": f'"{url}/keys"', "strong": '["two"]',
        }  # fmt: skip
        file = trusting(place.folder, url, "https://gateway.example/graphql", **changes)
        async with open_world(place, issuers_file=file, jwks_hosts=(url.removeprefix("http://"),)) as world:
            olga = (await world.sql("select account_id from account where login = 'olga'"))[0][0]
            await world.sql("insert into outside_identity values ($1, 'olga@idp', 'operator', $2, now())", url, olga)
            now = int(world.clock.now().timestamp())

            async def close(**said: Any) -> httpx.Response:
                claims = {"iss": url, "aud": "https://gateway.example/graphql", "sub": "olga@idp", "exp": now + 300, "jti": str(said)}
                claims |= {"scope": "settlement:close coalition:read members:support", **said}
                token = jwt.encode({"alg": "ES256", "typ": "at+jwt", "kid": "k"}, claims, key, algorithms=["ES256"])
                return await world.post(token, 'mutation { closePeriod(input: {month: "2026-01"}) { errors { code } } }')

            for weak in ({}, {"acr": "one", "auth_time": now}, {"acr": "two"}, {"acr": "two", "auth_time": now - 3_600},
                         {"acr": "two", "auth_time": now + 60}, {"acr": "two", "auth_time": str(now)}):  # fmt: skip
                refused = await close(**weak)
                assert refused.status_code == 401, weak
                assert "insufficient_user_authentication" in refused.headers["www-authenticate"]
            assert (await world.sql("select count(*) from period where state <> 'open'"))[0][0] == 0
            for odd in ({"acr": ["two"], "auth_time": now}, {"acr": {"two": 1}, "auth_time": now}, {"scope": 7}, {"scope": [7]},
                        {"sub": "a\0b"}, {"sub": 7}, {"client_id": "x" * 3_000}, {"client_id": ["x"]}, {"jti": 7},
                        {"cnf": {"x5t#S256": "x"}}, {"cnf": "x"}, {"cnf": {"jkt": 7}}, {"cnf": {}}, {"act": {"sub": "x"}}):  # fmt: skip
                assert (await close(**{"acr": "two", "auth_time": now, **odd})).status_code in (401, 403), odd
            await world.sql("update account set roles = '{support}' where login = 'olga'")
            assert (await close(acr="two", auth_time=now, jti="support")).status_code == 403
            await world.sql("update account set roles = '{admin}' where login = 'olga'")
            assert (await world.sql("select count(*) from period where state <> 'open'"))[0][0] == 0
            closed = await close(acr="two", auth_time=now)
            assert closed.json()["data"]["closePeriod"]["errors"] == []
            await world.disable("olga")
            async with asyncio.timeout(2):  # whichever way she comes
                while (await close(acr="two", auth_time=now)).status_code != 401:
                    await asyncio.sleep(0.05)
            await world.sql("update account set disabled_at = null where login = 'olga'")
            world.clock.set(world.clock.now() + timedelta(seconds=31))
            assert (await close(acr="two", auth_time=now)).status_code == 200
            await world.sql("delete from outside_identity")
            world.clock.set(world.clock.now() + timedelta(seconds=31))
            assert (await close(acr="two", auth_time=now)).status_code == 401


async def test_the_built_in_server_can_be_switched_off(place: Place) -> None:
    async with open_world(place) as world:
        own = await world.token("grocer")
    door, port = free_door()
    app = await create_app(read_settings({}, data_dir=place.folder, port=port, authorization_server="off", jobs=(), issuer=world.url), place.dsn, world.clock, engine())
    server, task = await started(app, door)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:
        for path in ("/oauth/token", "/oauth/authorize", "/oauth/par", "/.well-known/oauth-authorization-server", "/oauth/jwks"):
            assert (await http.post(path)).status_code == 404
        asked = await http.post("/graphql", json={"query": PARTNER}, headers={"Authorization": f"Bearer {own}"})
        assert asked.status_code == 401
        assert (await http.get("/ledger/keys")).status_code == 200
    server.should_exit = True
    await task


@pytest.mark.parametrize(
    "changes",
    [{"algorithms": '["none"]'}, {"algorithms": "[]"}, {"algorithms": '["HS256"]'}, {"kind": '"king"'}, {"ceiling": '["settlement:close"]'}, {"colour": '"red"'},
     {"algorithms": '"RS256"'}, {"algorithms": "5"}, {"ceiling": '"partner"'}, {"claims": "[]"}, {"strong": '"two"'}, {"strong": '[""]'}, {"claims": '{ subjct = "email" }'}, {"issuer": '""'},
     {"jwks_uri": '"not an address"'}, {"jwks_uri": '"https://keys.example/j?a#b"'}, {"jwks_uri": '"https://keys.example:port/jwks"'}],
)
def test_a_file_of_issuers_that_cannot_be_used_is_refused_in_words(tmp_path: Path, changes: dict[str, str]) -> None:
    with pytest.raises(BadIssuers, match="issuer 1"):
        read_issuers(trusting(tmp_path, "https://idp.example", "x", **changes))


async def test_two_issuers_are_held_each_to_its_own_algorithms_type_audience_and_kind(place: Place) -> None:
    ec, rsa = ECKey.generate_key("P-256", {"kid": "ec"}), RSAKey.generate_key(2048, {"kid": "rsa"})
    publisher, other = Publisher(), Publisher()
    publisher.keys = other.keys = [ec, rsa]
    audience = "https://gateway.example/graphql"
    async with publishing(publisher) as url, publishing(other) as second:
        file = trusting(place.folder, url, audience, algorithms='["ES256"]', claims="{}", jwks_uri=f'"{url}/keys"')
        of_second = {
            "issuer": f'"{second}"', "audience": '"second"', "algorithms": '["PS256"]', "kind": '"partner"', "ceiling": '["partner"]',
            "jwks_uri": f'"{second}/keys"', "type": '"JWT"',
        }  # fmt: skip
        file.write_text(file.read_text() + "[[issuer]]\n" + "\n".join(f"{name} = {value}" for name, value in of_second.items()) + "\n")
        hosts = (url.removeprefix("http://"), second.removeprefix("http://"))
        async with open_world(place, issuers_file=file, jwks_hosts=hosts) as world:
            await link(world, url, "till", "grocer")
            await link(world, second, "till", "fuel")
            olga = (await world.sql("select account_id from account where login = 'olga'"))[0][0]
            await world.sql("insert into outside_identity values ($1, 'olga', 'operator', $2, now())", url, olga)
            now = int(world.clock.now().timestamp())

            async def seen(issuer: str = url, alg: str = "ES256", typ: str = "at+jwt", key: Any = ec, **said: Any) -> tuple[int, str | None]:
                claims = {"iss": issuer, "aud": audience, "sub": "till", "exp": now + 300, "scope": "partner", "jti": str(said), **said}
                token = jwt.encode({"alg": alg, "typ": typ, "kid": key.kid}, claims, key, algorithms=[alg])
                answer = (await world.post(token, PARTNER))
                partner = (answer.json().get("data") or {}).get("partner")
                return answer.status_code, partner and partner["code"]

            of_second_good: dict[str, Any] = {"issuer": second, "alg": "PS256", "typ": "JWT", "key": rsa, "aud": "second"}
            assert await seen() == (200, "grocer")
            assert await seen(typ="application/at+jwt") == (200, "grocer")
            assert await seen(**of_second_good) == (200, "fuel")
            for wrong in (
                {"alg": "RS256", "key": rsa}, {"alg": "PS256", "key": rsa}, {"typ": "JWT"}, {"typ": ""}, {"aud": "second"},
                {"nbf": now + 60}, {"exp": now}, {"exp": None}, {"sub": "olga"}, {"sub": None},
                {**of_second_good, "alg": "RS256"}, {**of_second_good, "typ": "at+jwt"}, {**of_second_good, "aud": audience},
                {**of_second_good, "sub": "olga"},
            ):  # fmt: skip
                assert (await seen(**wrong))[0] == 401, wrong
            assert await seen(nbf=now + 5) == (200, "grocer")


@pytest.mark.parametrize("named", [True, False])
async def test_a_token_that_names_no_key_is_good_under_any_of_its_issuers(place: Place, named: bool) -> None:
    first, second, foreign = (ECKey.generate_key("P-256", {"kid": kid} if named else None) for kid in "abc")
    publisher = Publisher()
    publisher.keys = [RSAKey.generate_key(2048), first, second]
    async with publishing(publisher) as url:
        file = trusting(place.folder, url, "here", algorithms='["ES256"]', claims="{}", jwks_uri=f'"{url}/keys"')
        async with open_world(place, issuers_file=file, jwks_hosts=(url.removeprefix("http://"),)) as world:
            await link(world, url, "till", "grocer")
            claims = {"iss": url, "aud": "here", "sub": "till", "exp": int(world.clock.now().timestamp()) + 300, "scope": "partner"}
            for key, status in ((first, 200), (second, 200), (foreign, 401)):
                token = jwt.encode({"alg": "ES256", "typ": "at+jwt"}, claims, ECKey.import_key(key.as_dict(private=True)))
                assert (await world.post(token, PARTNER)).status_code == status


@pytest.mark.parametrize("content", [b"\xff", b"issuer = 5", b'issuer = ["x"]', b"[[issuer]]\nissuer = \"x\"", b"[issuers]",
     2 * b"[[issuer]]\nissuer = \"x\"\naudience = \"a\"\nalgorithms = [\"ES256\"]\nkind = \"partner\"\nceiling = []\n"])
def test_a_file_of_issuers_that_is_none_is_refused_in_words(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "issuers.toml").write_bytes(content)
    with pytest.raises(BadIssuers, match=r"issuers\.toml"):
        read_issuers(tmp_path / "issuers.toml")
