"""Keys that others publish: fetched from allowed hosts, kept while these are away, and taken only if they are any."""

import asyncio
import base64
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from gateway.access import jwks, registration
from gateway.access.jwks import Fetcher, KeysAway, RemoteKeys
from gateway.addresses import split_address
from gateway.database import Database
from tests.access.issuing import Publisher, publishing
from tests.founding import NOW
from tests.world import Place, open_world, serving


@asynccontextmanager
async def fetching(publisher: Publisher) -> AsyncIterator[RemoteKeys]:
    """A publisher's keys, as the gateway has them."""
    async with publishing(publisher) as url:
        fetcher = Fetcher([url.removeprefix("http://")])
        try:
            yield RemoteKeys(fetcher, f"{url}/keys")
        finally:
            await fetcher.close()


async def test_keys_that_were_fetched_serve_while_their_address_is_away() -> None:
    publisher = Publisher()
    publisher.keys = [RSAKey.generate_key(2048, {"kid": "a"}, private=True)]
    async with fetching(publisher) as keys:
        await asyncio.gather(*(keys.keys("a") for _ in range(10)))
        assert publisher.asked == 1
        publisher.away = True
        keys._fetched -= 3_600
        assert [key.kid for key in (await keys.keys("a")).keys] == ["a"]
        keys._fetched -= 48 * 3_600
        with pytest.raises(KeysAway):
            await keys.keys("a")


@pytest.mark.parametrize("fit", [True, False])
async def test_who_publishes_no_key_any_more_has_none(fit: bool) -> None:
    publisher = Publisher()
    publisher.keys = [RSAKey.generate_key(2048, {"kid": "a"}, private=True)]
    async with fetching(publisher) as keys:
        assert [key.kid for key in (await keys.keys("a")).keys] == ["a"]
        stolen, publisher.keys = publisher.keys, [] if fit else [RSAKey.generate_key(1024, {"kid": "b"}, private=True)]
        keys._fetched, keys._tried = keys._fetched - 3_600, keys._tried - 3_600
        with pytest.raises(KeysAway, match="publishes no key that can be used"):
            await keys.keys("a")
        publisher.keys = stolen
        keys._tried -= 3_600
        assert [key.kid for key in (await keys.keys()).keys] == ["a"]


async def test_keys_that_nobody_names_are_fetched_again_every_minute() -> None:
    publisher = Publisher()
    publisher.keys = [RSAKey.generate_key(2048, {"kid": "a"}, private=True)]
    async with fetching(publisher) as keys:
        for key_id in (None, "a", None):
            assert [key.kid for key in (await keys.keys(key_id)).keys] == ["a"]
        publisher.keys = [RSAKey.generate_key(2048, {"kid": "b"}, private=True)]
        keys._fetched, keys._tried = keys._fetched - 61, keys._tried - 61
        assert [key.kid for key in (await keys.keys("a")).keys] == ["a"]
        assert [key.kid for key in (await keys.keys()).keys] == ["b"]
        assert publisher.asked == 2


def test_a_published_key_with_a_private_part_is_none_and_its_private_part_is_not_read() -> None:
    prime = 2**2048 - 1942289  # to look for the factors of this "modulus", as libraries do, takes half a minute or hours
    slow = {"kty": "RSA", "kid": "slow", "n": number(prime), "e": "AQAB", "d": number(pow(65537, -1, prime - 1))}
    good = ECKey.generate_key("P-256", {"kid": "good"})
    known = ECKey.generate_key("P-256", {"kid": "known to all"}).as_dict(private=True)
    keys = jwks.read_keys({"keys": [slow, known, good.as_dict(private=False)]}).keys
    assert [(key.kid, key.is_private) for key in keys] == [("good", False)]


def number(value: int) -> str:
    return base64.urlsafe_b64encode(value.to_bytes(256)).rstrip(b"=").decode()


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


@pytest.mark.parametrize("named", ["https://a" + "\u0315" * 20 + "/", "https://a/" + "b" * 2_000, "https://a /b", "https://a/\n"])
async def test_an_address_that_is_long_or_not_plain_is_no_address_and_is_not_looked_at_further(named: str) -> None:
    """To split one that is 100,000 such characters long takes four seconds."""
    publisher = Publisher()
    async with publishing(publisher) as url:

        async def describe(request: Request) -> Response:
            return JSONResponse({"issuer": here[0], "jwks_uri": named})

        async with serving(Starlette(routes=[Route("/.well-known/openid-configuration", describe)])) as (issuer, *_):
            here = [issuer]
            fetcher = Fetcher([issuer.removeprefix("http://"), url.removeprefix("http://"), "a"])
            with pytest.raises(KeysAway):
                await RemoteKeys(fetcher, issuer, discover=True).keys("a")
            await fetcher.close()
    with pytest.raises(ValueError, match="plain ASCII"):
        split_address(named)
