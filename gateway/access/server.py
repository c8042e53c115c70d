"""The authorization server: Authlib's framework as pure computation over rows that were loaded for it.

Authlib's server side is synchronous, so a request's rows (client, code) are loaded first, Authlib decides on
them, and what it decided is written after. See docs/decisions/0003-authlib.md for the edges that are closed here.
"""

import base64
import binascii
import copy
import hmac
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from authlib.oauth2.rfc6749 import AuthorizationServer, ClientMixin, OAuth2Request
from authlib.oauth2.rfc6749.errors import InvalidRequestError, InvalidScopeError, OAuth2Error
from authlib.oauth2.rfc6749.grants import AuthorizationCodeGrant, ClientCredentialsGrant
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload
from authlib.oauth2.rfc6749.util import scope_to_list
from authlib.oauth2.rfc7636 import CodeChallenge, create_s256_code_challenge

from gateway.access.accounts import Account, secret_hash
from gateway.access.scopes import CATALOGUE, CEILING
from gateway.access.tokens import TOKEN_SECONDS, Subject, Tokens
from gateway.database import Row

CODE_SECONDS = 60
ENDPOINT_URI = "https://authorization-server.invalid/"  # what Authlib checks is configured, not read off a request


@dataclass(frozen=True)
class Client(ClientMixin):  # type: ignore[misc]
    """A registered OAuth client as Authlib wants to see it."""

    row: Row

    def get_client_id(self) -> str:
        return str(self.row["client_id"])

    def get_default_redirect_uri(self) -> str | None:
        return None

    def get_allowed_scope(self, scope: str | None) -> str | None:
        allowed = set(self.row["scopes"])
        if not scope:
            return " ".join(sorted(allowed))
        return scope if set(scope_to_list(scope)) <= allowed else None

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return redirect_uri in self.row["redirect_uris"]

    def check_client_secret(self, client_secret: str) -> bool:
        stored = self.row["secret_hash"]
        return stored is not None and hmac.compare_digest(stored, secret_hash(client_secret))

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return (method == "none") == (self.row["secret_hash"] is None)

    def check_response_type(self, response_type: str) -> bool:
        return response_type == "code" and "authorization_code" in self.row["grants"]

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type in self.row["grants"]


@dataclass(frozen=True)
class Code:
    """An authorization code's row as Authlib wants to see it."""

    row: Row
    code_challenge_method: str = "S256"

    @property
    def code_challenge(self) -> str:
        return str(self.row["code_challenge"])

    def get_redirect_uri(self) -> str:
        return str(self.row["redirect_uri"])

    def get_scope(self) -> str:
        return str(self.row["scope"])


@dataclass
class Desk:
    """One request at the server: the rows loaded for it, and what Authlib decided."""

    now: datetime
    client: Row | None
    code: Row | None = None
    new_code: dict[str, Any] | None = None
    spent_code: bool = False
    answer: tuple[int, dict[str, Any], list[tuple[str, str]]] = field(default=(500, {}, []))


class S256(CodeChallenge):  # type: ignore[misc]
    """PKCE (RFC 7636) with S256 alone, required of everybody, named explicitly."""

    SUPPORTED_CODE_CHALLENGE_METHOD = ("S256",)
    DEFAULT_CODE_CHALLENGE_METHOD = "S256"
    CODE_CHALLENGE_METHODS = {  # noqa: RUF012 - Authlib's own attribute
        "S256": lambda verifier, challenge: hmac.compare_digest(create_s256_code_challenge(verifier), challenge)
    }

    def validate_code_challenge(self, grant: Any, redirect_uri: str) -> None:
        data = grant.request.payload.data
        if not data.get("code_challenge") or data.get("code_challenge_method") != "S256":
            raise InvalidRequestError("PKCE is required: code_challenge with code_challenge_method=S256.")
        super().validate_code_challenge(grant, redirect_uri)


