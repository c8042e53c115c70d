"""The authorization server's endpoints for programs: tokens, their end, what they say, pushed requests, keys, metadata."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import orjson
from authlib.oauth2 import OAuth2Error
from authlib.oauth2.rfc6749.errors import InvalidRequestError
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HTTPRequest
from starlette.responses import JSONResponse, Response

from gateway.access.clerk import CLIENT_REFUSED, CREDENTIALS, Clerk, once, sql, use_proof
from gateway.access.clients import ALGORITHMS, ASSERTION_METHOD, SECRET_METHODS
from gateway.access.dpop import BadProof, only_proof
from gateway.access.grants import CONFIDENTIAL_METHODS
from gateway.access.registration import CODE_GRANTS, EXCHANGE, secret_hash
from gateway.access.revocations import PROCESS_AHEAD_SECONDS
from gateway.access.scopes import CATALOGUE, ROLES
from gateway.access.server import Desk, OAuthServer, Request, read_basic, read_parameters
from gateway.access.tokens import TWO_FACTORS, Tokens
from gateway.database import Database, Tx
from gateway.forms import pairs_of
from gateway.http import patience
from gateway.http.budget import Budgets
from gateway.http.errors import NOT_NOW
from gateway.http.wire import address_of

FORM_MAX_BYTES, PARAMETERS_MAX = 16 * 1024, 50
GRANT_TYPES = (*CODE_GRANTS, "client_credentials", EXCHANGE)
NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}
REQUEST_URI_PREFIX = "urn:ietf:params:oauth:request_uri:"
PUSHED_SECONDS = 300  # the person logs in meanwhile
PUSHED_MAX_BYTES = 4_096
# What /oauth/authorize reads of a pushed request. Nothing else is kept, such as whose e-mail address it is (`login_hint`).
PUSHED = (
    "client_id", "response_type", "redirect_uri", "scope", "state", "code_challenge", "code_challenge_method", "dpop_jkt",
    "resource", "audience", "data_classes", "prompt", "max_age",
)  # fmt: skip

Decide = Callable[[OAuthServer, Request, Desk, Tx], Awaitable[None]]


class OAuth:
    """The endpoints below /oauth and /.well-known that programs call."""

    def __init__(self, server: OAuthServer, clerk: Clerk, tokens: Tokens, database: Database, budgets: Budgets) -> None:
        self._server, self._clerk, self._tokens, self._database, self._budgets = server, clerk, tokens, database, budgets

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
            parameters = {name: value for name, value in asked.form.items() if name not in CREDENTIALS}
            parameters["client_id"] = client.get_client_id()
            if request.headers.getlist("dpop"):
                await self._check_proof(request, "par", server, asked, desk, tx)
                assert desk.proof is not None
                # RFC 9449, section 10.1: the code is bound to the key of this proof.
                if parameters.setdefault("dpop_jkt", desk.proof.thumbprint) != desk.proof.thumbprint:
                    raise OAuth2Error(error="invalid_dpop_proof", description="dpop_jkt is not the key of the DPoP proof.")
            server.get_consent_grant(Request("GET", parameters))
            kept = orjson.dumps({name: value for name, value in parameters.items() if name in PUSHED})
            name = secrets.token_urlsafe(32)
            if len(kept) > PUSHED_MAX_BYTES:
                raise InvalidRequestError(f"A pushed request has {PUSHED_MAX_BYTES} bytes at most.")
            await tx.run(
                sql.store_pushed_request,
                request_hash=secret_hash(name),
                client_id=client.get_client_id(),
                parameters=kept.decode(),
                expires_at=desk.now + timedelta(seconds=PUSHED_SECONDS),
            )
            desk.answer = 201, {"request_uri": REQUEST_URI_PREFIX + name, "expires_in": PUSHED_SECONDS}, []

        return await self._respond(request, decide)

    async def _respond(self, request: HTTPRequest, decide: Decide) -> Response:
        """Read the form, load its rows, let Authlib decide, write what it decided, also when the answer is a no."""
        path: str = request.scope["path"]
        try:
            parameters = read_parameters(await read_form(request))
            if request.scope["query_string"]:
                raise InvalidRequestError("Send parameters in the body.")
            if not path.endswith("/token"):
                parameters.pop("grant_type", None)  # it is asked for there alone
            if parameters.get("token_type_hint") not in ("access_token", "refresh_token"):
                parameters.pop("token_type_hint", None)  # an unknown hint is ignored (RFC 7009, 7662, section 2.1)
            if len(request.headers.getlist("authorization")) > 1:
                raise InvalidRequestError("Send one Authorization header.")
            basic = read_basic(request.headers.get("authorization"))
            if basic is not None and parameters.get("client_id", basic[0]) != basic[0]:
                raise InvalidRequestError("client_id and the Authorization header name two clients.")
            ways = [basic is not None, "client_secret" in parameters, "client_assertion" in parameters]
            if sum(ways) > 1:
                raise InvalidRequestError("Authenticate the client in one way.")
            if path.endswith("/par"):  # what is pushed is kept for a while, so it is counted
                address = address_of(request)
                seconds = await (self._budgets.push(address) if any(ways) else self._budgets.knock(address))
                if seconds:
                    told = f"Too many requests were pushed from your address; try again in {seconds} s."
                    body = {"error": "temporarily_unavailable", "error_description": told}
                    return JSONResponse(body, 429, {**NO_STORE, "Retry-After": str(seconds)})
            fetched = await self._clerk.fetched_keys(parameters)
            async with self._clerk.turn(parameters), self._clerk.deciding(parameters) as tx:
                desk = await self._clerk.lay_out(parameters, basic, fetched, tx)
                asked = Request("POST", parameters, basic, desk.assertion)
                try:
                    if desk.assertion is not None:
                        # For longer than it serves, by the clock of a process that is behind.
                        ends = datetime.fromtimestamp(desk.assertion.expires + PROCESS_AHEAD_SECONDS, UTC)
                        await once(tx, f"assertion {desk.assertion.client_id} {desk.assertion.jti}".encode(), ends)
                    await decide(self._server.at(desk), asked, desk, tx)
                except OAuth2Error as error:
                    desk.answer = error.status_code, dict(error.get_body()), []
                await self._clerk.write(desk, tx)
            status, body, _ = desk.answer
        except OAuth2Error as error:
            status, body = error.status_code, dict(error.get_body())
        except NOT_NOW:
            return JSONResponse({"error": "temporarily_unavailable"}, 503, {"Retry-After": "2"})
        if body.get("error") == "invalid_client":
            # One sentence for an unknown client and a wrong secret, so that neither is told apart.
            status, body = 401, {"error": "invalid_client", "error_description": CLIENT_REFUSED}
        used_basic = request.headers.get("authorization", "").lower().startswith("basic")
        extra = {"WWW-Authenticate": 'Basic realm="oauth"'} if status == 401 and used_basic else {}
        return JSONResponse(body, status, {**NO_STORE, **extra})

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
            desk.proof = only_proof(proofs, "POST", f"{self._tokens.issuer}/oauth/{endpoint}", desk.now)
            await use_proof(tx, desk.proof, desk.now)
        except BadProof as bad:
            raise OAuth2Error(error="invalid_dpop_proof", description=str(bad)) from None


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
    except ClientDisconnect:
        raise InvalidRequestError("The form ends in the middle.") from None
    try:
        return pairs_of(body.decode("latin-1"), PARAMETERS_MAX)
    except ValueError as error:
        raise InvalidRequestError(f"The form {error}") from None
