"""GraphQL results as server-sent events: graphql-sse's protocol in its distinct connections mode.

https://github.com/enisdenjo/graphql-sse/blob/master/PROTOCOL.md
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

import orjson
from graphql import ExecutionResult
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from gateway.http.headers import COMMON
from gateway.http.refusing import RequestRefused, ended
from gateway.http.wire import EVENT_STREAM, PART_BYTES, shown

CHECK_SECONDS = 1
# Proxies cut connections on which nothing is sent; a comment keeps them open.
COMMENT_EVERY = 15  # checks
StillKnown = Callable[[], Awaitable[bool]]


class EventStream(StreamingResponse):
    """Sends results as they come, until there are no more or the caller may not be here any more, where that is asked; where the
    process ends, too, and then without `complete`, so that who follows comes back.

    The first one is asked for at once: what was admitted does not wait until somebody reads.
    """

    def __init__(
        self, results: AsyncGenerator[ExecutionResult, None], still_known: StillKnown | None, is_ending: Callable[[], bool]
    ) -> None:
        super().__init__(self._events(), 200, {**COMMON, "X-Accel-Buffering": "no"}, EVENT_STREAM)
        self._results, self._still_known, self._is_ending = results, still_known, is_ending
        self._following = self._follow()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._following.cancel()
            # Whatever came of it, nobody is told any more.
            await asyncio.gather(self._following, return_exceptions=True)
            await self._results.aclose()

    def _follow(self) -> "asyncio.Future[ExecutionResult | None]":
        return asyncio.ensure_future(anext(self._results, None))

    async def _events(self) -> AsyncIterator[bytes]:
        yield b":\n\n"
        quiet = 0
        while True:
            await asyncio.wait([self._following], timeout=CHECK_SECONDS)
            if self._is_ending():
                return
            if self._still_known is not None and not await self._still_known():
                yield _next(ExecutionResult(None, [ended().error]))
                break
            quiet += 1
            if self._following.done():
                result = _result(self._following)
                if result is None:
                    break
                said = _next(result)
                for start in range(0, len(said), PART_BYTES):
                    yield said[start : start + PART_BYTES]
                yield b""  # once all of it has left: until then the result is not asked for another
                self._following, quiet = self._follow(), 0
            elif quiet % COMMENT_EVERY == 0:
                yield b":\n\n"
        yield b"event: complete\ndata:\n\n"


def _result(following: "asyncio.Future[ExecutionResult | None]") -> ExecutionResult | None:
    try:
        return following.result()
    except RequestRefused as no:
        return ExecutionResult(None, [no.error])


def _next(result: ExecutionResult) -> bytes:
    return b"event: next\ndata: " + orjson.dumps(shown(result)) + b"\n\n"
