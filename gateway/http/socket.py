"""GraphQL over WebSocket: graphql-transport-ws and nothing older, through Strawberry's handler of the protocol.

The caller is told by the payload of `connection_init` (`Authorization`, and `DPoP` with a bound token), or by the headers of
the upgrade. When its token ends the socket is closed with 4403, so that clients come back with a new one.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import orjson
import structlog
from graphql import ExecutionResult as GraphQLResult
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState
from strawberry.asgi import ASGIWebSocketAdapter
from strawberry.exceptions import ConnectionRejectionError
from strawberry.http.exceptions import NonJsonMessageReceived, NonTextMessageReceived, WebSocketDisconnected
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import BaseGraphQLTransportWSHandler
from strawberry.types import ExecutionResult
from strawberry.types.execution import PreExecutionError
from strawberry.types.unset import UNSET, UnsetType

from gateway.access.caller import PUBLIC, Caller
from gateway.http.budget import network_of
from gateway.http.doorman import Doorman
from gateway.http.endpoint import GraphQLEndpoint
from gateway.http.errors import DocumentRefused
from gateway.http.headers import COMMON
from gateway.http.messages import Variables, completed, fits
from gateway.http.refusing import RequestRefused, ended
from gateway.http.shares import Held
from gateway.http.wire import NAME_ONE_HOST, address_of, check_parts, names_one_host, was_executed, weight_of

Results = AsyncGenerator[ExecutionResult | PreExecutionError, None]

INIT_SECONDS = 5
OPERATIONS_MAX = 20
SOCKETS_MAX = 5_000
SOCKETS_OF_ONE = 200
MESSAGE_MAX_BYTES = 256 * 1024
# Before it is known who is there.
STRANGERS_MESSAGE_MAX_BYTES, STRANGERS_PARTS_MAX = 16 * 1024, 50
MESSAGE_PARTS_MAX = 10_000
MESSAGES_A_SECOND = 50
# Other than 4429, clients come back after it by themselves; after 4400 they do not.
TRY_AGAIN_LATER, INVALID_MESSAGE = 1013, 4400
IDLE_SECONDS = 60
REASON_MAX_BYTES = 123
CHECK_SECONDS = 1

log = structlog.get_logger(__name__)


@dataclass
class Session:
    """One socket: who is behind it, once it has said so; `weight`: what the message at hand takes in memory; `admitted`
    whether an operation of it ran lately, `mutations` how many run."""

    websocket: WebSocket
    caller: Caller = PUBLIC
    authorization: str | None = None
    connection_params: Mapping[str, Any] | None = None
    weight: int = 0
    admitted: bool = False
    mutations: int = 0


class Sockets:
    """The WebSocket side of the endpoint: an ASGI application."""

    def __init__(self, endpoint: GraphQLEndpoint, doorman: Doorman) -> None:
        self._endpoint, self._doorman = endpoint, doorman
        self._open = 0
        self._of: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        websocket = WebSocket(scope, receive, send)
        address = network_of(address_of(websocket))
        try:
            self._check(websocket, address)
        except RequestRefused as no:
            answer = JSONResponse({"errors": [no.error.formatted]}, no.status, {**COMMON, **no.headers})
            return await websocket.send_denial_response(answer)
        self._open += 1
        self._of[address] += 1
        try:
            # Who goes away in the middle of a word is no error.
            with suppress(WebSocketDisconnect, WebSocketDisconnected):
                await websocket.accept(GRAPHQL_TRANSPORT_WS_PROTOCOL)
                await _Handler(self._endpoint, self._doorman, Session(websocket)).handle()
        finally:
            self._open -= 1
            self._of[address] -= 1
            if not self._of[address]:
                del self._of[address]

    def _check(self, websocket: WebSocket, address: str) -> None:
        """Raises RequestRefused, before a socket is opened."""
        if not names_one_host(websocket.scope):
            raise RequestRefused(400, "BAD_REQUEST", NAME_ONE_HOST)
        if websocket.url.path != "/graphql":
            raise RequestRefused(404, "BAD_REQUEST", "Sockets are opened at /graphql.")
        if GRAPHQL_TRANSPORT_WS_PROTOCOL not in websocket.scope["subprotocols"]:
            told = "Ask for the subprotocol graphql-transport-ws, which is what npm's graphql-ws speaks."
            raise RequestRefused(400, "BAD_REQUEST", told)
        if self._open >= SOCKETS_MAX or self._of[address] >= SOCKETS_OF_ONE:
            raise RequestRefused(429, "BUSY", "Too many sockets are open; come back later.", {"Retry-After": "5"})


class _View:
    """What Strawberry's handler asks of its view: JSON as text, and who comes in."""

    def __init__(self, doorman: Doorman) -> None:
        self._doorman = doorman

    def decode_json(self, text: bytes) -> object:
        return orjson.loads(text)

    def encode_json(self, message: object) -> str:
        return orjson.dumps(message).decode()

    async def on_ws_connect(self, session: Session) -> UnsetType:
        """Raises ConnectionRejectionError."""
        said = {str(name).lower(): value for name, value in (session.connection_params or {}).items()}
        session.connection_params = None
        headers = session.websocket.headers
        authorization = said.get("authorization") or headers.get("authorization")
        proof = said.get("dpop") or headers.get("dpop")
        if not isinstance(authorization, str | None) or not isinstance(proof, str | None):
            raise ConnectionRejectionError
        try:
            session.caller = await self._doorman.identify(
                [authorization] if authorization else [], [proof] if proof else [], "GET"
            )
        except RequestRefused as no:
            if no.status in (429, 503):
                await session.websocket.close(TRY_AGAIN_LATER, no.message)
            raise ConnectionRejectionError from None
        if session.caller is PUBLIC:
            raise ConnectionRejectionError  # nothing is open to nobody
        session.authorization = authorization or None
        unset: UnsetType = UNSET
        return unset


