"""The authorization server's endpoints for programs: tokens, their end, what they say, pushed requests, keys, metadata."""

import asyncio
import hashlib
import secrets
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl
from uuid import UUID

import orjson
from authlib.oauth2 import OAuth2Error
from authlib.oauth2.rfc6749.errors import InvalidRequestError
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from starlette.requests import Request as HTTPRequest
from starlette.responses import JSONResponse, Response

from gateway.access.accounts import CODE_GRANTS, EXCHANGE, secret_hash
from gateway.access.clients import (
    ALGORITHMS,
    ASSERTION_METHOD,
    ASSERTION_TYPE,
    SECRET_METHODS,
    claimed_client_id,
    key_id_of,
    read_assertion,
)
from gateway.access.consents import Consent, consent_by_id, live_consent
from gateway.access.dpop import PROOF_SECONDS_MAX, BadProof, read_proof
from gateway.access.grants import CONFIDENTIAL_METHODS
from gateway.access.jwks import Fetcher, KeysAway, RemoteKeys, read_keys
from gateway.access.scopes import CATALOGUE, ROLES
from gateway.access.server import Desk, OAuthServer, Request, read_basic, read_parameters
from gateway.access.tokens import TOKEN_SECONDS, TWO_FACTORS, Revocations, TokenRefused, Tokens, marks_of, sql
from gateway.batching import Busy
from gateway.context import Doors
from gateway.database import DatabaseAway, PostedNothing, Row, Stuck, Tx
from gateway.http import patience
from gateway.http.budget import Budgets
from gateway.http.wire import address_of

FORM_MAX_BYTES = 16 * 1024
GRANT_TYPES = (*CODE_GRANTS, "client_credentials", EXCHANGE)
NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}
REQUEST_URI_PREFIX = "urn:ietf:params:oauth:request_uri:"
PUSHED_SECONDS = 300  # the person logs in meanwhile
CLIENT_REFUSED = "The client could not be authenticated."

Decide = Callable[[OAuthServer, Request, Desk, Tx], Awaitable[None]]


