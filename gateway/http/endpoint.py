"""GraphQL over HTTP: one request, one JSON answer, and a clear 4xx for whatever the client did wrong.

Follows the GraphQL over HTTP specification: `application/graphql-response+json` where it is accepted, with status
codes that mean something; `application/json` otherwise.
"""

from datetime import timedelta
from types import NoneType
from typing import Any

import orjson
import structlog
from graphql import ExecutionResult, GraphQLError, OperationType
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.access.caller import PUBLIC, Caller
from gateway.access.dpop import PROOF_SECONDS_MAX, BadProof, read_proof
from gateway.access.tokens import TokenRefused, Tokens
from gateway.access.tokens import sql as access_sql
from gateway.batching import Busy
from gateway.coalition.catalogue import NoCoalition
from gateway.context import Context, Doors
from gateway.database import DatabaseAway
from gateway.http.engine import DocumentRefused, Engine, ScopeMissing

log = structlog.get_logger(__name__)

BODY_MAX_BYTES = 4 * 1024 * 1024
JSON = "application/json"
GRAPHQL_JSON = "application/graphql-response+json"


class Refusing(Exception):
    """A request that gets no execution: an HTTP status, a code for programs, a sentence for people."""

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, headers or {}


class GraphQLEndpoint:
    """The one endpoint of the contract: an ASGI application that answers 405 itself, as GraphQL clients can read it."""

    def __init__(self, engine: Engine, tokens: Tokens, doors: Doors) -> None:
        self._engine, self._tokens, self._doors = engine, tokens, doors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            response = await self._respond_to(request)
        except ClientDisconnect:
            return
        except Exception:
            log.exception("unexpected error")
            error = GraphQLError("Something unexpected happened.", extensions={"code": "INTERNAL"})
            response = _respond({"errors": [error.formatted]}, 500, JSON)
        await response(scope, receive, send)

    async def _respond_to(self, request: Request) -> Response:
        media_type = _negotiate(request.headers.get("accept"))
        try:
            result = await self._answer(request)
        except Refusing as no:
            error = GraphQLError(no.message, extensions={"code": no.code})
            return _respond({"errors": [error.formatted]}, no.status, media_type, no.headers)
        except DocumentRefused as refused:
            status = 400 if media_type == GRAPHQL_JSON else 200
            return _respond({"errors": [error.formatted for error in refused.errors]}, status, media_type)
        body: dict[str, Any] = {}
        if result.errors:
            body["errors"] = [error.formatted for error in result.errors]
        executed = not (result.data is None and result.errors and all(e.path is None for e in result.errors))
        if executed:
            body["data"] = result.data
        status = 400 if media_type == GRAPHQL_JSON and not executed else 200
        return _respond(body, status, media_type)

    async def _answer(self, request: Request) -> ExecutionResult:
        caller = await self._caller(request)
        asked = await _read(request)
        prepared = self._engine.prepare(asked["query"])
        operation = self._engine.operation(prepared, asked.get("operationName"))
        if request.method == "GET" and operation.operation is not OperationType.QUERY:
            raise Refusing(405, "METHOD_NOT_ALLOWED", "Send mutations with POST.", {"Allow": "POST"})
        try:
            self._engine.check_rights(prepared, caller)
        except ScopeMissing as error:
            if caller is PUBLIC:
                raise Refusing(401, "UNAUTHENTICATED", f"{error} Send a bearer token.", {"WWW-Authenticate": "Bearer"}) from None
            headers = {"WWW-Authenticate": 'Bearer error="insufficient_scope"'}
            raise Refusing(403, "FORBIDDEN", str(error), headers) from None
        self._engine.check_cost(prepared, asked.get("variables"), asked.get("operationName"))
        try:
            context = Context(caller, await self._doors.catalogue.current(), self._doors)
            return await self._engine.run(prepared, asked.get("variables"), asked.get("operationName"), context)
        except NoCoalition as error:
            raise Refusing(503, "NO_COALITION", str(error)) from None
        except DatabaseAway:
            raise _away() from None
        except Busy as error:
            raise Refusing(429, "BUSY", str(error), {"Retry-After": "1"}) from None

    async def _caller(self, request: Request) -> Caller:
        """Who calls, by a bearer token, or by one that is bound to a key with the proof of it (RFC 9449, section 7)."""
        headers = request.headers.getlist("authorization")
        if not headers:
            return PUBLIC
        scheme, _, token = headers[0].partition(" ")
        scheme, token = scheme.lower(), token.strip()
        if len(headers) > 1 or scheme not in _SCHEMES or not token:
            raise Refusing(
                401, "UNAUTHENTICATED", "Send one header: Authorization: Bearer <token>.", {"WWW-Authenticate": "Bearer"}
            )
        try:
            caller = self._tokens.verify(token)
            if (caller.key_thumbprint is None) != (scheme == "bearer"):
                bound = caller.key_thumbprint is not None
                raise TokenRefused("The token is bound: send it as DPoP, with a proof." if bound else "The token is not bound.")
        except TokenRefused as error:
            raise Refusing(
                401, "UNAUTHENTICATED", str(error), {"WWW-Authenticate": f'{_SCHEMES[scheme]} error="invalid_token"'}
            ) from None
        if caller.key_thumbprint is not None:
            await self._check_proof(request, caller.key_thumbprint, token)
        return caller

    async def _check_proof(self, request: Request, thumbprint: str, token: str) -> None:
        now = self._doors.clock.now()
        try:
            proofs = request.headers.getlist("dpop")
            if len(proofs) != 1:
                raise BadProof("Send one DPoP proof.")
            proof = read_proof(proofs[0], request.method, self._tokens.audience, now, token)
            if proof.thumbprint != thumbprint:
                raise BadProof("The DPoP proof is by another key than the token's.")
            async with self._doors.database.reading() as tx:
                until = now + timedelta(seconds=2 * PROOF_SECONDS_MAX)
                if not await tx.value(access_sql.use_once, digest=proof.digest, until=until):
                    raise BadProof("The DPoP proof was used before.")
        except BadProof as bad:
            raise Refusing(401, "UNAUTHENTICATED", str(bad), {"WWW-Authenticate": 'DPoP error="invalid_dpop_proof"'}) from None
        except DatabaseAway:
            raise _away() from None