class CodeGrant(AuthorizationCodeGrant):  # type: ignore[misc]
    """Authorization code for public clients: the console and members' apps."""

    TOKEN_ENDPOINT_AUTH_METHODS = ("none",)

    def save_authorization_code(self, code: str, request: OAuth2Request) -> None:
        self.server.desk.new_code = {
            "code_hash": secret_hash(code),
            "client_id": request.client.get_client_id(),
            "account_id": request.user.account_id,
            "redirect_uri": request.payload.redirect_uri,
            "scope": " ".join(sorted(set(scope_to_list(request.scope)) & CEILING[request.user.kind])),
            "code_challenge": request.payload.data["code_challenge"],
            "expires_at": self.server.desk.now + timedelta(seconds=CODE_SECONDS),
        }

    def query_authorization_code(self, code: str, client: Client) -> Code | None:
        row = self.server.desk.code
        usable = (
            row is not None
            and row["client_id"] == client.get_client_id()
            and row["used_at"] is None
            and row["expires_at"] > self.server.desk.now
        )
        return Code(row) if usable else None

    def delete_authorization_code(self, authorization_code: Code) -> None:
        self.server.desk.spent_code = True

    def authenticate_user(self, authorization_code: Code) -> Account:
        row = authorization_code.row
        return Account(row["account_id"], row["kind"], row["member_id"])


class ClientGrant(ClientCredentialsGrant):  # type: ignore[misc]
    """Client credentials for partners."""

    TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_basic", "client_secret_post")

    def validate_token_request(self) -> None:
        super().validate_token_request()
        if self.request.client.get_allowed_scope(self.request.payload.scope) is None:
            raise InvalidScopeError("The client may not have all of these scopes.")


class OAuthServer(AuthorizationServer):  # type: ignore[misc]
    """Authlib's server over preloaded rows; `at(desk)` gives the one that serves a single request."""

    def __init__(self, tokens: Tokens) -> None:
        super().__init__(scopes_supported=list(CATALOGUE))
        self._tokens = tokens
        self.register_grant(ClientGrant)
        self.register_grant(CodeGrant, [S256(required=True)])
        self.register_token_generator("default", self._token)

    def at(self, desk: Desk) -> "OAuthServer":
        server = copy.copy(self)
        server.desk = desk
        server._client_auth = None
        server._token_generators = {"default": server._token}
        return server

    desk: Desk

    def query_client(self, client_id: str) -> Client | None:
        row = self.desk.client
        return Client(row) if row is not None and row["client_id"] == client_id else None

    def save_token(self, token: dict[str, Any], request: OAuth2Request) -> None:
        """Nothing to keep: an access token is a JWT that outlives nobody."""

    def send_signal(self, name: str, *args: Any, **kwargs: Any) -> None:
        """No framework listens."""

    def create_oauth2_request(self, request: OAuth2Request) -> OAuth2Request:
        return request

    def handle_response(self, status: int, body: Any, headers: list[tuple[str, str]]) -> None:
        self.desk.answer = (status, dict(body) if body else {}, headers)

    def _token(self, grant_type: str, client: Client, user: Account | None, scope: str | None, **_: Any) -> dict[str, Any]:
        granted = frozenset(scope_to_list(client.get_allowed_scope(scope) or ""))
        if user is None:
            subject = Subject("partner", client.row["partner_id"])
        elif user.member_id is not None:
            subject = Subject("member", user.member_id)
        else:
            subject = Subject("operator", user.account_id)
        granted &= CEILING[subject.kind]
        return {
            "access_token": self._tokens.issue(subject, client.get_client_id(), granted, self.desk.now),
            "token_type": "Bearer",
            "expires_in": TOKEN_SECONDS,
            "scope": " ".join(sorted(granted)),
        }


class Request(OAuth2Request):  # type: ignore[misc]
    """Authlib's view of a request whose parameters were read and checked already."""

    def __init__(self, method: str, parameters: dict[str, str], authorization: str | None) -> None:
        super().__init__(method, ENDPOINT_URI, headers={"Authorization": authorization} if authorization else {})
        self.payload = BasicOAuth2Payload(parameters)
        self._parameters = parameters

    @property
    def args(self) -> dict[str, str]:
        return self._parameters

    @property
    def form(self) -> dict[str, str]:
        return self._parameters


def read_parameters(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """Parameters, each at most once and of printable text. Raises OAuth2Error (RFC 6749, section 3.2)."""
    parameters: dict[str, str] = {}
    for name, value in pairs:
        if name in parameters:
            raise InvalidRequestError("A parameter is repeated.")
        if not value.isprintable():
            raise InvalidRequestError("A parameter holds control characters.")
        parameters[name] = value
    return parameters


def basic_client_id(authorization: str | None) -> str | None:
    """The client id of a Basic header (RFC 7617), None where there is none. Raises OAuth2Error when malformed."""
    if authorization is None:
        return None
    scheme, _, encoded = authorization.partition(" ")
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        text = ""
    if scheme.lower() != "basic" or ":" not in text or not text.isprintable():
        raise OAuth2Error(error="invalid_client", description="The Authorization header is malformed.", status_code=401)
    return text.partition(":")[0]