class _Operations:
    """What Strawberry's handler asks of its schema: the results of an operation, here from our endpoint."""

    def __init__(self, endpoint: GraphQLEndpoint, doorman: Doorman) -> None:
        self._endpoint, self._doorman = endpoint, doorman

    async def stream(
        self,
        query: str,
        *,
        variable_values: Variables,
        context_value: Session,
        root_value: None,
        operation_name: str | None,
    ) -> Results:
        id = variable_values.document_id
        named = {"query": query} if id is None else {"documentId": id}
        asked = {**named, "variables": variable_values, "operationName": operation_name}
        return self._results(context_value, asked, variable_values.weight)

    async def _results(self, session: Session, asked: dict[str, Any], weight: int) -> Results:
        with self._endpoint.requests.holding() as held:
            async with aclosing(self._answered(session, asked, held, weight)) as results:
                async for result in results:
                    yield result

    async def _answered(self, session: Session, asked: dict[str, Any], held: Held, weight: int) -> Results:
        try:
            held.weigh(session.caller, weight)
            # Whoever came with the socket may be nobody any more, and may become so while it waits.
            await self._check(session)
            admitted = await self._endpoint.admission.admit(session.caller, asked, "POST", streamed=True)
            await self._check(session)
        except DocumentRefused as refused:
            yield PreExecutionError(data=None, errors=refused.errors)
            return
        except RequestRefused as no:
            yield PreExecutionError(data=None, errors=[no.error], extensions=no.extensions)
            return
        session.admitted = True
        try:
            async with aclosing(self._endpoint.results(admitted)) as results:
                if admitted.is_mutation:
                    yield _kind(await _done(session, results))
                    return
                async for result in results:
                    await self._check(session)
                    yield _kind(result)
        except RequestRefused as no:
            yield ExecutionResult(data=None, errors=[no.error])

    async def _check(self, session: Session) -> None:
        """Raises RequestRefused where whoever is behind the socket is not any more."""
        if not await self._doorman.still_knows(session.authorization, session.caller):
            raise ended()


async def _done(session: Session, results: AsyncGenerator[GraphQLResult, None]) -> GraphQLResult:
    """What a mutation did; the socket is not closed while it does it, and no longer: whoever reads slowly gains nothing."""
    session.mutations += 1
    try:
        return await anext(results)
    finally:
        session.mutations -= 1