_SCHEMES = {"bearer": "Bearer", "dpop": "DPoP"}


def _away() -> Refusing:
    sentence = "The database does not answer; nothing is known to have been posted. Try again with the same keys."
    return Refusing(503, "DATABASE_AWAY", sentence, {"Retry-After": "2"})


_KINDS = (
    ("query", str),
    ("operationName", (str, NoneType)),
    ("variables", (dict, NoneType)),
    ("extensions", (dict, NoneType)),
)


async def _read(request: Request) -> dict[str, Any]:
    """The request's query, variables and operationName. Raises Refusing."""
    if request.method == "GET":
        return _check_kinds(_read_query(request))
    if request.method != "POST":
        raise Refusing(405, "METHOD_NOT_ALLOWED", "Send GraphQL requests with POST, or queries with GET.", {"Allow": "GET, POST"})
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != JSON:
        raise Refusing(415, "UNSUPPORTED_MEDIA_TYPE", "Send the request as application/json.")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusing(415, "UNSUPPORTED_MEDIA_TYPE", "Send the body as it is, without a content encoding.")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_MAX_BYTES:
            raise Refusing(413, "BODY_TOO_LARGE", f"The body is larger than {BODY_MAX_BYTES} bytes.")
    try:
        asked = orjson.loads(bytes(body))
    except orjson.JSONDecodeError as error:
        raise Refusing(400, "BAD_REQUEST", f"The body is not JSON: {error}.") from None
    if not isinstance(asked, dict):
        raise Refusing(400, "BAD_REQUEST", "The body must be a JSON object with a query.")
    return _check_kinds(asked)


def _read_query(request: Request) -> dict[str, Any]:
    """The request in a GET's query string, where variables and extensions are JSON texts. Raises Refusing."""
    asked: dict[str, Any] = {}
    for name, text in request.query_params.multi_items():
        if name in asked:
            raise Refusing(400, "BAD_REQUEST", f"{name} is there twice.")
        asked[name] = text
    for name in ("variables", "extensions"):
        if name in asked:
            try:
                asked[name] = orjson.loads(asked[name])
            except orjson.JSONDecodeError as error:
                raise Refusing(400, "BAD_REQUEST", f"{name} is not JSON: {error}.") from None
    return asked


def _check_kinds(asked: dict[str, Any]) -> dict[str, Any]:
    for name, kinds in _KINDS:
        if not isinstance(asked.get(name), kinds):
            raise Refusing(400, "BAD_REQUEST", f"{name} is missing or not of its type.")
    return asked


def _negotiate(accept: str | None) -> str:
    """The media type of the answer: the specification's own where it is named first or alone."""
    for part in (accept or "").split(","):
        media_type = part.partition(";")[0].strip().lower()
        if media_type in (GRAPHQL_JSON, JSON):
            return media_type
        if media_type == "application/*":
            return GRAPHQL_JSON
    return JSON


def _respond(body: dict[str, Any], status: int, media_type: str, headers: dict[str, str] | None = None) -> Response:
    return Response(
        orjson.dumps(body),
        status,
        {"Content-Type": f"{media_type}; charset=utf-8", "Cache-Control": "no-store", **(headers or {})},
    )
