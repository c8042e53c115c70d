"""Access tokens: ES256 JWTs of five minutes (RFC 9068), signed with keys that live in the database."""

import hashlib
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet

from gateway.access.caller import Caller
from gateway.access.scopes import CEILING
from gateway.clock import Clock
from gateway.database import Database, load_queries

TOKEN_SECONDS = 300
KNOWN_TOKENS = 10_000
TOKEN_MAX_LENGTH = 8_000

sql = load_queries(__file__)


class TokenRefused(Exception):
    """The bearer token is not accepted; the text says why."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a token is for: `kind` is partner, member or operator."""

    kind: str
    id: UUID


async def load_signing_keys(database: Database, clock: Clock) -> list[ECKey]:
    """The signing keys, newest first; the first one is made where there is none."""
    async with database.transaction() as tx:
        await tx.run(sql.lock_signing_keys)
        rows = await tx.all(sql.signing_keys)
        if rows:
            return [ECKey.import_key(orjson.loads(row["private_jwk"])) for row in rows]
        key = ECKey.generate_key("P-256", {"use": "sig", "alg": "ES256"}, private=True, auto_kid=True)
        await tx.run(
            sql.store_signing_key,
            key_id=key.kid,
            private_jwk=orjson.dumps(key.as_dict(private=True)).decode(),
            created_at=clock.now(),
        )
        return [key]


class Tokens:
    """Signs and verifies. `audience` is the GraphQL endpoint's URL."""

    def __init__(self, issuer: str, keys: list[ECKey], clock: Clock) -> None:
        self.issuer, self.audience = issuer, f"{issuer}/graphql"
        self._keys = KeySet([*keys])
        self._signing = keys[0]
        self._clock = clock
        self._known: OrderedDict[bytes, tuple[Caller, int]] = OrderedDict()

    def public_jwks(self) -> dict[str, object]:
        return {"keys": [key.as_dict(private=False) for key in self._keys.keys]}

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
        key = next((key for key in self._keys.keys if key.kid == key_id), None)
        public = key.public_key if key is not None else None
        if not isinstance(public, EllipticCurvePublicKey) or len(signature) != 64:
            return False
        der = encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
        try:
            public.verify(der, content, ECDSA(SHA256()))
        except InvalidSignature:
            return False
        return True

    def issue(self, subject: Subject, client_id: str, scopes: frozenset[str], now: datetime) -> str:
        """A token for `subject` that lives TOKEN_SECONDS; scopes above the ceiling of its kind are left out."""
        issued = int(now.timestamp())
        claims = {
            "iss": self.issuer,
            "aud": self.audience,
            "sub": str(subject.id),
            "kind": subject.kind,
            "client_id": client_id,
            "scope": " ".join(sorted(scopes & CEILING[subject.kind])),
            "iat": issued,
            "exp": issued + TOKEN_SECONDS,
            "jti": secrets.token_urlsafe(16),
        }
        header = {"alg": "ES256", "typ": "at+jwt", "kid": self._signing.kid}
        return jwt.encode(header, claims, self._signing, algorithms=["ES256"])

    def verify(self, token: str) -> Caller:
        """The caller behind a bearer token. Raises TokenRefused.

        A token that was verified before is remembered by its SHA-256 until it expires.
        """
        now = int(self._clock.now().timestamp())
        digest = hashlib.sha256(token.encode()).digest()
        known = self._known.get(digest)
        if known is not None:
            caller, expires = known
            if expires <= now:
                del self._known[digest]
                raise TokenRefused("The token has expired; ask for a new one.")
            return caller
        caller, expires = self._verify_new(token, now)
        self._known[digest] = (caller, expires)
        if len(self._known) > KNOWN_TOKENS:
            self._known.popitem(last=False)
        return caller

    def _verify_new(self, token: str, now: int) -> tuple[Caller, int]:
        if len(token) > TOKEN_MAX_LENGTH:
            raise TokenRefused("The token is too long.")
        try:
            decoded = jwt.decode(token, self._keys, algorithms=["ES256"])
        except (JoseError, ValueError, KeyError, TypeError):
            raise TokenRefused("The token is not one of this gateway's.") from None
        claims = decoded.claims
        if decoded.header.get("typ") != "at+jwt":
            raise TokenRefused("The token is not an access token.")
        if claims.get("iss") != self.issuer or claims.get("aud") != self.audience:
            raise TokenRefused("The token is for another gateway.")
        expires = claims.get("exp")
        if not isinstance(expires, int) or expires <= now:
            raise TokenRefused("The token has expired; ask for a new one.")
        kind = claims.get("kind")
        if kind not in CEILING:
            raise TokenRefused("The token names no known kind of caller.")
        scopes = frozenset(str(claims.get("scope", "")).split()) & CEILING[kind]
        return Caller(kind, UUID(claims["sub"]), str(claims["client_id"]), scopes), expires
