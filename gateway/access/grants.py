"""What can be asked of the authorization server: Authlib's grants and endpoints, each with its edges closed.

Every one decides over the Desk of its server and writes nothing by itself.
"""

import hmac
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from authlib.oauth2 import OAuth2Error
from authlib.oauth2.rfc6749 import OAuth2Request
from authlib.oauth2.rfc6749.errors import InvalidGrantError, InvalidRequestError, InvalidScopeError, UnauthorizedClientError
from authlib.oauth2.rfc6749.grants import (
    AuthorizationCodeGrant,
    BaseGrant,
    ClientCredentialsGrant,
    RefreshTokenGrant,
    TokenEndpointMixin,
)
from authlib.oauth2.rfc6749.util import scope_to_list
from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc7636 import CodeChallenge, create_s256_code_challenge
from authlib.oauth2.rfc7662 import IntrospectionEndpoint

from gateway.access.accounts import Account, Login, account_of
from gateway.access.clients import ASSERTION_METHOD, SECRET_METHODS, Client
from gateway.access.registration import EXCHANGE, secret_hash
from gateway.access.scopes import CEILING
from gateway.database import Row
from gateway.ids import new_id

CODE_SECONDS = 60
ACCESS_TOKEN_TYPE = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105  # nosec B105 - a name
# Two tabs of an app may refresh with the same token at once; that is no theft.
GRACE = timedelta(seconds=10)
SIDE_BY_SIDE_MAX = 4  # tabs of one app that refresh at the same moment
CONFIDENTIAL_METHODS = (*SECRET_METHODS, ASSERTION_METHOD)


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


@dataclass(frozen=True)
class Token:
    """An issued token as Authlib wants to see it: a refresh token by its row, an access token by its claims."""

    row: Any
    is_refresh: bool

    def check_client(self, client: Client) -> bool:
        return bool(self.row["client_id"] == client.get_client_id())

    def get_scope(self) -> str:
        return str(self.row["scope"])

    def is_expired(self) -> bool:
        return False  # what has expired is not found

    def is_revoked(self) -> bool:
        return False  # nor what was revoked


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
    """Authorization code for the console, members' apps, and partners that a member allows to act for it."""

    TOKEN_ENDPOINT_AUTH_METHODS = ("none", *CONFIDENTIAL_METHODS)

    def validate_requested_scope(self) -> None:
        if "request" in self.request.payload.data:  # what it says, signed, would be passed over (RFC 9101, section 10.5)
            told = "Push the parameters themselves (/oauth/par); a request object is not read."
            raise OAuth2Error(error="request_not_supported", description=told, status_code=400)
        if self.request.payload.data.get("response_mode", "query") != "query":
            raise InvalidRequestError("What comes back stands in the query alone: response_mode=query, or none.")
        super().validate_requested_scope()

    def save_authorization_code(self, code: str, request: OAuth2Request) -> None:
        client = request.client
        # Who asks for nothing in particular gets all that its client may have, but for a partner what the member agreed to.
        everything = client.row["scopes"] if client.partner_id is None else ()
        asked = set(scope_to_list(request.scope) if request.scope else everything)
        self.server.desk.new_code = {
            "code_hash": secret_hash(code),
            "client_id": request.client.get_client_id(),
            "account_id": request.user.account_id,
            "redirect_uri": request.payload.redirect_uri,
            "scope": " ".join(sorted(asked & CEILING[request.user.kind])),
            "consent_id": self.server.desk.consent.id if self.server.desk.consent is not None else None,
            "code_challenge": request.payload.data["code_challenge"],
            "key_thumbprint": request.payload.data.get("dpop_jkt"),
            "family_id": new_id(),
            "expires_at": self.server.desk.now + timedelta(seconds=CODE_SECONDS),
            "authenticated_at": request.user.login.at,
            "strong": request.user.login.strong,
        }

    def query_authorization_code(self, code: str, client: Client) -> Code | None:
        desk = self.server.desk
        row = desk.code
        if row is None or row["client_id"] != client.get_client_id():
            return None
        if row["used_at"] is not None:
            # Somebody has a code that served already: what it led to ends (RFC 6749, section 4.1.2).
            desk.ended_family = row["family_id"]
            return None
        bound, proof = row["key_thumbprint"], desk.proof
        if client.partner_id is not None and desk.consent is None:
            return None
        if not client.check_redirect_uri(row["redirect_uri"]):  # it was taken from the client since
            return None
        if row["expires_at"] <= desk.now or (bound is not None and (proof is None or proof.thumbprint != bound)):
            return None
        return Code(row)

    def delete_authorization_code(self, authorization_code: Code) -> None:
        self.server.desk.spent_code = True

    def authenticate_user(self, authorization_code: Code) -> Account:
        row = authorization_code.row
        return account_of(row, Login(row["authenticated_at"], row["strong"]) if row["authenticated_at"] else None)


class ClientGrant(ClientCredentialsGrant):  # type: ignore[misc]
    """Client credentials for partners."""

    TOKEN_ENDPOINT_AUTH_METHODS = CONFIDENTIAL_METHODS

    def validate_token_request(self) -> None:
        super().validate_token_request()
        if self.request.client.get_own_scope(self.request.payload.scope) is None:
            raise InvalidScopeError("The client may not have all of these scopes.")