class OAuth:
    """The endpoints below /oauth and /.well-known that programs call."""

    def __init__(self, server: OAuthServer, tokens: Tokens, doors: Doors, fetcher: Fetcher, budgets: Budgets) -> None:
        self._server, self._tokens, self._doors, self._fetcher, self._budgets = server, tokens, doors, fetcher, budgets
        self._remote: dict[str, RemoteKeys] = {}

    async def metadata(self, request: HTTPRequest) -> Response:
        """RFC 8414."""
        issuer = self._tokens.issuer
        methods = [*SECRET_METHODS, ASSERTION_METHOD]
        return JSONResponse(
            {
                "issuer": issuer,
                "authorization_endpoint": f"{issuer}/oauth/authorize",
                "token_endpoint": f"{issuer}/oauth/token",
                "revocation_endpoint": f"{issuer}/oauth/revoke",
                "introspection_endpoint": f"{issuer}/oauth/introspect",
                "pushed_authorization_request_endpoint": f"{issuer}/oauth/par",
                "jwks_uri": f"{issuer}/oauth/jwks",
                "scopes_supported": sorted(CATALOGUE),
                "response_types_supported": ["code"],
                "response_modes_supported": ["query"],
                "grant_types_supported": list(GRANT_TYPES),
                "acr_values_supported": [TWO_FACTORS],
                "operator_roles": {role: sorted(scopes) for role, scopes in ROLES.items()},
                "token_endpoint_auth_methods_supported": [*methods, "none"],
                "token_endpoint_auth_signing_alg_values_supported": ALGORITHMS,
                "revocation_endpoint_auth_methods_supported": [*methods, "none"],
                "revocation_endpoint_auth_signing_alg_values_supported": ALGORITHMS,
                "introspection_endpoint_auth_methods_supported": methods,
                "introspection_endpoint_auth_signing_alg_values_supported": ALGORITHMS,
                "dpop_signing_alg_values_supported": ALGORITHMS,
                "code_challenge_methods_supported": ["S256"],
                "authorization_response_iss_parameter_supported": True,
            }
        )

    async def jwks(self, request: HTTPRequest) -> Response:
        """RFC 7517."""
        return JSONResponse(self._tokens.public_jwks(), headers={"Cache-Control": "public, max-age=300"})

    async def ledger_keys(self, request: HTTPRequest) -> Response:
        """The keys of the sealed ledger, retired ones too: they sign no tokens, but what they sealed stays good."""
        return JSONResponse(self._tokens.ledger_jwks(), headers={"Cache-Control": "public, max-age=300"})

    async def token(self, request: HTTPRequest) -> Response:
        """RFC 6749, section 3.2."""

        async def decide(server: OAuthServer, asked: Request, desk: Desk, tx: Tx) -> None:
            if "grant_type" not in asked.form:
                raise InvalidRequestError("Say which grant_type you ask for, such as client_credentials.")
            if asked.form["grant_type"] not in GRANT_TYPES:
                told = f"This server knows the grant types {', '.join(GRANT_TYPES)}."
                raise OAuth2Error(told, error="unsupported_grant_type")
            await self._check_proof(request, "token", server, asked, desk, tx)
            server.create_token_response(asked)

        return await self._respond(request, decide)

    async def revoke(self, request: HTTPRequest) -> Response:
        """RFC 7009."""

        async def decide(server: OAuthServer, asked: Request, desk: Desk, tx: Tx) -> None:
            if asked.form.get("token_type_hint") not in ("access_token", "refresh_token"):
                asked.form.pop("token_type_hint", None)  # an unknown hint is ignored (RFC 7009, section 2.1)
            server.create_endpoint_response("revocation", asked)

        return await self._respond(request, decide)

    async def introspect(self, request: HTTPRequest) -> Response:
        """RFC 7662."""

        async def decide(server: OAuthServer, asked: Request, desk: Desk, tx: Tx) -> None:
            server.create_endpoint_response("introspection", asked)

        return await self._respond(request, decide)

    async def push(self, request: HTTPRequest) -> Response:
        """RFC 9126: the request is checked now, and named by its request_uri when the person comes."""

        async def decide(server: OAuthServer, asked: Request, desk: Desk, tx: Tx) -> None:
            if "request_uri" in asked.form:
                raise InvalidRequestError("A pushed request holds the parameters themselves.")
            client = server.authenticate_client(asked, (*CONFIDENTIAL_METHODS, "none"))
            parameters = {name: value for name, value in asked.form.items() if name not in _CREDENTIALS}
            parameters["client_id"] = client.get_client_id()
            if request.headers.getlist("dpop"):
                await self._check_proof(request, "par", server, asked, desk, tx)
                assert desk.proof is not None
                # RFC 9449, section 10.1: the code is bound to the key of this proof.
                if parameters.setdefault("dpop_jkt", desk.proof.thumbprint) != desk.proof.thumbprint:
                    raise OAuth2Error(error="invalid_dpop_proof", description="dpop_jkt is not the key of the DPoP proof.")
            server.get_consent_grant(Request("GET", parameters))
            name = secrets.token_urlsafe(32)
            await tx.run(
                sql.store_pushed_request,
                request_hash=secret_hash(name),
                client_id=client.get_client_id(),
                parameters=orjson.dumps(parameters).decode(),
                expires_at=desk.now + timedelta(seconds=PUSHED_SECONDS),
            )
            desk.answer = 201, {"request_uri": REQUEST_URI_PREFIX + name, "expires_in": PUSHED_SECONDS}, []

        return await self._respond(request, decide)

    async def _respond(self, request: HTTPRequest, decide: Decide) -> Response:
        """Read the form, load its rows, let Authlib decide, write what it decided, also when the answer is a no."""
        try:
            parameters = read_parameters(await read_form(request))
            if request.url.query:
                raise InvalidRequestError("Send parameters in the body.")
            if not request.url.path.endswith("/token"):
                parameters.pop("grant_type", None)  # it is asked for there alone
            if len(request.headers.getlist("authorization")) > 1:
                raise InvalidRequestError("Send one Authorization header.")
            basic = read_basic(request.headers.get("authorization"))
            if basic is not None and parameters.get("client_id", basic[0]) != basic[0]:
                raise InvalidRequestError("client_id and the Authorization header name two clients.")
            ways = [basic is not None, "client_secret" in parameters, "client_assertion" in parameters]
            if sum(ways) > 1:
                raise InvalidRequestError("Authenticate the client in one way.")
            if request.url.path.endswith("/par") and not any(ways):
                # What a stranger pushes is kept for a while, so it is counted.
                seconds = await self._budgets.knock(address_of(request))
                if seconds:
                    told = f"Too many requests were pushed from your address; try again in {seconds} s."
                    body = {"error": "temporarily_unavailable", "error_description": told}
                    return JSONResponse(body, 429, {**NO_STORE, "Retry-After": str(seconds)})
            fetched = await self._fetched_keys(parameters)
            async with self._doors.database.transaction() as tx:
                desk = await self._desk(parameters, basic, fetched, tx)
                asked = Request("POST", parameters, basic, desk.assertion)
                try:
                    if desk.assertion is not None:
                        ends = datetime.fromtimestamp(desk.assertion.expires, UTC)
                        await _once(tx, f"assertion {desk.assertion.client_id} {desk.assertion.jti}".encode(), ends)
                    await decide(self._server.at(desk), asked, desk, tx)
                except OAuth2Error as error:
                    desk.answer = error.status_code, dict(error.get_body()), []
                await self._write(desk, tx)
            status, body, _ = desk.answer
        except OAuth2Error as error:
            status, body = error.status_code, dict(error.get_body())
        except (DatabaseAway, Busy, Stuck, PostedNothing):
            return JSONResponse({"error": "temporarily_unavailable"}, 503, {"Retry-After": "2"})
        if body.get("error") == "invalid_client":
            # One sentence for an unknown client and a wrong secret, so that neither is told apart.
            status, body = 401, {"error": "invalid_client", "error_description": CLIENT_REFUSED}
        used_basic = request.headers.get("authorization", "").lower().startswith("basic")
        extra = {"WWW-Authenticate": 'Basic realm="oauth"'} if status == 401 and used_basic else {}
        return JSONResponse(body, status, {**NO_STORE, **extra})

    async def _fetched_keys(self, parameters: dict[str, str]) -> KeySet | None:
        """The keys that a client publishes at an address of its own; fetched while no transaction waits."""
        assertion = parameters.get("client_assertion", "")
        client_id = claimed_client_id(assertion) if assertion else ""
        if not client_id or not client_id.isprintable():
            return None
        async with self._doors.database.reading() as tx:
            url: str | None = await tx.value(sql.jwks_uri_of, client_id=client_id)
        if url is None:
            return None
        remote = self._remote.setdefault(url, RemoteKeys(self._fetcher, url))
        try:
            return await remote.keys(key_id_of(assertion))
        except KeysAway:
            return None

    async def _desk(self, parameters: dict[str, str], basic: tuple[str, str] | None, fetched: KeySet | None, tx: Tx) -> Desk:
        """Load what the request names: its client, its code, its token. Raises OAuth2Error."""
        now, assertion = self._doors.clock.now(), parameters.get("client_assertion")
        check_resource(parameters, self._tokens)
        client_id = basic[0] if basic else parameters.get("client_id", "")
        if assertion is not None:
            claimed = claimed_client_id(assertion)
            if parameters.get("client_assertion_type") != ASSERTION_TYPE or client_id not in ("", claimed):
                raise InvalidRequestError("The client assertion is not one of this client.")
            client_id = claimed
        desk = Desk(now, await tx.one(sql.oauth_client, client_id=client_id) if client_id.isprintable() else None)
        if desk.client is not None and desk.client["partner_status"] == "suspended":
            desk.client = None
        if desk.client is not None and not _is_confidential(desk.client) and (basic or _CREDENTIALS & parameters.keys()):
            # Authlib would take no notice of them, and the client for one that has shown who it is.
            raise OAuth2Error(error="invalid_client", description=CLIENT_REFUSED, status_code=401)
        if assertion is not None and desk.client is not None:
            registered = desk.client["jwks"]
            keys = _registered(registered) if registered is not None else fetched
            desk.assertion = read_assertion(assertion, keys, self._tokens.issuer, now) if keys is not None else None
        asked = parameters.get("grant_type")
        if asked == "authorization_code" and "code" in parameters:
            desk.code = await tx.one(sql.authorization_code, code_hash=secret_hash(parameters["code"]))
        # What a request names counts for the grant it asks for, and for no other; `token` is of revocation and introspection.
        token = parameters.get("refresh_token") if asked == "refresh_token" else None if asked else parameters.get("token")
        if token is not None:
            await tx.run(sql.lock_family, token_hash=secret_hash(token))
            desk.refresh = await tx.one(sql.refresh_token, token_hash=secret_hash(token))
            desk.claims = None if desk.refresh is not None else self._claims(token)
        if asked == EXCHANGE and "subject_token" in parameters:
            desk.subject = self._claims(parameters["subject_token"])
            if desk.subject is not None and await self._just_revoked(tx, desk.subject):
                desk.subject = None
        desk.consent = await self._consent(desk, tx)
        return desk

    async def _consent(self, desk: Desk, tx: Tx) -> Consent | None:
        """The living consent under which a partner asks: that of its code or refresh token, or of the member it names."""
        if desk.client is None or desk.client["partner_id"] is None:
            return None
        if desk.subject is not None and desk.subject["kind"] == "member":
            scopes = desk.subject["scope"].split()
            return await live_consent(tx, UUID(desk.subject["sub"]), desk.client["partner_id"], scopes)
        row = desk.code or desk.refresh
        if row is None or row["consent_id"] is None:
            return None
        found = await consent_by_id(tx, row["consent_id"])
        if found is None or found.withdrawn_at is not None:
            return None
        own = found.member_id == row["member_id"] and found.partner_id == desk.client["partner_id"]
        return found if own else None

    def _claims(self, token: str) -> dict[str, Any] | None:
        try:
            claims = self._tokens.read_claims(token)
        except TokenRefused:
            return None
        return None if self._tokens.revocations.hit(marks_of(claims), claims["iat"]) else claims

    async def _just_revoked(self, tx: Tx, claims: dict[str, Any]) -> bool:
        """Whether a token was revoked in the seconds of which this process does not know yet: nothing may follow from it."""
        known = Revocations()
        rows = await tx.all(sql.revocations, now=self._doors.clock.now())
        known.replace({row["mark"]: row["revoked_at"].timestamp() for row in rows})
        return known.hit(marks_of(claims), claims["iat"])

    async def _check_proof(
        self, request: HTTPRequest, endpoint: str, server: OAuthServer, asked: Request, desk: Desk, tx: Tx
    ) -> None:
        """RFC 9449, section 5. Raises OAuth2Error; a client that does not authenticate learns nothing of its proof."""
        proofs = request.headers.getlist("dpop")
        if proofs or (desk.client is not None and desk.client["dpop_bound"]):
            server.authenticate_client(asked, (*CONFIDENTIAL_METHODS, "none"))
        if not proofs:
            if desk.client is not None and desk.client["dpop_bound"]:
                raise OAuth2Error(error="invalid_dpop_proof", description="This client's tokens are bound: send a DPoP proof.")
            return
        try:
            if len(proofs) > 1:
                raise BadProof("Send one DPoP proof.")
            desk.proof = read_proof(proofs[0], "POST", f"{self._tokens.issuer}/oauth/{endpoint}", desk.now)
        except BadProof as bad:
            raise OAuth2Error(error="invalid_dpop_proof", description=str(bad)) from None
        if not await tx.value(sql.use_once, digest=desk.proof.digest, until=desk.now + timedelta(seconds=2 * PROOF_SECONDS_MAX)):
            raise OAuth2Error(error="invalid_dpop_proof", description="The DPoP proof was used before.")

    async def _write(self, desk: Desk, tx: Tx) -> None:
        if desk.spent_code and desk.code is not None:
            await tx.run(sql.use_authorization_code, code_hash=desk.code["code_hash"], used_at=desk.now)
        if desk.new_family is not None:
            await tx.run(sql.store_family, **desk.new_family)
        if desk.spent_refresh and desk.refresh is not None:
            await tx.run(sql.use_refresh_token, token_hash=desk.refresh["token_hash"], used_at=desk.now)
        if desk.new_refresh is not None:
            await tx.run(sql.store_refresh_token, **desk.new_refresh)
        marks = [desk.revoked_mark] if desk.revoked_mark else []
        if desk.ended_family is not None:
            await tx.run(sql.end_family, family_id=desk.ended_family, ended_at=desk.now)
            marks.append(f"sid:{desk.ended_family}")
        for mark in marks:
            await tx.run(sql.revoke, mark=mark, revoked_at=desk.now, until=desk.now + timedelta(seconds=2 * TOKEN_SECONDS))


