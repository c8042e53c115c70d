"""OAuth clients as Authlib wants to see them, and how they prove who they are."""

import hmac
import warnings
from dataclasses import dataclass
from datetime import datetime
from math import floor, isfinite
from typing import Any
from uuid import UUID

import orjson
from authlib.oauth2.rfc6749 import ClientMixin, OAuth2Request
from authlib.oauth2.rfc6749.util import scope_to_list
from joserfc import jwt
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import Key, KeySet
from joserfc.jws import JWSRegistry
from joserfc.util import urlsafe_b64decode

from gateway.access.registration import secret_hash
from gateway.access.scopes import DELEGABLE
from gateway.database import Row

SECRET_METHODS = ("client_secret_basic", "client_secret_post")
ASSERTION_METHOD = "private_key_jwt"
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ALGORITHMS = ["ES256", "PS256", "EdDSA", "Ed25519"]
HEADER_LENGTH_MAX = 4_096
ASSERTION_SECONDS_MAX = 300
# FAPI 2.0, section 5.3.2.1: clocks of clients may be ahead by so much.
CLIENT_AHEAD_SECONDS = 10
JTI_MAX = 200


# RFC 9864 renamed EdDSA to Ed25519; clients of both times are understood.
warnings.filterwarnings("ignore", message="EdDSA is deprecated", category=SecurityWarning)


class _Registry(JWSRegistry):
    max_header_length = HEADER_LENGTH_MAX  # a DPoP proof carries its key there


JOSE = _Registry(algorithms=ALGORITHMS)
"""What is accepted of clients' own signatures."""


def unverified(token: str, part: int) -> dict[str, Any]:
    """The header (0) or the claims (1) of a JWT, to know with which key to check it. Raises ValueError."""
    parts = token.split(".", 3)
    found = orjson.loads(urlsafe_b64decode(parts[part].encode())) if len(parts) > part else None
    if not isinstance(found, dict):
        raise ValueError("not an object")
    return found


def second_of(claim: object) -> int | None:
    """The whole second of a NumericDate, which may have a fraction (RFC 7519, section 2); None where it is none."""
    if type(claim) is float and isfinite(claim):
        return floor(claim)
    return claim if type(claim) is int else None


@dataclass(frozen=True)
class Client(ClientMixin):  # type: ignore[misc]
    """A registered client. One with keys authenticates with them alone; a partner's else with a secret; others not at all."""

    row: Row

    def get_client_id(self) -> str:
        return str(self.row["client_id"])

    @property
    def partner_id(self) -> UUID | None:
        """Whose client it is; None for the gateway's own, which keep no secret."""
        found: UUID | None = self.row["partner_id"]
        return found

    def get_default_redirect_uri(self) -> str | None:
        return None

    def get_allowed_scope(self, scope: str | None) -> str | None:
        """In its own name, and in that of members where it may ask them; the grants tell the two apart."""
        return _within(scope, {*self.row["scopes"], *(DELEGABLE if self.partner_id and self.row["redirect_uris"] else ())})

    def get_own_scope(self, scope: str | None) -> str | None:
        """In its own name alone."""
        return _within(scope, set(self.row["scopes"]))

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return redirect_uri in self.row["redirect_uris"]

    def check_client_secret(self, client_secret: str) -> bool:
        given = secret_hash(client_secret)
        matches = [hmac.compare_digest(stored, given) for stored in self.row["secrets"]]  # all of them, for one duration
        return any(matches)

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        if self.row["jwks"] is not None or self.row["jwks_uri"] is not None:
            return method == ASSERTION_METHOD
        return method in SECRET_METHODS if self.row["partner_id"] is not None else method == "none"

    def check_response_type(self, response_type: str) -> bool:
        return response_type == "code" and "authorization_code" in self.row["grants"]

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type in self.row["grants"]


def _within(scope: str | None, allowed: set[str]) -> str | None:
    """The scope that was asked for, if it is allowed; all that is where none was asked for. An empty one was cut to nothing."""
    if scope is None:
        return " ".join(sorted(allowed))
    return scope if set(scope_to_list(scope)) <= allowed else None


@dataclass(frozen=True, slots=True)
class Assertion:
    """What a client assertion (RFC 7523) says once its signature holds; its `jti` serves once until `expires`."""

    client_id: str
    jti: str
    expires: int


def claimed_client_id(assertion: str) -> str:
    """Whose assertion it claims to be, to know whose keys to check it with; empty where it says nothing."""
    try:
        found = unverified(assertion, 1).get("sub")
    except ValueError:
        return ""
    return found if isinstance(found, str) else ""


def key_id_of(assertion: str) -> str | None:
    """With which of its keys an assertion says it was signed."""
    try:
        found = unverified(assertion, 0).get("kid")
    except ValueError:
        return None
    return found if isinstance(found, str) else None


def read_assertion(assertion: str, keys: KeySet, issuer: str, now: datetime) -> Assertion | None:
    """Check an assertion as FAPI 2.0 asks: `iss` and `sub` the client, `aud` the issuer alone, short, with a `jti`."""
    at, key_id = int(now.timestamp()), key_id_of(assertion)
    named = [key for key in keys.keys if key.kid == key_id] if key_id is not None else []
    for key in named or keys.keys:
        claims = _claims(assertion, key)
        if claims is None:
            continue
        client_id, jti, expires = claims.get("sub"), claims.get("jti"), second_of(claims.get("exp"))
        begins = [second_of(claims[name]) for name in ("iat", "nbf") if name in claims]
        if not (isinstance(client_id, str) and isinstance(jti, str) and expires is not None):
            return None
        good = (
            claims.get("iss") == client_id
            and claims.get("aud") in (issuer, [issuer])
            and 0 < len(jti) <= JTI_MAX
            and jti.isprintable()
            and at < expires <= at + ASSERTION_SECONDS_MAX
            and all(moment is not None and moment <= at + CLIENT_AHEAD_SECONDS for moment in begins)
        )
        return Assertion(client_id, jti, expires) if good else None
    return None


def _claims(assertion: str, key: Key) -> dict[str, Any] | None:
    try:
        return jwt.decode(assertion, key, registry=JOSE).claims
    except (JoseError, ValueError, TypeError, KeyError, RecursionError):
        return None


def authenticate_by_assertion(query_client: Any, request: OAuth2Request) -> Client | None:
    """Authlib's client authentication method private_key_jwt; the server has read the assertion already."""
    assertion: Assertion | None = request.assertion
    if assertion is None:
        return None
    client: Client | None = query_client(assertion.client_id)
    return client
