"""GraphQL over HTTP: one request, one JSON answer, and a clear 4xx for whatever the client did wrong.

Follows the GraphQL over HTTP specification: `application/graphql-response+json` where it is accepted, with status
codes that mean something; `application/json` otherwise.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import orjson
import structlog
from graphql import ExecutionResult, GraphQLError, OperationDefinitionNode, OperationType
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.access.audit import DETAILS_MAX_BYTES, Deed
from gateway.access.caller import PUBLIC, Caller
from gateway.access.tokens import TWO_FACTORS
from gateway.batching import Busy
from gateway.coalition.catalogue import NoCoalition
from gateway.context import Context, Doors
from gateway.database import DatabaseAway, Stuck
from gateway.http import patience
from gateway.http.budget import Budgets
from gateway.http.deeds import cost_of_noting, deed_of, is_watched, named_in_answer, only_introspects, result_of
from gateway.http.documents import Documents
from gateway.http.doorman import Doorman
from gateway.http.engine import (
    DOCUMENT_MAX_CHARS,
    STEP_UP_SECONDS,
    DocumentRefused,
    Engine,
    Prepared,
    ScopeMissing,
    StepUpNeeded,
    knows_schema,
)
from gateway.http.events import EVENT_STREAM, EventStream
from gateway.http.refusing import Refusing, away
from gateway.http.wire import (
    GRAPHQL_JSON,
    JSON,
    PART_BYTES,
    Answer,
    check_head,
    negotiate,
    plain_type,
    read_body,
    read_request,
    respond,
)

READING_COST = 5
"""Points a character of a document that this process has not read yet, whether it is accepted or not."""

# What is larger is paid for by its bytes before it is read.
READ_FOR_NOTHING_BYTES = 8 * 1024
BYTES_FOR_A_POINT = 100

LARGE_POINTS, LARGE_AT_ONCE = 5_000, 2
ANSWER_MAX_BYTES = 16 * 1024 * 1024
STREAMED_MAX_BYTES = 1024 * 1024
# Of one caller, wherever they wait.
UNREAD_MAX_BYTES = 64 * 1024 * 1024

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request that may run: its operation is known, its caller has the rights, its cost is allowed."""

    prepared: Prepared
    variables: dict[str, Any] | None
    operation_name: str | None
    operation: OperationDefinitionNode
    caller: Caller
    context: Context
    points: int
    cost: dict[str, Any]
    deed: Deed | None  # of what the audit log watches

    @property
    def is_mutation(self) -> bool:
        return self.operation.operation is OperationType.MUTATION


