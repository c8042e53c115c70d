"""Access tokens: ES256 JWTs of five minutes (RFC 9068)."""

import hashlib
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from gateway.access.caller import Caller
from gateway.access.revocations import PROCESS_AHEAD_SECONDS, TOKEN_SECONDS, Revocations, marks_of
from gateway.access.scopes import CEILING
from gateway.access.signing_keys import SigningKey, load_signing_keys
from gateway.access.vault import open_vault
from gateway.clock import Clock
from gateway.database import Database
from gateway.settings import Settings

# A retired key's tokens have all ended by then.
RETIRED_SECONDS = 2 * TOKEN_SECONDS
KNOWN_TOKENS = 10_000
# How the person logged in, as `acr` says it (RFC 9470, section 4).
TWO_FACTORS = "urn:loyalty-gateway:two-factors"
TOKEN_MAX_LENGTH = 8_000



@dataclass(frozen=True, slots=True)
class Known:
    """A token that was verified: its caller, and when it ends."""

    caller: Caller
    expires: int


class TokenRefused(Exception):
    """The bearer token is not accepted; the text says why."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a token is for: `kind` is partner, member or operator."""

    kind: str
    id: UUID


@dataclass(frozen=True, slots=True)
class Acting:
    """A partner that acts for a member, the consent under which it does, and the `jti` of the token that it exchanged."""

    partner_id: UUID
    consent_id: UUID
    origin: str | None = None


