"""Outside issuers: npm's oidc-provider gives the tokens, and the gateway trusts it within its ceiling."""

import asyncio
import contextlib
import gzip
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from gateway.access import jwks, registration
from gateway.access.issuers import BadIssuers, read_issuers
from gateway.access.jwks import Fetcher, KeysAway, RemoteKeys
from gateway.clock import SystemClock
from gateway.database import Database
from gateway.main import create_app
from gateway.settings import read_settings
from tests.access.test_clients import CLIENTS, ROOT, clients
from tests.access.test_keys import proof
from tests.world import NOW, Place, World, engine, free_door, open_world, serving, started

__all__ = ["clients"]

PARTNER = "{ partner { code } }"


@contextlib.asynccontextmanager
async def provider(port: int, audience: str) -> AsyncIterator[None]:
    command = [sys.executable, str(ROOT / "console/node.py"), "node", "provider.mjs", str(port), audience]
    process = await asyncio.create_subprocess_exec(*command, cwd=CLIENTS, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, start_new_session=True)
    assert process.stdout
    assert b"ready" in await asyncio.wait_for(process.stdout.readuntil(b"ready"), 30)
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def trusting(folder: Path, url: str, audience: str, **changes: str) -> Path:
    said = {
        "issuer": f'"{url}"', "audience": f'"{audience}"', "algorithms": '["RS256"]', "kind": '"partner"',
        "ceiling": '["partner", "points:earn"]', "claims": '{ subject = "client_id" }', **changes,
    }  # fmt: skip
    file = folder / "issuers.toml"
    file.write_text("[[issuer]]\n" + "\n".join(f"{name} = {value}" for name, value in said.items()) + "\n")
    return file


async def link(world: World, issuer: str, subject: str, code: str) -> None:
    partner = (await world.sql("select partner_id from partner where code = $1", code))[0][0]
    await world.sql("insert into outside_identity values ($1, $2, 'partner', $3, now())", issuer, subject, partner)


async def token_of(url: str, client: str, key: ECKey | None = None, **changes: str) -> str:
    form = {"grant_type": "client_credentials", "scope": "partner points:earn members:lookup settlement:close", **changes}
    headers = {"DPoP": proof(key, f"{url}/token", iat=int(time.time()))} if key is not None else {}
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.post(f"{url}/token", data=form, auth=(client, f"{client}-secret"), headers=headers)
    token: str = answer.json()["access_token"]
    return token


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


def forge(issuer: str, audience: str, key_id: str) -> str:
    key = ECKey.generate_key("P-256", {"kid": key_id}, private=True)
    claims = {"iss": issuer, "aud": audience, "client_id": "till-1", "exp": 4_000_000_000, "scope": "partner"}
    return jwt.encode({"alg": "ES256", "typ": "at+jwt", "kid": key_id}, claims, key, algorithms=["ES256"])


class Publisher:
    """An address with keys, which can be away."""

    def __init__(self) -> None:
        self.keys: list[Any] = []
        self.away, self.asked = False, 0

    async def answer(self, request: Request) -> JSONResponse:
        self.asked += 1
        if self.away:
            return JSONResponse({}, 503)
        return JSONResponse({"keys": [key.as_dict(private=False) for key in self.keys]})


@contextlib.asynccontextmanager
async def publishing(publisher: Publisher) -> AsyncIterator[str]:
    async with serving(Starlette(routes=[Route("/keys", publisher.answer), Route("/moved", moved)])) as (url, *_):
        yield url


async def moved(request: Request) -> Any:
    return RedirectResponse("/keys")


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


async def test_keys_that_were_fetched_serve_while_their_address_is_away() -> None:
    publisher = Publisher()
    publisher.keys = [RSAKey.generate_key(2048, {"kid": "a"}, private=True)]
    async with publishing(publisher) as url:
        fetcher = Fetcher([url.removeprefix("http://")])
        keys = RemoteKeys(fetcher, f"{url}/keys")
        await asyncio.gather(*(keys.keys("a") for _ in range(10)))
        assert publisher.asked == 1
        publisher.away = True
        keys._fetched -= 3_600
        assert [key.kid for key in (await keys.keys("a")).keys] == ["a"]
        keys._fetched -= 48 * 3_600
        with pytest.raises(KeysAway):
            await keys.keys("a")
        await fetcher.close()


async def test_keys_that_are_none_or_drip_are_refused_and_hold_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "FETCH_SECONDS", 0.5)

    async def odd(request: Request) -> Response:
        if "drip" not in request.url.path:
            return JSONResponse({"keys": [None]})

        async def drops() -> AsyncIterator[bytes]:
            while True:
                yield b" "
                await asyncio.sleep(0.1)

        return StreamingResponse(drops())

    async with serving(Starlette(routes=[Route("/odd", odd), Route("/drip", odd)])) as (url, *_):
        fetcher = Fetcher([url.removeprefix("http://")])
        for path in ("odd", "drip"):
            async with asyncio.timeout(3):
                with pytest.raises(KeysAway):
                    await RemoteKeys(fetcher, f"{url}/{path}").keys("a")
        await fetcher.close()