class GraphQLEndpoint:
    """The one endpoint of the contract: an ASGI application that answers 405 itself, as GraphQL clients can read it."""

    def __init__(self, engine: Engine, doorman: Doorman, doors: Doors, budgets: Budgets) -> None:
        self._engine, self._doorman, self._doors, self._budgets = engine, doorman, doors, budgets
        self._documents = Documents(doors.database)
        self._under_way: set[asyncio.Task[ExecutionResult]] = set()
        self._unread: Counter[str] = Counter()
        self._large: dict[str, tuple[asyncio.Semaphore, int]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            response = await self._respond_to(request)
        except ClientDisconnect:
            return
        except Exception:
            log.exception("unexpected error")
            error = GraphQLError("Something unexpected happened.", extensions={"code": "INTERNAL"})
            response = respond({"errors": [error.formatted]}, 500, JSON)
        if isinstance(response, Answer) and response.holder is not None:
            with self._counting(response.holder, len(response.body)):
                await response(scope, receive, send)
        else:
            await response(scope, receive, send)

    async def _respond_to(self, request: Request) -> Response:
        media_type = negotiate(request.headers.get("accept"))
        try:
            check_head(request)
            authorizations = request.headers.getlist("authorization")
            caller = await self._doorman.identify(authorizations, request.headers.getlist("dpop"), request.method)
            if caller is PUBLIC:
                raise _who_is_it()  # before anything is read
            sent = await read_body(request)
            await self.charge_for_reading(caller, len(sent))
            asked = read_request(request, sent)
            if media_type == EVENT_STREAM:
                knows = partial(self._doorman.still_knows, authorizations[0] if authorizations else None)
                return EventStream(await self.stream(caller, asked, request.method), knows)
            admitted = await self._admit(caller, asked, request.method)
            result = await self._run(admitted)
            executed = not (result.data is None and result.errors and all(e.path is None for e in result.errors))
            status = 400 if media_type == GRAPHQL_JSON and not executed else 200
            answer = respond(shown(result, executed), status, media_type)
            return answer if admitted.is_mutation else self._checked(caller, answer)
        except Refusing as no:
            body = {"errors": [no.error.formatted]} | ({"extensions": no.extensions} if no.extensions else {})
            return respond(body, no.status, plain_type(media_type), no.headers)
        except DocumentRefused as refused:
            status = 200 if media_type == JSON else 400
            return respond({"errors": [error.formatted for error in refused.errors]}, status, plain_type(media_type))

    def _checked(self, caller: Caller, answer: Answer) -> Answer:
        """An answer that is not too large, beside those of its caller that are on their way. Raises Refusing."""
        size = len(answer.body)
        if size > PART_BYTES:
            answer.holder = _reader(caller)
            self._check_size(answer.holder, size, ANSWER_MAX_BYTES)
        return answer

    def _check_size(self, holder: str, size: int, most: int) -> None:
        """Raises Refusing for what is too large, also beside what waits for the same reader."""
        if size > most:
            told = f"The answer has {size} bytes, and {most} at most are sent here. Ask for fewer items at once."
            raise Refusing(400, "ANSWER_TOO_LARGE", told)
        if self._unread[holder] + size > UNREAD_MAX_BYTES:
            told = f"{UNREAD_MAX_BYTES} bytes of answers wait to be read; read them first."
            raise Refusing(429, "BUSY", told, {"Retry-After": "1"})

    @contextmanager
    def _counting(self, holder: str, size: int) -> Iterator[None]:
        """An answer that is on its way to its reader."""
        self._unread[holder] += size
        try:
            yield
        finally:
            self._unread[holder] -= size
            if not self._unread[holder]:
                del self._unread[holder]

    async def charge_for_reading(self, caller: Caller, size: int) -> None:
        """What is large takes long to read, whatever it asks for. Raises Refusing."""
        if size > READ_FOR_NOTHING_BYTES:
            with _refusing_what_is_away():
                await self._budgets.charge(caller, size // BYTES_FOR_A_POINT)

    async def stream(
        self, caller: Caller, asked: dict[str, Any], method: str = "POST"
    ) -> AsyncGenerator[ExecutionResult, None]:
        """Begin any operation; its results come as they are there: those of a subscription, or the only one.

        Raises Refusing, DocumentRefused; iterating raises Refusing.
        """
        return self._results(await self._admit(caller, asked, method, streamed=True))

    async def _results(self, admitted: Admitted) -> AsyncGenerator[ExecutionResult, None]:
        if admitted.is_mutation:
            yield await self._run_to_its_end(admitted)
            return
        holder = _reader(admitted.caller)
        if admitted.operation.operation is OperationType.QUERY:
            result = await self._run(admitted)
            size = len(orjson.dumps(shown(result)))
            self._check_size(holder, size, STREAMED_MAX_BYTES)
            with self._counting(holder, size):
                yield result
            return
        with _refusing_what_is_away():
            if admitted.deed is not None:
                await self._doors.audit.note(replace(admitted.deed, result="ok"))
            subscribed = self._engine.subscribe(admitted.prepared, admitted.variables, admitted.operation_name, admitted.context)
            cost: dict[str, Any] | None = admitted.cost  # of the first event, which was paid when it began
            async with aclosing(subscribed) as results:
                async for result in results:
                    cost = cost or await self._budgets.charge(admitted.caller, admitted.points)
                    yield ExecutionResult(result.data, result.errors, {"cost": cost})
                    cost = None

    async def drain(self) -> None:
        """Wait for the mutations whose clients have gone."""
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _run_to_its_end(self, admitted: Admitted) -> ExecutionResult:
        """Run a mutation; when its client goes away it goes on, and its result still comes into the audit log."""
        running = asyncio.create_task(self._run(admitted))
        self._under_way.add(running)
        running.add_done_callback(self._under_way.discard)
        return await asyncio.shield(running)

    async def _admit(self, caller: Caller, asked: dict[str, Any], method: str, streamed: bool = False) -> Admitted:
        """Check all that can be checked before execution. Raises Refusing, DocumentRefused."""
        name, variables = asked.get("operationName"), asked.get("variables")
        with _refusing_what_is_away():
            text = await self._text(caller, asked)
            registered = asked.get("documentId") is not None
            if not registered and not self._engine.remembers(text):
                await self._budgets.charge(caller, min(len(text), DOCUMENT_MAX_CHARS) * READING_COST)
            prepared = self._engine.prepare(text, knows_schema(caller), registered)
        if prepared.introspects and not knows_schema(caller):
            raise Refusing(403, "FORBIDDEN", "The schema is told to partners and operators; schema.graphql holds it too.")
        operation = self._engine.operation(prepared, name, streamed)
        if variables and not variables.keys() <= prepared.variables[name]:
            # Nothing but what the operation declares: it does nothing with anything else.
            variables = {each: value for each, value in variables.items() if each in prepared.variables[name]}
        if method == "GET" and operation.operation is OperationType.MUTATION:
            raise Refusing(405, "METHOD_NOT_ALLOWED", "Send mutations with POST.", {"Allow": "POST"})
        deed = deed_of(caller, prepared, operation, variables) if is_watched(caller, prepared) else None
        noting = cost_of_noting(deed) if deed is not None else 0
        try:
            self._check_rights(prepared, caller)
            if deed is not None and deed.size > DETAILS_MAX_BYTES:
                told = f"The audit log keeps this whole, document and variables: {DETAILS_MAX_BYTES} bytes, not nested deeply."
                raise Refusing(413, "BODY_TOO_LARGE", told)
        except Refusing as no:
            if deed is not None:
                with _refusing_what_is_away():
                    await self._budgets.charge(caller, noting)
                    await self._doors.audit.note(replace(deed, result=no.code))
            raise
        points = self._engine.check_cost(prepared, variables, name) + noting
        with _refusing_what_is_away():
            cost = await self._budgets.charge(caller, points)
            context = Context(caller, await self._doors.catalogue.current(), self._doors)
        partner_id = caller.acting_partner_id or caller.partner_id
        if partner_id is not None:
            partner = context.coalition.partners.get(partner_id)
            if partner is not None and partner.status != "active":
                raise Refusing(403, "FORBIDDEN", f"{partner.name} is suspended.")
        return Admitted(prepared, variables, name, operation, caller, context, points, cost, deed)

    async def _text(self, caller: Caller, asked: dict[str, Any]) -> str:
        """The document: as it was sent, or registered under the id that was sent. Raises Refusing, DatabaseAway."""
        id = asked.get("documentId")
        if caller is PUBLIC:
            raise _who_is_it()
        if id is None:
            if caller.kind == "member" and caller.acting_partner_id is None:
                told = "Apps of members send the id of a registered document: documentId (docs/integrating.md)."
                raise Refusing(403, "DOCUMENT_NOT_TRUSTED", told)
            query: str = asked["query"]
            return query
        text = await self._documents.text(caller.client_id, id)
        if text is None:
            raise Refusing(404, "DOCUMENT_UNKNOWN", f"The client {caller.client_id!r} has no document {id[:80]!r}.")
        return text

    def _check_rights(self, prepared: Prepared, caller: Caller) -> None:
        try:
            self._engine.check_rights(prepared, caller)
        except ScopeMissing as error:
            headers = {"WWW-Authenticate": 'Bearer error="insufficient_scope"'}
            raise Refusing(403, "FORBIDDEN", str(error), headers) from None
        try:
            self._engine.check_step_up(prepared, caller, self._doors.clock.now())
        except StepUpNeeded as error:
            challenge = (
                f'Bearer error="insufficient_user_authentication", acr_values="{TWO_FACTORS}", max_age="{STEP_UP_SECONDS}"'
            )
            raise Refusing(401, "STEP_UP_NEEDED", str(error), {"WWW-Authenticate": challenge}) from None

    async def _run(self, admitted: Admitted) -> ExecutionResult:
        # A mutation is never broken off: what it posts stands, and its answer must say so.
        most = patience.QUERY_SECONDS if admitted.operation.operation is OperationType.QUERY else None
        try:
            with _refusing_what_is_away():
                async with asyncio.timeout(most), self._turn(admitted):
                    run = self._execute(admitted) if admitted.deed is None else self._run_audited(admitted, admitted.deed)
                    result = await run
        except TimeoutError:
            told = f"The query took more than {most} seconds. Ask for less at once."
            raise Refusing(503, "TOO_SLOW", told, {"Retry-After": "1"}) from None
        return ExecutionResult(result.data, result.errors, {"cost": admitted.cost})

    @asynccontextmanager
    async def _turn(self, admitted: Admitted) -> AsyncIterator[None]:
        """Of the large queries of one caller a few run at once: each holds everybody else up a little, and all of them a lot."""
        if admitted.is_mutation or admitted.points < LARGE_POINTS:
            yield
            return
        caller = admitted.caller
        holder = str(caller.acting_partner_id or caller.subject_id)  # whom a partner acts for is no turn of its own
        turns, waiting = self._large.get(holder, (asyncio.Semaphore(LARGE_AT_ONCE), 0))
        self._large[holder] = turns, waiting + 1
        try:
            async with turns:
                yield
        finally:
            turns, waiting = self._large[holder]
            self._large[holder] = turns, waiting - 1
            if waiting == 1:
                del self._large[holder]

    async def _execute(self, admitted: Admitted) -> ExecutionResult:
        return await self._engine.run(admitted.prepared, admitted.variables, admitted.operation_name, admitted.context)

    async def _run_audited(self, admitted: Admitted, deed: Deed) -> ExecutionResult:
        """Note what is done, about whom it and its answer speak: a mutation before it is run, too."""
        if admitted.is_mutation:
            await self._doors.audit.note(deed)
        result = await self._execute(admitted)
        if not only_introspects(admitted.prepared, admitted.operation_name):
            seen = dict.fromkeys([*deed.about, *admitted.context.brought_to_light, *named_in_answer(admitted.caller, result)])
            await self._doors.audit.note(replace(deed, result=result_of(result), about=list(seen)))
        return result


def _reader(caller: Caller) -> str:
    return f"{caller.kind} {caller.subject_id} {caller.acting_partner_id}"


def _who_is_it() -> Refusing:
    headers = {"WWW-Authenticate": "Bearer", "Connection": "close"}
    return Refusing(401, "UNAUTHENTICATED", "Send a bearer token.", headers)


@contextmanager
def _refusing_what_is_away() -> Iterator[None]:
    """Turns what keeps a request from being answered at all into a refusal of the request."""
    try:
        yield
    except NoCoalition as error:
        raise Refusing(503, "NO_COALITION", str(error)) from None
    except DatabaseAway:
        raise away() from None
    except Busy as error:
        raise Refusing(429, "BUSY", str(error), {"Retry-After": "1"}) from None
    except Stuck:
        told = "Somebody else is at work on what this needs; try again in a moment."
        raise Refusing(429, "BUSY", told, {"Retry-After": "1"}) from None


def shown(result: ExecutionResult, executed: bool = True) -> dict[str, Any]:
    """A result as JSON; without `data` if nothing was executed."""
    body: dict[str, Any] = {}
    if result.errors:
        body["errors"] = [error.formatted for error in result.errors]
    if executed:
        body["data"] = result.data
    if result.extensions:
        body["extensions"] = result.extensions
    return body
