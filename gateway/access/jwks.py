"""Keys of others, fetched from their address: once for all who wait, again when one is unknown, and kept while it is away."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from time import monotonic
from typing import Any

import httpx
import orjson
import structlog
from joserfc.errors import JoseError
from joserfc.jwk import Key, KeySet
from joserfc.util import urlsafe_b64decode

from gateway.addresses import split_address
from gateway.outbound import NotRead, client_of, read_whole

FETCH_SECONDS = 5
FRESH_SECONDS = 600
# An unknown key id fetches again only so long after the last try (the second: where none have been had yet), so that forged ones
# do not make us ask without end.
AGAIN_SECONDS, FIRST_AGAIN_SECONDS = 30, 5
STALE_SECONDS = 24 * 3_600
SIZE_MAX, CONNECTIONS_MAX = 256 * 1024, 100
KEYS_MAX = 30
RSA_EXPONENT = "AQAB"  # 65537
RSA_MIN_BITS, RSA_MAX_BITS, RSA_MAX_CHARS = 2_048, 4_096, 700
CURVES = {"EC": ("P-256", "P-384", "P-521"), "OKP": ("Ed25519",)}
# What RFC 7518 (section 6) and RFC 8037 say of a public key, and what only its owner knows.
PUBLIC = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})

log = structlog.get_logger(__name__)


def is_fit(jwk: Mapping[str, Any]) -> bool:
    """Whether a key is of a kind that signs here, and public: with its private part known to all it would sign for anybody, and
    what that part says can take hours to read. An RSA key has 2048 to 4096 bits and the exponent 65537: signatures of others take
    long to check, or are weak, and those of strangers are checked too."""
    if jwk.get("use", "sig") != "sig" or jwk.keys() & PRIVATE:
        return False
    if jwk.get("kty") != "RSA":
        return jwk.get("crv") in CURVES.get(str(jwk.get("kty")), ())
    modulus = str(jwk.get("n"))
    return jwk.get("e") == RSA_EXPONENT and len(modulus) <= RSA_MAX_CHARS and RSA_MIN_BITS <= _bits(modulus) <= RSA_MAX_BITS


def _bits(number: str) -> int:
    """How long a number in base64url is, whatever zeros stand before it; 0 for none."""
    try:
        return int.from_bytes(urlsafe_b64decode(number.encode())).bit_length()
    except ValueError:
        return 0


def read_keys(jwks: dict[str, Any]) -> KeySet:
    """A set of public keys (RFC 7517). Raises KeyError, TypeError, ValueError for what is no set.

    Keys that are not fit or cannot be read are left out (section 5), and all after KEYS_MAX. A key for Ed25519 may call its
    algorithm EdDSA, and sign as Ed25519, or the other way round (RFC 9864): its curve says enough.
    """
    if not isinstance(jwks["keys"], list):
        raise TypeError("The keys are a list.")
    keys: list[Key] = []
    for jwk in jwks["keys"]:
        if len(keys) == KEYS_MAX or not isinstance(jwk, dict) or not is_fit(jwk):
            continue
        said = {name: jwk[name] for name in ("kty", "kid", "use", "key_ops", *PUBLIC[jwk["kty"]]) if name in jwk}
        if "alg" in jwk and jwk["kty"] != "OKP":
            said["alg"] = jwk["alg"]
        try:
            keys += KeySet.import_key_set({"keys": [said]}).keys
        except (JoseError, ValueError, KeyError, TypeError):
            continue
    return KeySet(keys)


def is_of(url: str, hosts: Collection[str]) -> bool:
    """Whether an address is of one of these hosts, over HTTPS, or HTTP on the loopback. Raises ValueError for what is none."""
    parts = split_address(url)
    plain = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost", "::1")
    return (parts.scheme == "https" or plain) and parts.netloc.lower() in hosts and parts.username is None


class KeysAway(Exception):
    """The keys cannot be had, and none are kept that are young enough."""


class Fetcher:
    """Fetches JSON over HTTPS from hosts that are allowed, without following redirects; HTTP from the loopback alone."""

    def __init__(self, hosts: Sequence[str]) -> None:
        self._hosts = frozenset(hosts)
        self._http: httpx.AsyncClient | None = None

    async def json(self, url: str) -> dict[str, object]:
        """Raises KeysAway."""
        if not is_of(url, self._hosts):
            raise KeysAway(f"{url[:200]} is not among the hosts of GATEWAY_JWKS_HOSTS.")
        if self._http is None:  # reading the machine's certificates takes 30 ms, and few gateways fetch
            self._http = client_of(SIZE_MAX, httpx.Timeout(FETCH_SECONDS), CONNECTIONS_MAX)
        try:
            async with self._http.stream("GET", url, headers={"Accept": "application/json"}) as answer:
                if answer.status_code != 200:
                    raise KeysAway(f"{url} answered {answer.status_code}.")
                found = orjson.loads(await read_whole(answer, SIZE_MAX))
        except NotRead as error:
            raise KeysAway(f"{url}: {error}") from None
        except (httpx.HTTPError, httpx.InvalidURL, orjson.JSONDecodeError) as error:
            raise KeysAway(f"{url}: {type(error).__name__}") from None
        if not isinstance(found, dict):
            raise KeysAway(f"{url} answered with no object.")
        return found

    async def close(self) -> None:
        if self._http is not None:
            await self._http.aclose()


class RemoteKeys:
    """One address's keys. `discover`: the address is an issuer, whose metadata says where its keys are (OpenID Connect
    Discovery, RFC 8414)."""

    def __init__(self, fetcher: Fetcher, url: str, discover: bool = False) -> None:
        self._fetcher, self._url, self._discover = fetcher, url, discover
        self._keys: KeySet | None = None
        self._fetched = self._tried = float("-inf")
        self._one = asyncio.Lock()
        self._refreshing: asyncio.Task[None] | None = None

    async def keys(self, key_id: str | None = None) -> KeySet:
        """The keys; fetched again when they are old, or do not hold `key_id`. Nobody waits for a key that is known and was there
        not long ago. Raises KeysAway."""
        now = monotonic()
        fresh = FRESH_SECONDS if key_id is not None else AGAIN_SECONDS  # nobody knows whether it is among them
        known = self._keys is not None and any(key_id in (None, key.kid) for key in self._keys.keys)
        if not known or now - self._fetched > 2 * fresh:
            await self._fetch_once(now)
        elif now - self._fetched > fresh and (self._refreshing is None or self._refreshing.done()):
            self._refreshing = asyncio.create_task(self._fetch_once(now))
        if self._keys is None or monotonic() - self._fetched > STALE_SECONDS:
            raise KeysAway(f"The keys of {self._url} cannot be had now.")
        if not self._keys.keys:
            raise KeysAway(f"{self._url} publishes no key that can be used.")
        return self._keys

    async def _fetch_once(self, asked: float) -> None:
        async with self._one:  # whoever waited finds what the first one fetched
            pause = AGAIN_SECONDS if self._keys is not None else FIRST_AGAIN_SECONDS
            if self._tried < asked and monotonic() - self._tried > pause:
                await self._fetch()

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(FETCH_SECONDS):  # in all: a host that drips answers every read in time
                url = self._url
                if self._discover:
                    metadata = await self._fetcher.json(f"{self._url.rstrip('/')}/.well-known/openid-configuration")
                    if metadata.get("issuer") != self._url:
                        raise KeysAway(f"{self._url} calls itself {str(metadata.get('issuer'))[:200]}.")
                    url = str(metadata.get("jwks_uri"))
                # Whatever is published counts, also that there is no key any more: whose key was stolen may publish none.
                self._keys = read_keys(await self._fetcher.json(url))
            self._fetched = monotonic()
        except (KeysAway, JoseError, ValueError, KeyError, TypeError, TimeoutError) as error:
            log.warning("keys could not be fetched", url=self._url, error=str(error) or type(error).__name__)
        self._tried = monotonic()  # whoever asked while it was under way has had its answer; what was broken off was no try