async def test_only_allowed_hosts_are_asked_and_no_redirect_is_followed() -> None:
    publisher = Publisher()
    async with publishing(publisher) as url:
        host = url.removeprefix("http://")
        fetcher = Fetcher([host, "example.org"])
        for bad in ("http://example.org/keys", "ftp://example.org/", f"http://user@{host}/keys", "https://10.0.0.1/keys", "file:///etc/passwd"):
            assert not jwks.is_of(bad, [host, "example.org"])
            with pytest.raises(KeysAway):
                await fetcher.json(bad)
        with pytest.raises(KeysAway, match="307"):
            await fetcher.json(f"{url}/moved")
        assert publisher.asked == 0
        await fetcher.close()


async def test_a_partner_publishes_its_keys_and_changes_them_without_asking_anybody(place: Place) -> None:
    publisher = Publisher()
    async with publishing(publisher) as url, open_world(place, jwks_hosts=(url.removeprefix("http://"),)) as world:
        database = Database(world.dsn, 2)
        await database.open()
        async with database.transaction() as tx:
            fuel = (await world.sql("select partner_id from partner where code = 'fuel'"))[0][0]
            client = await registration.create_published_client(tx, fuel, "fuel", f"{url}/keys", False, NOW)
        await database.close()
        for number in (1, 2):
            key = ECKey.generate_key("P-256", {"kid": f"k{number}", "alg": "ES256", "use": "sig"}, private=True)
            publisher.keys = [key]
            now = int(world.clock.now().timestamp())
            claims = {"iss": client, "sub": client, "aud": world.url, "iat": now, "exp": now + 60, "jti": f"j{number}"}
            form = {
                "grant_type": "client_credentials", "client_assertion": jwt.encode({"alg": "ES256", "kid": key.kid}, claims, key, algorithms=["ES256"]),
                "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            }  # fmt: skip
            answer = await world.http.post("/oauth/token", data=form)
            if number == 1:
                assert answer.status_code == 200, answer.text
            else:
                # The new key is looked for at most every half minute.
                assert answer.status_code in (200, 401)
        assert (await world.http.post("/oauth/token", data={"grant_type": "client_credentials"}, auth=(client, "x"))).status_code == 401


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
     {"algorithms": '"RS256"'}, {"algorithms": "5"}, {"ceiling": '"partner"'}, {"claims": "[]"}, {"strong": '"two"'}, {"strong": '[""]'}, {"claims": '{ subjct = "email" }'}, {"issuer": '""'}],
)
def test_a_file_of_issuers_that_cannot_be_used_is_refused_in_words(tmp_path: Path, changes: dict[str, str]) -> None:
    with pytest.raises(BadIssuers, match="issuer 1"):
        read_issuers(trusting(tmp_path, "https://idp.example", "x", **changes))


async def test_nobody_waits_for_an_issuer_that_hangs_while_its_keys_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "AGAIN_SECONDS", 0)
    key = ECKey.generate_key("P-256", private=True, auto_kid=True)
    body = orjson.dumps({"keys": [key.as_dict(private=False)]})
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        if len(asked) == 1:
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            await writer.drain()
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    host = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    fetcher = Fetcher([host])
    remote = RemoteKeys(fetcher, f"http://{host}/keys")
    first = await remote.keys(key.kid)
    remote._fetched -= jwks.FRESH_SECONDS + 1  # as if that time had passed
    async with asyncio.timeout(2):  # a fetch that hangs is given up after jwks.FETCH_SECONDS, which is more
        assert await remote.keys(key.kid) is first
        while len(asked) < 2:
            await asyncio.sleep(0.01)
        assert await remote.keys(key.kid) is first
    await fetcher.close()
    server.close()


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


async def test_what_an_address_of_keys_sends_besides_is_not_taken() -> None:
    keys = {"keys": [ECKey.generate_key("P-256", {"kid": "a"}).as_dict(private=False)]}
    written = orjson.dumps(keys)

    async def answer(request: Request) -> Response:
        path = request.url.path
        if path.startswith("/other"):
            return JSONResponse({"issuer": "https://elsewhere.example", "jwks_uri": f"{request.base_url}good"})
        if path == "/large":
            return Response(written[:-1] + b" " * (256 << 10) + b"}", media_type="application/json")
        if path == "/packed":
            return Response(gzip.compress(written), headers={"Content-Encoding": "gzip"})
        return Response(written)

    async with serving(Starlette(routes=[Route("/{path:path}", answer)])) as (url, *_):
        fetcher = Fetcher([url.removeprefix("http://")])
        assert [key.kid for key in (await RemoteKeys(fetcher, f"{url}/good").keys("a")).keys] == ["a"]
        for path in ("large", "packed"):
            with pytest.raises(KeysAway):
                await RemoteKeys(fetcher, f"{url}/{path}").keys("a")
        with pytest.raises(KeysAway):
            await RemoteKeys(fetcher, f"{url}/other", discover=True).keys("a")
        await fetcher.close()


@pytest.mark.parametrize("content", [b"\xff", b"issuer = 5", b'issuer = ["x"]', b"[[issuer]]\nissuer = \"x\"", b"[issuers]",
     2 * b"[[issuer]]\nissuer = \"x\"\naudience = \"a\"\nalgorithms = [\"ES256\"]\nkind = \"partner\"\nceiling = []\n"])
def test_a_file_of_issuers_that_is_none_is_refused_in_words(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "issuers.toml").write_bytes(content)
    with pytest.raises(BadIssuers, match=r"issuers\.toml"):
        read_issuers(tmp_path / "issuers.toml")