class Tokens:
    """Signs and verifies. `audience` is the GraphQL endpoint's URL."""

    def __init__(self, issuer: str, keys: list[SigningKey], clock: Clock) -> None:
        self.issuer, self.audience = issuer, f"{issuer}/graphql"
        self._clock = clock
        self._known: OrderedDict[bytes, Known] = OrderedDict()
        self.revocations = Revocations()
        self.use_keys(keys)

    def use_keys(self, keys: list[SigningKey]) -> None:
        """Sign with the active key from now on. Retired keys still show what they signed, tokens for RETIRED_SECONDS."""
        self._all = keys
        self._known.clear()  # what a key had signed is looked at again
        self._signing = next(each.key for each in keys if each.state == "active")
        published = self._published()
        self._keys = KeySet([each.key for each in published])
        retired = [each.retired_at for each in published if each.retired_at is not None]
        self._until = min(retired) + timedelta(seconds=RETIRED_SECONDS) if retired else None

    def _published(self) -> list[SigningKey]:
        after = self._clock.now() - timedelta(seconds=RETIRED_SECONDS)
        return [each for each in self._all if each.retired_at is None or each.retired_at > after]

    @property
    def key_states(self) -> dict[str, str]:
        """The ids of all keys with their states."""
        return {str(each.key.kid): each.state for each in self._all}

    def public_jwks(self) -> dict[str, object]:
        return {"keys": [each.key.as_dict(private=False) for each in self._published()]}

    def ledger_jwks(self) -> dict[str, object]:
        """Every key that has ever signed a block: what a proof of the ledger is checked with, years later too."""
        return {"keys": [each.key.as_dict(private=False) for each in self._all]}

    @property
    def key_id(self) -> str:
        """The id of the key that signs now."""
        return str(self._signing.kid)

    def sign(self, content: bytes) -> bytes:
        """An ES256 signature (RFC 7518, section 3.4): r and s, 32 bytes each."""
        private = self._signing.private_key
        assert private is not None
        r, s = decode_dss_signature(private.sign(content, ECDSA(SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    def is_signed(self, content: bytes, signature: bytes, key_id: str) -> bool:
        """Whether one of this gateway's keys made an ES256 signature over `content`."""
        key = next((each.key for each in self._all if each.key.kid == key_id), None)
        public = key.public_key if key is not None else None
        if not isinstance(public, EllipticCurvePublicKey) or len(signature) != 64:
            return False
        der = encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
        try:
            public.verify(der, content, ECDSA(SHA256()))
        except InvalidSignature:
            return False
        return True

    def issue(
        self, subject: Subject, client_id: str, scopes: frozenset[str], now: datetime, *,
        family_id: UUID | None = None, key_thumbprint: str | None = None, strong_since: datetime | None = None,
        acting: Acting | None = None, ends: int | None = None,
    ) -> str:  # fmt: skip
        """A token for `subject` that lives TOKEN_SECONDS, or until `ends` (seconds of the epoch) if that comes before; scopes
        above the ceiling of its kind are left out.

        It ends with its family (`sid`), and with `key_thumbprint` it is bound to a key (RFC 9449, section 6).
        `strong_since`: when the person behind it showed two factors (`acr`, `auth_time`: RFC 9470). `acting`: the partner
        that acts for the member (`act`: RFC 8693, section 4.1).
        """
        issued = int(now.timestamp())
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "aud": self.audience,
            "sub": str(subject.id),
            "kind": subject.kind,
            "client_id": client_id,
            "scope": " ".join(sorted(scopes & CEILING[subject.kind])),
            "iat": issued,
            "exp": min(issued + TOKEN_SECONDS, ends or issued + TOKEN_SECONDS),
            "jti": secrets.token_urlsafe(16),
        }
        if family_id is not None:
            claims["sid"] = str(family_id)
        if key_thumbprint is not None:
            claims["cnf"] = {"jkt": key_thumbprint}
        if strong_since is not None:
            claims |= {"acr": TWO_FACTORS, "auth_time": int(strong_since.timestamp())}
        if acting is not None:
            claims |= {"act": {"sub": str(acting.partner_id)}, "consent_id": str(acting.consent_id)}
            claims |= {"origin_jti": acting.origin} if acting.origin else {}
        header = {"alg": "ES256", "typ": "at+jwt", "kid": self._signing.kid}
        return jwt.encode(header, claims, self._signing, algorithms=["ES256"])

    def remembers(self, token: str) -> bool:
        """Whether the token was verified before."""
        return hashlib.sha256(token.encode()).digest() in self._known

    def verify(self, token: str) -> Caller:
        """The caller behind a bearer token. Raises TokenRefused.

        A token that was verified before is remembered by its SHA-256 until it expires.
        """
        now = int(self._clock.now().timestamp())
        digest = hashlib.sha256(token.encode()).digest()
        known = self._known.get(digest)
        if known is None:
            known = self._known[digest] = self._read(self.read_claims(token))
            if len(self._known) > KNOWN_TOKENS:
                self._known.popitem(last=False)
        if known.expires <= now:
            del self._known[digest]
            raise TokenRefused("The token has expired; ask for a new one.")
        if self.revocations.hit(known.caller.marks, known.caller.issued_at):
            raise TokenRefused("The token was revoked.")
        return known.caller

    def read_claims(self, token: str) -> dict[str, Any]:
        """The claims of a token of this gateway that has not expired, revoked or not, and which key signed it (`kid`).

        Raises TokenRefused.
        """
        if len(token) > TOKEN_MAX_LENGTH:
            raise TokenRefused("The token is too long.")
        if self._until is not None and self._clock.now() >= self._until:
            self.use_keys(self._all)  # a retired key has ended since
        try:
            decoded = jwt.decode(token, self._keys, algorithms=["ES256"])
        except (JoseError, ValueError, KeyError, TypeError, RecursionError):
            raise TokenRefused("The token is not one of this gateway's.") from None
        claims = decoded.claims
        if decoded.header.get("typ") != "at+jwt":
            raise TokenRefused("The token is not an access token.")
        if claims.get("iss") != self.issuer or claims.get("aud") != self.audience:
            told = f"The token is for {str(claims.get('aud'))[:200]}, and this is {self.audience} (GATEWAY_PORT, --port)."
            raise TokenRefused(told)
        issued, expires = claims.get("iat"), claims.get("exp")
        if not isinstance(expires, int) or expires <= int(self._clock.now().timestamp()):
            raise TokenRefused("The token has expired; ask for a new one.")
        if not isinstance(issued, int) or expires - issued > TOKEN_SECONDS:
            raise TokenRefused("The token lives longer than any of this gateway's.")
        if issued > self._clock.now().timestamp() + PROCESS_AHEAD_SECONDS:
            raise TokenRefused("The token is of a time to come.")
        if claims.get("kind") not in CEILING:
            raise TokenRefused("The token names no known kind of caller.")
        return {**claims, "kid": decoded.header.get("kid")}

    def _read(self, claims: dict[str, Any]) -> "Known":
        kind = claims["kind"]
        scopes = frozenset(str(claims.get("scope", "")).split()) & CEILING[kind]
        thumbprint = claims.get("cnf", {}).get("jkt")
        strong_since = claims.get("auth_time") if claims.get("acr") == TWO_FACTORS else None
        caller = Caller(
            kind,
            UUID(claims["sub"]),
            str(claims["client_id"]),
            scopes,
            key_thumbprint=thumbprint,
            token_id=str(claims["jti"]),
            strong_since=strong_since,
            acting_partner_id=UUID(claims["act"]["sub"]) if "act" in claims else None,
            issued_at=claims["iat"],
            marks=marks_of(claims),
        )
        return Known(caller, claims["exp"])


async def open_tokens(database: Database, settings: Settings, clock: Clock) -> Tokens:
    """What signs and checks as the gateway with these settings does. Raises CannotOpen, DatabaseAway."""
    return Tokens(settings.base_url, await load_signing_keys(database, await open_vault(database, settings), clock), clock)