def check_resource(parameters: dict[str, str], tokens: Tokens) -> None:
    """There is one resource to ask tokens for, the API (RFC 8707). Raises OAuth2Error."""
    for name in ("resource", "audience"):
        if parameters.get(name, tokens.audience) != tokens.audience:
            raise OAuth2Error(error="invalid_target", description=f"The resource is {tokens.audience}.", status_code=400)


def _registered(jwks: str) -> KeySet | None:
    """The keys that a client was registered with; None where none of them is good any more."""
    try:
        return read_keys(orjson.loads(jwks))
    except (JoseError, ValueError, KeyError, TypeError):
        return None


_CREDENTIALS = {"client_secret", "client_assertion", "client_assertion_type"}


def _is_confidential(client: Row) -> bool:
    """Whether a client can show who it is: it has secrets, or keys."""
    return bool(client["secrets"] or client["jwks"] or client["jwks_uri"])


async def _once(tx: Tx, said: bytes, until: datetime) -> None:
    """Raises OAuth2Error the second time."""
    if not await tx.value(sql.use_once, digest=hashlib.sha256(said).digest(), until=until):
        raise OAuth2Error(error="invalid_client", description=CLIENT_REFUSED, status_code=401)


async def read_form(request: HTTPRequest) -> list[tuple[str, str]]:
    """The pairs of a form. Raises OAuth2Error."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise InvalidRequestError("Send a form: application/x-www-form-urlencoded.")
    body = bytearray()
    try:
        async with asyncio.timeout(patience.BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > FORM_MAX_BYTES:
                    raise InvalidRequestError("The form is too large.")
    except TimeoutError:
        raise InvalidRequestError("The form was not there in time.") from None
    try:
        return parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=50)
    except ValueError:
        raise InvalidRequestError("The form cannot be read.") from None
