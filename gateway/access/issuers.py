"""Outside issuers: identity providers of others whose access tokens are trusted, each within a ceiling.

Who somebody is there is the pair of issuer and subject, never an e-mail address; `gateway issuer link` says who that is here.
"""

import hashlib
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import msgspec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import Key
from joserfc.jws import JWSRegistry

from gateway.access.caller import Caller, Outside
from gateway.access.clients import CLIENT_AHEAD_SECONDS, second_of, unverified
from gateway.access.jwks import Fetcher, KeysAway, RemoteKeys
from gateway.access.revocations import Revocations
from gateway.access.scopes import CATALOGUE, CEILING, of_roles
from gateway.access.tokens import TOKEN_MAX_LENGTH, TokenRefused
from gateway.addresses import is_base
from gateway.clock import Clock
from gateway.database import Database
from gateway.settings import BadSetting
from gateway.statements import load_queries

sql = load_queries(__file__, "issuers.sql")

KNOWN_MAX = 10_000
RECHECK_SECONDS = 30
AGAIN_SECONDS = 0.5
NAME_MAX = 500
ALGORITHMS_ALLOWED = frozenset({"ES256", "ES384", "EdDSA", "Ed25519", "PS256", "RS256"})


class BadIssuers(BadSetting):
    """The file of issuers says something that cannot be used; its text names it."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """A trusted issuer. `kind` of callers it brings, the scopes it may give at most (`ceiling`), and which claims say what.

    `strong`: the values of its `acr` claim that stand for two factors; such a token with `auth_time` steps up (RFC 9470).
    """

    issuer: str
    audience: str
    algorithms: tuple[str, ...]
    kind: str
    ceiling: frozenset[str]
    jwks_uri: str | None = None
    type: str | None = "at+jwt"
    claims: dict[str, str] = field(default_factory=dict)
    strong: frozenset[str] = frozenset()


def read_issuers(path: Path) -> list[Issuer]:
    """The issuers of a TOML file, one `[[issuer]]` each. Raises BadIssuers."""
    try:
        found = msgspec.toml.decode(path.read_bytes(), type=_File).issuer
    except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
        raise BadIssuers(f"{path}: {_numbered(str(error))}") from None
    for number, said in enumerate(found, start=1):
        where = f"{path}, issuer {number}"
        if not said.issuer or not said.audience or "" in said.strong or said.claims.keys() - {"subject", "client", "scope"}:
            raise BadIssuers(f"{where}: issuer, audience, strong are not empty; claims name subject, client and scope alone")
        if said.jwks_uri is not None and ("#" in said.jwks_uri or not is_base(said.jwks_uri.partition("?")[0])):
            raise BadIssuers(f"{where}: jwks_uri is no address of keys, such as https://host/path")
        if not said.algorithms:
            raise BadIssuers(f"{where}: algorithms is empty; name those that the issuer signs with")
        if bad := said.algorithms - ALGORITHMS_ALLOWED:
            raise BadIssuers(f"{where}: algorithms {', '.join(sorted(bad))}; there are {', '.join(sorted(ALGORITHMS_ALLOWED))}")
        if said.kind not in CEILING or said.ceiling - CEILING[said.kind]:
            raise BadIssuers(f"{where}: kind is partner, member or operator, and the ceiling holds scopes of that kind alone")
    if len({said.issuer for said in found}) < len(found):
        raise BadIssuers(f"{path}: an issuer is there twice")
    return [Issuer(**{**msgspec.structs.asdict(said), "algorithms": tuple(sorted(said.algorithms))}) for said in found]


class _Issuer(msgspec.Struct, forbid_unknown_fields=True):
    issuer: str
    audience: str
    algorithms: frozenset[str]
    kind: str
    ceiling: frozenset[str]
    jwks_uri: str | None = None
    type: str | None = "at+jwt"
    claims: dict[str, str] = {}
    strong: frozenset[str] = frozenset()


class _File(msgspec.Struct, forbid_unknown_fields=True):
    issuer: list[_Issuer] = []


def _numbered(told: str) -> str:
    """As msgspec tells where something stands, counted from 1 and in words: `$.issuer[0].kind`."""
    return re.sub(r"`\$\.issuer\[(\d+)\]\.?(\w*)[^`]*`", lambda at: f"issuer {int(at[1]) + 1} {at[2]}".rstrip(), told)


class _Known(NamedTuple):
    """A token that was verified: its caller, when it ends, and when it was looked up who it names: by the gateway's clock, and by
    the process's own seconds."""

    caller: Caller
    expires: int
    looked: int
    second: float


