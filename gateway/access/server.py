"""The authorization server: Authlib's framework as pure computation over rows that were loaded for it.

Authlib's server side is synchronous, so a request's rows (client, code, refresh token) are loaded onto a Desk first, Authlib
decides on them, and what it decided is written after. See docs/decisions/0003-authlib.md for the edges that are closed here.
"""

import base64
import copy
import re
import secrets
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from authlib.oauth2.rfc6749 import AuthorizationServer, OAuth2Request
from authlib.oauth2.rfc6749.errors import InvalidRequestError, OAuth2Error
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload
from authlib.oauth2.rfc6749.util import scope_to_list

from gateway.access.accounts import Account
from gateway.access.clients import ASSERTION_METHOD, Assertion, Client, authenticate_by_assertion
from gateway.access.consents import Consent
from gateway.access.dpop import Proof
from gateway.access.grants import S256, ClientGrant, CodeGrant, ExchangeGrant, Introspection, RefreshGrant, Revocation
from gateway.access.registration import secret_hash
from gateway.access.revocations import TOKEN_SECONDS
from gateway.access.scopes import CATALOGUE, CEILING, of_roles
from gateway.access.tokens import Acting, Subject, Tokens
from gateway.database import Row
from gateway.forms import decoded

ENDPOINT_URI = "https://authorization-server.invalid/"  # what Authlib checks is configured, not read off a request
REFRESH_LIFETIME = timedelta(days=30)
REFRESH_PREFIX = "gwr_"
BASIC_MAX_CHARS = 1_024


@dataclass
class Desk:
    """One request at the server: what was loaded for it, then what Authlib decided."""

    now: datetime
    client: Row | None
    code: Row | None = None
    refresh: Row | None = None
    claims: dict[str, Any] | None = None
    assertion: Assertion | None = None
    proof: Proof | None = None
    subject: dict[str, Any] | None = None
    consent: Consent | None = None
    new_code: dict[str, Any] | None = None
    new_family: dict[str, Any] | None = None
    new_refresh: dict[str, Any] | None = None
    spent_code: bool = False
    spent_refresh: bool = False
    ended_family: UUID | None = None
    revoked: dict[str, Any] | None = None
    answer: tuple[int, dict[str, Any], list[tuple[str, str]]] = field(default=(500, {}, []))


class OAuthServer(AuthorizationServer):  # type: ignore[misc]
    """Authlib's server over preloaded rows; `at(desk)` gives the one that serves a single request."""

    desk: Desk

    def __init__(self, tokens: Tokens) -> None:
        super().__init__(scopes_supported=list(CATALOGUE))
        self.tokens = tokens
        self.register_grant(ClientGrant)
        self.register_grant(CodeGrant, [S256(required=True)])
        self.register_grant(RefreshGrant)
        self.register_grant(ExchangeGrant)
        self.register_token_generator("default", self._token)

    def at(self, desk: Desk) -> "OAuthServer":
        server = copy.copy(self)
        server.desk = desk
        server._client_auth = None
        server._token_generators = {"default": server._token}
        server._endpoints = {}
        server.register_endpoint(Revocation(server))
        server.register_endpoint(Introspection(server))
        server.register_client_auth_method(ASSERTION_METHOD, authenticate_by_assertion)
        return server

    def query_client(self, client_id: str) -> Client | None:
        row = self.desk.client
        return Client(row) if row is not None and row["client_id"] == client_id else None

    def save_token(self, token: dict[str, Any], request: OAuth2Request) -> None:
        """Nothing to keep here: an access token is a JWT, and what else there is lies on the desk."""

    def send_signal(self, name: str, *args: Any, **kwargs: Any) -> None:
        """No framework listens."""

    def create_oauth2_request(self, request: OAuth2Request) -> OAuth2Request:
        return request

    def handle_response(self, status: int, body: Any, headers: list[tuple[str, str]]) -> None:
        self.desk.answer = (status, dict(body) if body else {}, headers)

    def _token(
        self,
        grant_type: str,
        client: Client,
        user: Account | None,
        scope: str | None,
        include_refresh_token: bool = False,
        **_: Any,
    ) -> dict[str, Any]:
        subject = _subject(client, user)
        granted = self._granted(client, user, scope)
        bound = self.desk.proof.thumbprint if self.desk.proof else None
        before = self.desk.refresh or self.desk.code
        family_id: UUID | None = before["family_id"] if before is not None else None
        token = {
            "access_token": self.tokens.issue(
                subject,
                client.get_client_id(),
                granted,
                self.desk.now,
                family_id=family_id,
                key_thumbprint=bound,
                strong_since=user.login.at if user is not None and user.login is not None and user.login.strong else None,
                acting=self._acting(client) if user is not None else None,
            ),
            "token_type": "DPoP" if bound else "Bearer",
            "expires_in": TOKEN_SECONDS,
            "scope": " ".join(sorted(granted)),
        }
        if family_id is not None and self.desk.code is not None and user is not None:
            self.desk.new_family = {
                "family_id": family_id,
                "client_id": client.get_client_id(),
                "account_id": user.account_id,
                "scope": token["scope"],
                "consent_id": self.desk.consent.id if self.desk.consent is not None else None,
                "key_thumbprint": bound,
                "began_at": self.desk.now,
            }
        if include_refresh_token and family_id is not None:
            refresh = token["refresh_token"] = REFRESH_PREFIX + secrets.token_urlsafe(32)
            self.desk.new_refresh = {
                "token_hash": secret_hash(str(refresh)),
                "family_id": family_id,
                "generation": self.desk.refresh["generation"] + 1 if self.desk.refresh is not None else 1,
                "issued_at": self.desk.now,
                "expires_at": self.desk.now + REFRESH_LIFETIME,
            }
        return token

    def _granted(self, client: Client, user: Account | None, scope: str | None) -> frozenset[str]:
        """What is asked for, cut to what the client, the person and its consent allow."""
        if user is not None and client.partner_id is not None:
            assert self.desk.consent is not None
            return frozenset(scope_to_list(scope or "")) & self.desk.consent.scopes
        allowed = frozenset(scope_to_list(client.get_own_scope(scope) or ""))
        return allowed & (
            of_roles(user.roles) if user is not None and user.kind == "operator" else CEILING[_subject(client, user).kind]
        )

    def _acting(self, client: Client) -> Acting | None:
        if client.partner_id is None or self.desk.consent is None:
            return None
        return Acting(client.partner_id, self.desk.consent.id)

    def exchanged_token(self, client: Client, scopes: frozenset[str]) -> dict[str, Any]:
        """A token for the member of the desk's subject token, by whom the client's partner may act."""
        claims, bound = self.desk.subject, self.desk.proof.thumbprint if self.desk.proof else None
        assert claims is not None
        subject, ends = Subject("member", UUID(claims["sub"])), int(claims["exp"])
        acting = self._acting(client)
        assert acting is not None
        token = self.tokens.issue(
            subject,
            client.get_client_id(),
            scopes,
            self.desk.now,
            family_id=UUID(claims["sid"]) if "sid" in claims else None,  # it ends with the login it came from
            key_thumbprint=bound,
            acting=replace(acting, origin=claims["jti"]),
            ends=ends,
        )
        lives = min(TOKEN_SECONDS, ends - int(self.desk.now.timestamp()))
        return {
            "access_token": token,
            "token_type": "DPoP" if bound else "Bearer",
            "expires_in": lives,
            "scope": " ".join(sorted(scopes)),
        }


