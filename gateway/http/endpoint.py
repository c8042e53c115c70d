"""GraphQL over HTTP: one request, one JSON answer, and a clear 4xx for whatever the client did wrong.

Follows the GraphQL over HTTP specification: `application/graphql-response+json` where it is accepted, with status
codes that mean something; `application/json` otherwise.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

import orjson
import structlog
from graphql import ExecutionResult, GraphQLError, OperationType
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.access.audit import Deed
from gateway.access.caller import PUBLIC, Caller
from gateway.context import Doors
from gateway.http import patience
from gateway.http.admission import Admission, Admitted, who_is_it
from gateway.http.budget import Budgets
from gateway.http.deeds import named_in_answer, only_introspects, result_of
from gateway.http.doorman import Doorman
from gateway.http.engine import Engine
from gateway.http.errors import NOT_NOW, DocumentRefused
from gateway.http.events import EventStream
from gateway.http.refusing import RequestRefused, ended, ending, refusing_what_is_away
from gateway.http.shares import Held, Requests, Turns, Unread
from gateway.http.wire import (
    BODY_MAX_BYTES,
    COUNTED_BYTES,
    EVENT_STREAM,
    GRAPHQL_JSON,
    JSON,
    MEMBERS_BODY_MAX_BYTES,
    Answer,
    announced_bytes,
    check_head,
    negotiate,
    plain_type,
    read_body,
    read_query,
    read_request,
    respond,
    shown,
    texts_of,
    was_executed,
    weight_of,
)

ANSWER_MAX_BYTES = 16 * 1024 * 1024
STREAMED_MAX_BYTES = 1024 * 1024
LATE_SECONDS = 1

log = structlog.get_logger(__name__)


class GraphQLEndpoint:
    """The one endpoint of the contract: an ASGI application that answers 405 itself, as GraphQL clients can read it."""

    def __init__(self, engine: Engine, doorman: Doorman, doors: Doors, budgets: Budgets) -> None:
        self._engine, self._doorman, self._doors, self._budgets = engine, doorman, doors, budgets
        self._turns, self._unread, self.requests = Turns(), Unread(), Requests()
        self.admission = Admission(engine, doors, budgets, self._turns)
        self._under_way: set[asyncio.Task[ExecutionResult]] = set()
        self._ends_at: float | None = None

    def end(self) -> None:
        """End the streams of subscriptions, whose clients come back with their cursors, and what is still under way in time."""
        self._ends_at = asyncio.get_running_loop().time() + patience.SHUTDOWN_SECONDS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        with self.requests.holding() as held:
            try:
                response = await self._respond_to(request, held)
            except ClientDisconnect:
                return
            except asyncio.CancelledError:  # the process ends, and waits no longer
                no = ending()
                response = respond({"errors": [no.error.formatted]}, no.status, JSON, no.headers)
            except Exception:
                log.exception("unexpected error")
                error = GraphQLError("Something unexpected happened.", extensions={"code": "INTERNAL"})
                response = respond({"errors": [error.formatted]}, 500, JSON)
            if isinstance(response, Answer) and len(response.body) > COUNTED_BYTES:
                with self._unread.counting(response.reader, len(response.body)):
                    await response(scope, receive, send)
            else:
                await response(scope, receive, send)

    async def _respond_to(self, request: Request, held: Held) -> Response:
        media_type, caller = negotiate(request.headers.get("accept")), PUBLIC
        try:
            check_head(request)
            began = asyncio.get_running_loop().time()
            authorizations = request.headers.getlist("authorization")
            caller = await self._doorman.identify(authorizations, request.headers.getlist("dpop"), request.method)
            if caller is PUBLIC:
                raise who_is_it()  # before anything is read
            streamed = media_type == EVENT_STREAM
            # Nobody here keeps what was asked: once it is admitted, what the operation does not declare is gone.
            admitted = await self._admit(
                began, authorizations[0], caller, await self._read(request, caller, held), request.method, streamed
            )
            if streamed:
                # What a mutation does is told, also to whose token ended meanwhile.
                knows = None if admitted.is_mutation else partial(self._doorman.still_knows, authorizations[0], caller)
                lasts = admitted.operation.operation is OperationType.SUBSCRIPTION
                return EventStream(self.results(admitted), knows, lambda: lasts and self._ends_at is not None)
            result = await self._run(admitted)
            executed = was_executed(result)
            status = 400 if media_type == GRAPHQL_JSON and not executed else 200
            answer = respond(shown(result, executed), status, media_type)
            if not admitted.is_mutation and len(answer.body) > COUNTED_BYTES:  # what a mutation did is told whatever its size
                self._unread.check(caller, len(answer.body), ANSWER_MAX_BYTES)
        except RequestRefused as no:
            body = {"errors": [no.error.formatted]} | ({"extensions": no.extensions} if no.extensions else {})
            answer = respond(body, no.status, plain_type(media_type), no.headers)
        except DocumentRefused as refused:
            status = 200 if media_type == JSON else 400
            answer = respond({"errors": [error.formatted for error in refused.errors]}, status, plain_type(media_type))
        answer.reader = caller
        return answer

    async def _read(self, request: Request, caller: Caller, held: Held) -> dict[str, Any]:
        """What is asked, which is paid for by its bytes and counts in memory until it is answered. Raises RequestRefused."""
        if request.method == "GET":
            await self.admission.charge_for_reading(caller, len(request.scope["query_string"]))
            texts = texts_of(request)
            held.weigh(caller, sum(weight_of(text.encode()) for text in texts.values()))
            return read_query(texts)
        most = MEMBERS_BODY_MAX_BYTES if caller.is_member_itself else BODY_MAX_BYTES
        announced = announced_bytes(request, most)
        if announced is not None:
            await self.admission.charge_for_reading(caller, announced)
        sent = await read_body(request, most, lambda size: held.add(caller, size))
        if announced is None:
            await self.admission.charge_for_reading(caller, len(sent))
        held.weigh(caller, weight_of(sent))
        return read_request(sent)

    async def _admit(
        self, began: float, authorization: str, caller: Caller, asked: dict[str, Any], method: str, streamed: bool
    ) -> Admitted:
        """Admit a request of somebody who may be nobody any more, if its body or its admission took its time."""
        admitted = await self.admission.admit(caller, asked, method, streamed)
        is_late = asyncio.get_running_loop().time() - began > LATE_SECONDS
        if is_late and not await self._doorman.still_knows(authorization, caller):
            raise ended()
        return admitted

    async def results(self, admitted: Admitted) -> AsyncGenerator[ExecutionResult, None]:
        """The results of any operation as they are there: those of a subscription, or the only one. Raises RequestRefused."""
        if admitted.operation.operation is not OperationType.SUBSCRIPTION:
            result = await (self._run_to_its_end(admitted) if admitted.is_mutation else self._run(admitted))
            with self._counting(admitted, result):
                yield result
            return
        turn, deed = self._turn_of(admitted), admitted.deed
        with refusing_what_is_away():
            if deed is not None:
                await self._doors.audit.note(deed)
            subscribed = self._engine.subscribe(
                admitted.prepared, admitted.variables, admitted.operation_name, admitted.context, turn
            )
            cost: dict[str, Any] | None = admitted.cost  # of the first event, which was paid when it began
            async with aclosing(subscribed) as results:
                async for result in results:
                    if deed is not None:  # what it came to, which its first event says
                        await self._doors.audit.note(replace(deed, result=result_of(result, (result.data or {}).values())))
                        deed = None
                    cost = cost or await self._budgets.charge(admitted.caller, admitted.points)
                    with self._counting(admitted, result):
                        yield ExecutionResult(result.data, result.errors, {"cost": cost})
                    cost = None

    @contextmanager
    def _counting(self, admitted: Admitted, result: ExecutionResult) -> Iterator[None]:
        """A result that is not too large for a stream, until it is read. Raises RequestRefused."""
        size = len(orjson.dumps(shown(result)))
        if not admitted.is_mutation:
            self._unread.check(admitted.caller, size, STREAMED_MAX_BYTES)
        with self._unread.counting(admitted.caller, size):
            yield

    async def drain(self) -> None:
        """Wait for the mutations whose clients have gone, for as long as there is time; what is late is broken off."""
        if self._ends_at is None:
            self.end()
        assert self._ends_at is not None
        if self._under_way:
            left = self._ends_at - asyncio.get_running_loop().time()
            _, late = await asyncio.wait(self._under_way, timeout=max(left, 0))
            await patience.break_off(late)

    async def _run_to_its_end(self, admitted: Admitted) -> ExecutionResult:
        """Run a mutation over a stream; when its client goes away it goes on, and its result still comes into the audit log. Over
        plain HTTP nothing but the end of the process breaks it off."""
        running = asyncio.create_task(self._run(admitted))
        self._under_way.add(running)
        running.add_done_callback(self._under_way.discard)
        return await asyncio.shield(running)

    async def _run(self, admitted: Admitted) -> ExecutionResult:
        # A mutation is not broken off, but by the end of the process: what it posts stands, and its answer must say so.
        most = None if admitted.is_mutation else patience.QUERY_SECONDS
        try:
            with refusing_what_is_away():
                async with asyncio.timeout(most), self._turn_of(admitted):
                    if admitted.is_mutation:  # before it does anything: what it did must be told
                        self._unread.check(admitted.caller, 0, ANSWER_MAX_BYTES)
                    run = self._execute(admitted) if admitted.deed is None else self._run_audited(admitted, admitted.deed)
                    result = await run
        except TimeoutError:
            told = f"The query took more than {most} seconds. Ask for less at once."
            raise RequestRefused(503, "TOO_SLOW", told, {"Retry-After": "1"}) from None
        return ExecutionResult(result.data, result.errors, {"cost": admitted.cost})

    def _turn_of(self, admitted: Admitted) -> asyncio.Semaphore:
        asks_partners = admitted.prepared.asks_partners[admitted.operation_name]
        return self._turns.of(admitted.caller, admitted.points, admitted.is_mutation, asks_partners)

    async def _execute(self, admitted: Admitted) -> ExecutionResult:
        try:
            return await self._engine.run(admitted.prepared, admitted.variables, admitted.operation_name, admitted.context)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise RuntimeError("What this waited for was cancelled, and not by its client.") from None

    async def _run_audited(self, admitted: Admitted, deed: Deed) -> ExecutionResult:
        """Note what is done, about whom it and its answer speak: a mutation before it is run, too."""
        if admitted.is_mutation:
            await self._doors.audit.note(deed)
        try:
            result = await self._execute(admitted)
        except NOT_NOW:
            done = admitted.context.answered.values()  # before it came to what could not be done now
            told = f"NOT_ANSWERED {result_of(ExecutionResult(None, None), done)}" if done else "NOT_ANSWERED"
            with suppress(*NOT_NOW):
                await self._doors.audit.note(replace(deed, result=told))
            raise
        if not only_introspects(admitted.prepared, admitted.operation_name):
            seen = dict.fromkeys([*deed.about, *admitted.context.brought_to_light, *named_in_answer(admitted.caller, result)])
            ended = replace(deed, result=result_of(result, admitted.context.answered.values()), about=list(seen))
            try:
                await self._doors.audit.note(ended)
            except NOT_NOW:
                if not admitted.is_mutation:
                    raise  # what was read is not told without being noted
                # That it was asked for is noted; what it did is done, and its answer must say so.
                log.exception("what a mutation did could not be noted", action=ended.action, result=ended.result)
        return result