class OutsideIssuers:
    """Verifies tokens of the trusted issuers."""

    def __init__(
        self, issuers: list[Issuer], fetcher: Fetcher, database: Database, clock: Clock, revocations: Revocations
    ) -> None:
        self._issuers = {each.issuer: each for each in issuers}
        self._keys = {
            each.issuer: RemoteKeys(fetcher, each.jwks_uri or each.issuer, discover=each.jwks_uri is None) for each in issuers
        }
        self._database, self._clock, self._revocations = database, clock, revocations
        self._known: OrderedDict[bytes, _Known] = OrderedDict()

    def issuer_of(self, token: str) -> Issuer | None:
        """Whose token it says it is, if that is one of them; nothing is checked yet."""
        if not self._issuers or len(token) > TOKEN_MAX_LENGTH:
            return None
        try:
            said = unverified(token, 1).get("iss")
            return self._issuers.get(said) if isinstance(said, str) else None
        except ValueError:
            return None

    async def verify(self, token: str) -> Caller:
        """The caller behind a token of one of them, read anew every RECHECK_SECONDS, and as soon as what its subject began is
        revoked: whoever was unlinked or disabled is nobody then. Who was looked up while that was being written found what was
        before it, so what was revoked shortly before counts too.

        Raises TokenRefused, DatabaseAway.
        """
        digest, now = hashlib.sha256(token.encode()).digest(), int(self._clock.now().timestamp())
        known = self._known.get(digest)
        if known is None or self._is_old(known, now):
            issuer = self.issuer_of(token)
            if issuer is None:
                raise TokenRefused("The token is of no trusted issuer.")
            self._known.pop(digest, None)
            known = self._known[digest] = await self._read(issuer, token, now)
            if len(self._known) > KNOWN_MAX:
                self._known.popitem(last=False)
        if known.expires <= now:
            raise TokenRefused("The token has expired; ask for a new one.")
        return known.caller

    def _is_old(self, known: _Known, now: int) -> bool:
        """Whether it is to be looked up again who a token names; and not again at every request."""
        if now - known.looked >= RECHECK_SECONDS:
            return True
        since = known.looked - RECHECK_SECONDS
        return monotonic() - known.second >= AGAIN_SECONDS and self._revocations.hit(known.caller.marks, since)

    async def _read(self, issuer: Issuer, token: str, now: int) -> _Known:
        claims = await self._claims(issuer, token)
        audience, expires, begins = claims.get("aud"), second_of(claims.get("exp")), second_of(claims.get("nbf", 0))
        if issuer.audience not in (audience if isinstance(audience, list) else [audience]):
            raise TokenRefused("The token is for somebody else.")
        if expires is None or expires <= now or begins is None or begins > now + CLIENT_AHEAD_SECONDS:
            raise TokenRefused("The token has expired or does not serve yet.")
        subject = _name(claims, issuer.claims.get("subject", "sub"))
        client = _name(claims, issuer.claims.get("client", "client_id")) or _name(claims, "azp")
        if subject is None:
            raise TokenRefused("The token names nobody.")
        second = monotonic()
        async with self._database.reading() as tx:
            row = await tx.one(sql.outside_identity, issuer=issuer.issuer, subject=subject, kind=issuer.kind)
        if row is None:
            raise TokenRefused("Nobody here is known under the token's subject; `gateway issuer link` makes it known.")
        scopes = _scopes(claims.get(issuer.claims.get("scope", "scope"))) & issuer.ceiling & frozenset(CATALOGUE)
        if issuer.kind == "operator":
            scopes &= of_roles(row["roles"] or ())
        acr, showed = claims.get("acr"), second_of(claims.get("auth_time"))
        is_strong = isinstance(acr, str) and acr in issuer.strong and showed is not None and showed <= now + CLIENT_AHEAD_SECONDS
        caller = Caller(
            issuer.kind,
            row["subject_id"],
            f"{issuer.issuer} {client}" if client else issuer.issuer,
            scopes,
            key_thumbprint=_bound_to(claims),
            token_id=_name(claims, "jti"),
            strong_since=showed if is_strong else None,
            outside=Outside(issuer.issuer, subject),
            issued_at=now,
            marks=(f"sub:{row['subject_id']}",),
        )
        return _Known(caller, expires, now, second)

    async def _claims(self, issuer: Issuer, token: str) -> dict[str, Any]:
        try:
            key_id = unverified(token, 0).get("kid")
            keys = await self._keys[issuer.issuer].keys(key_id)
        except KeysAway:  # its words say where they lie
            raise TokenRefused("The keys of the token's issuer cannot be had now.") from None
        except (ValueError, TypeError):
            raise TokenRefused("The token is not one of its issuer's.") from None
        # Keys of several types may have one id (RFC 7517, section 4.5).
        named = [key for key in keys.keys if key_id is None or key.kid == key_id]
        decoded = _decoded(token, named, issuer.algorithms)
        if issuer.type is not None and str(decoded.header.get("typ", "")).removeprefix("application/") != issuer.type:
            raise TokenRefused("The token is not an access token.")
        if decoded.claims.get("iss") != issuer.issuer or "act" in decoded.claims:
            raise TokenRefused("The token is of another issuer, or of somebody who acts for another.")
        return decoded.claims


def _decoded(token: str, keys: Iterable[Key], algorithms: Iterable[str]) -> jwt.Token:
    """A token whose signature is good under one of these. Raises TokenRefused."""
    registry = JWSRegistry(algorithms=list(algorithms))
    for each in keys:
        with suppress(JoseError, ValueError, KeyError, TypeError, RecursionError):
            return jwt.decode(token, each, registry=registry)
    raise TokenRefused("The token is not one of its issuer's.")


def _name(claims: Mapping[str, Any], claim: str) -> str | None:
    """A claim that names something; None where it is not there. Raises TokenRefused."""
    said = claims.get(claim)
    if said is not None and not (isinstance(said, str) and 0 < len(said) <= NAME_MAX and said.isprintable()):
        raise TokenRefused(f"The token's {claim} is no name.")
    return said


def _bound_to(claims: Mapping[str, Any]) -> str | None:
    """The thumbprint of the key that a token is bound to (RFC 9449, section 6.1), if it is. Raises TokenRefused."""
    if "cnf" not in claims:
        return None
    bound = claims["cnf"]
    if not isinstance(bound, dict) or bound.keys() != {"jkt"} or not isinstance(bound["jkt"], str):
        raise TokenRefused("The token is bound in a way that is not known here; DPoP is.")
    return bound["jkt"]


def _scopes(said: object) -> frozenset[str]:
    """Scopes as one text or as a list. Raises TokenRefused."""
    listed = (said or "").split() if isinstance(said, str | None) else said
    if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
        raise TokenRefused("The token's scope is neither a text nor a list of texts.")
    return frozenset(listed)