def _subject(client: Client, user: Account | None) -> Subject:
    if user is None:
        return Subject("partner", client.row["partner_id"])
    return Subject("member", user.member_id) if user.member_id is not None else Subject("operator", user.account_id)


class Request(OAuth2Request):  # type: ignore[misc]
    """Authlib's view of a request whose parameters were read and checked already."""

    def __init__(
        self,
        method: str,
        parameters: dict[str, str],
        basic: tuple[str, str] | None = None,
        assertion: Assertion | None = None,
    ) -> None:
        headers = {"Authorization": "Basic " + base64.b64encode(":".join(basic).encode()).decode()} if basic else {}
        super().__init__(method, ENDPOINT_URI, headers=headers)
        self.payload = BasicOAuth2Payload(parameters)
        self.assertion = assertion
        self._parameters = parameters

    @property
    def args(self) -> dict[str, str]:
        return self._parameters

    @property
    def form(self) -> dict[str, str]:
        return self._parameters


# What a person types or pastes may hold anything, such as blanks of other scripts and joined emoji (NIST SP 800-63B).
TYPED = ("login", "password", "code")
REPEATED = ("response_type", "response_mode", "grant_type", "redirect_uri", "scope", "client_id")


def read_parameters(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """Parameters, each at most once and of printable text but for TYPED; one without a value is as if it were not there.
    Raises OAuth2Error (RFC 6749, section 3.2)."""
    parameters: dict[str, str] = {}
    seen: set[str] = set()
    for name, value in pairs:
        if name in seen:
            raise InvalidRequestError("A parameter is repeated.")
        if not (name if name in TYPED else name + value).isprintable():
            raise InvalidRequestError("A parameter holds control characters.")
        seen.add(name)
        # Authlib repeats these in its errors, which may hold nothing else (RFC 6749, section 5.2).
        if name in REPEATED and not re.fullmatch(r"[\x20-\x21\x23-\x5B\x5D-\x7E]*", value):
            raise InvalidRequestError(f"The parameter {name} holds characters that it cannot have.")
        if value:
            parameters[name] = value
    return parameters


def read_basic(authorization: str | None) -> tuple[str, str] | None:
    """The client id and secret of a Basic header, None where there is none. Raises OAuth2Error when malformed.

    Both are form-encoded inside it (RFC 6749, section 2.3.1), which Authlib leaves as it is.
    """
    if authorization is None:
        return None
    scheme, _, encoded = authorization.partition(" ")
    try:
        if len(encoded) > BASIC_MAX_CHARS:
            raise ValueError("no client has so long a name and secret")
        client_id, colon, secret = base64.b64decode(encoded.strip(), validate=True).decode("latin-1").partition(":")
        client_id, secret = decoded(client_id), decoded(secret)
    except ValueError:  # binascii.Error is one
        client_id, colon, secret = "", "", ""
    if scheme.lower() != "basic" or not colon or not (client_id + secret).isprintable():
        raise OAuth2Error(error="invalid_client", description="The Authorization header is malformed.", status_code=401)
    return client_id, secret