def _kind(result: GraphQLResult) -> ExecutionResult | PreExecutionError:
    if not was_executed(result):
        return PreExecutionError(data=None, errors=result.errors, extensions=result.extensions)
    return ExecutionResult(data=result.data, errors=result.errors, extensions=result.extensions)


class _Adapter(ASGIWebSocketAdapter):
    """Charges for long messages before they are read, and says why it closes in as many bytes as a close frame has (RFC 6455,
    section 5.5)."""

    def __init__(self, view: Any, session: Session, endpoint: GraphQLEndpoint) -> None:
        super().__init__(view, session.websocket, session.websocket)
        self._session, self._endpoint = session, endpoint

    async def iter_json(self, *, ignore_parsing_errors: bool = False) -> AsyncGenerator[object, None]:
        with suppress(WebSocketDisconnect):
            while self.ws.application_state != WebSocketState.DISCONNECTED:
                try:
                    yield await self._read()
                except RequestRefused as no:
                    # What can never be read would come again and again from clients that try again.
                    await self.close(TRY_AGAIN_LATER if no.status in (429, 503) else INVALID_MESSAGE, no.message)
                except ValueError as error:
                    raise NonJsonMessageReceived from error

    async def _read(self) -> object:
        """The next message; nothing here keeps it. Raises RequestRefused, NonTextMessageReceived, ValueError."""
        try:
            said = (await self.ws.receive_text()).encode()
        except KeyError as error:
            raise NonTextMessageReceived from error
        is_stranger = self._session.caller is PUBLIC
        if is_stranger and len(said) > STRANGERS_MESSAGE_MAX_BYTES:
            raise RequestRefused(413, "BODY_TOO_LARGE", "Say who you are first.")
        if not is_stranger:
            await self._endpoint.admission.charge_for_reading(self._session.caller, len(said))
        check_parts(said, STRANGERS_PARTS_MAX if is_stranger else MESSAGE_PARTS_MAX)
        self._session.weight = weight_of(said)
        return self.view.decode_json(said)

    async def close(self, code: int, reason: str) -> None:
        if self.ws.application_state == WebSocketState.DISCONNECTED:
            return
        await super().close(code, reason.encode()[:REASON_MAX_BYTES].decode(errors="ignore"))


class _Handler(BaseGraphQLTransportWSHandler[Session, None]):
    """One socket, bounded: in what it says, how often, and how long it says nothing."""

    def __init__(self, endpoint: GraphQLEndpoint, doorman: Doorman, session: Session) -> None:
        view: Any = _View(doorman)
        operations: Any = _Operations(endpoint, doorman)
        adapter = _Adapter(view, session, endpoint)
        super().__init__(view, adapter, session, None, operations, timedelta(seconds=INIT_SECONDS), OPERATIONS_MAX)
        self._doorman = doorman
        self._messages = self._quiet = 0

    async def handle(self) -> None:
        watch = asyncio.create_task(self._watch())
        try:
            await super().handle()
        finally:
            watch.cancel()

    async def handle_message(self, message: Any) -> None:
        self._messages += 1
        if self._messages > MESSAGES_A_SECOND:
            await self.websocket.close(4429, "Too many messages.")
        elif not fits(message):
            await self.handle_invalid_message("Failed to parse message")
        else:
            await super().handle_message(completed(message, self.context.weight))
            message.clear()  # Strawberry's loop keeps it until the next one comes

    async def _watch(self) -> None:
        while self.context.websocket.application_state != WebSocketState.DISCONNECTED:
            await asyncio.sleep(CHECK_SECONDS)
            try:
                await self._look()
            except Exception:  # whatever it was, this socket is looked at again
                log.exception("a socket could not be looked at")

    async def _look(self) -> None:
        self._messages = 0
        self._quiet = 0 if self.operations or self.context.admitted else self._quiet + 1
        self.context.admitted = False
        # What a mutation does is told first, also to whose token ended meanwhile; it begins nothing more.
        if not self.context.mutations and not await self._doorman.still_knows(
            self.context.authorization, self.context.caller
        ):
            await self.websocket.close(4403, "The token has ended; come back with a new one.")
        elif self._quiet * CHECK_SECONDS >= IDLE_SECONDS:
            await self.websocket.close(4408, "Nothing happened here for a while.")