class RefreshGrant(RefreshTokenGrant):  # type: ignore[misc]
    """Refresh. Of each generation of an app's tokens one serves, for GRACE all of it, until SIDE_BY_SIDE_MAX follow; what comes
    later than that, or after one of the next generation served, ends the whole family. So two tabs go on side by side, and of
    two who refresh apart neither does. A partner's token is bound to its client, which proves itself each time, and is not
    rotated (FAPI 2.0, section 5.3.2.1)."""

    TOKEN_ENDPOINT_AUTH_METHODS = ("none", *CONFIDENTIAL_METHODS)
    INCLUDE_NEW_REFRESH_TOKEN = True

    def authenticate_refresh_token(self, refresh_token: str) -> Token | None:
        desk = self.server.desk
        row = desk.refresh
        if row is None or row["ended_at"] is not None or row["expires_at"] <= desk.now:
            return None
        if row["key_thumbprint"] is not None and (desk.proof is None or desk.proof.thumbprint != row["key_thumbprint"]):
            return None
        if desk.client is not None and desk.client["partner_id"] is not None:
            self.INCLUDE_NEW_REFRESH_TOKEN = False
            return Token(row, is_refresh=True) if desk.consent is not None else None
        if row["succeeded"] or (row["first_used_at"] is not None and desk.now - row["first_used_at"] > GRACE):
            desk.ended_family = row["family_id"]
            return None
        if row["followed_by"] >= SIDE_BY_SIDE_MAX:
            return None
        return Token(row, is_refresh=True)

    def authenticate_user(self, refresh_token: Token) -> Account:
        return account_of(refresh_token.row, None)

    def revoke_old_credential(self, refresh_token: Token) -> None:
        self.server.desk.spent_refresh = self.INCLUDE_NEW_REFRESH_TOKEN


class ExchangeGrant(BaseGrant, TokenEndpointMixin):  # type: ignore[misc]
    """Token exchange (RFC 8693): a partner gets a token to act for a member who was with it just now, under a live consent.

    Never wider than the member's own token or the consent, and never longer. The token that the app hands over may itself do no
    more than the member allowed: the partner could use it as it is.
    """

    GRANT_TYPE = EXCHANGE
    TOKEN_ENDPOINT_AUTH_METHODS = CONFIDENTIAL_METHODS

    def validate_token_request(self) -> None:
        client = self.authenticate_token_endpoint_client()
        if not client.check_grant_type(self.GRANT_TYPE):
            raise UnauthorizedClientError(f"The client may not use {self.GRANT_TYPE}.")
        form = self.request.form
        if form.get("subject_token_type") != ACCESS_TOKEN_TYPE:
            raise InvalidRequestError(f"subject_token_type must be {ACCESS_TOKEN_TYPE}.")
        if form.get("requested_token_type", ACCESS_TOKEN_TYPE) != ACCESS_TOKEN_TYPE or "actor_token" in form:
            raise InvalidRequestError("An access token is given, and the client itself is who acts.")
        claims = self.server.desk.subject
        if claims is None or claims["kind"] != "member" or "act" in claims or "cnf" in claims:
            raise InvalidGrantError("The subject token must be a member's own living token, not bound to a key of its app.")
        if self.server.desk.consent is None:
            raise InvalidGrantError("The member has given this partner no consent, or has withdrawn it.")
        may = frozenset(claims["scope"].split())
        if beyond := may - self.server.desk.consent.scopes:
            allowed = " ".join(sorted(may - beyond)) or "what the member allowed"
            raise InvalidRequestError(
                f"The member's token can do what this partner was not allowed ({' '.join(sorted(beyond))}): "
                f"let the app hand over one that it refreshed with scope={allowed}."
            )
        asked = frozenset(scope_to_list(self.request.payload.scope or "")) or may
        if not asked or not asked <= may:
            raise InvalidScopeError(f"The member's token and consent open: {' '.join(sorted(may)) or 'nothing'}.")
        self.request.client, self._granted = client, asked

    def create_token_response(self) -> tuple[int, dict[str, Any], list[tuple[str, str]]]:
        token = self.server.exchanged_token(self.request.client, self._granted)
        return 200, {**token, "issued_token_type": ACCESS_TOKEN_TYPE}, self.TOKEN_RESPONSE_HEADER


def _access_token(desk: Any) -> Token | None:
    """The living access token of ours that a request names."""
    return Token(desk.claims, is_refresh=False) if desk.claims is not None else None


class Revocation(RevocationEndpoint):  # type: ignore[misc]
    """RFC 7009: a refresh token ends with its whole family, also one that served already: somebody else may have the one that
    followed it. An access token ends by itself."""

    CLIENT_AUTH_METHODS = (*CONFIDENTIAL_METHODS, "none")

    def query_token(self, token_string: str, token_type_hint: str | None) -> Token | None:
        row = self.server.desk.refresh
        return Token(row, is_refresh=True) if row is not None else _access_token(self.server.desk)

    def revoke_token(self, token: Token, request: OAuth2Request) -> None:
        if token.is_refresh:
            self.server.desk.ended_family = token.row["family_id"]
        else:
            self.server.desk.revoked = token.row


class Introspection(IntrospectionEndpoint):  # type: ignore[misc]
    """RFC 7662: a client is told about its own tokens, and of others' that they are not active."""

    CLIENT_AUTH_METHODS = CONFIDENTIAL_METHODS

    def query_token(self, token_string: str, token_type_hint: str | None) -> Token | None:
        desk = self.server.desk
        row = desk.refresh
        if row is None:
            return _access_token(desk)
        alive = row["ended_at"] is None and row["expires_at"] > desk.now and row["used_at"] is None
        return Token(row, is_refresh=True) if alive else None

    def check_permission(self, token: Token, client: Client, request: OAuth2Request) -> bool:
        return token.check_client(client) and (not token.is_refresh or client.check_grant_type("refresh_token"))

    def introspect_token(self, token: Token) -> dict[str, Any]:
        told = ("iss", "aud", "sub", "client_id", "scope", "iat", "exp", "jti", "cnf", "act")
        said = {name: token.row[name] for name in told if name in token.row}
        return {"active": True, "token_type": "DPoP" if "cnf" in said else "Bearer", **said}
