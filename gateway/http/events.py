"""GraphQL results as server-sent events: graphql-sse's protocol in its distinct connections mode.

https://github.com/enisdenjo/graphql-sse/blob/master/PROTOCOL.md
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

import orjson
from graphql import ExecutionResult
from starlette.responses import StreamingResponse

from gateway.http.headers import COMMON
from gateway.http.refusing import ENDED, Refusing
from gateway.http.wire import EVENT_STREAM, PART_BYTES, shown

CHECK_SECONDS = 1
# Proxies cut connections on which nothing is sent; a comment keeps them open.
COMMENT_EVERY = 15  # checks
StillKnown = Callable[[], Awaitable[bool]]


class EventStream(StreamingResponse):
    """Sends results as they come, until there are no more or the caller may not be here any more, where that is asked."""

    def __init__(self, results: AsyncGenerator[ExecutionResult, None], still_known: StillKnown | None) -> None:
        super().__init__(
            _events(results, still_known), 200, {**COMMON, "X-Accel-Buffering": "no"}, EVENT_STREAM
        )


async def _events(results: AsyncGenerator[ExecutionResult, None], still_known: StillKnown | None) -> AsyncIterator[bytes]:
    yield b":\n\n"
    following = asyncio.ensure_future(anext(results, None))
    quiet = 0
    try:
        while True:
            await asyncio.wait([following], timeout=CHECK_SECONDS)
            if still_known is not None and not await still_known():
                yield _next(ExecutionResult(None, [ENDED.error]))
                break
            quiet += 1
            if following.done():
                result = _result(following)
                if result is None:
                    break
                said = _next(result)
                for start in range(0, len(said), PART_BYTES):
                    yield said[start : start + PART_BYTES]
                yield b""  # once all of it has left: until then the result is not asked for another
                following, quiet = asyncio.ensure_future(anext(results, None)), 0
            elif quiet % COMMENT_EVERY == 0:
                yield b":\n\n"
        yield b"event: complete\ndata:\n\n"
    finally:
        following.cancel()
        await asyncio.wait([following])
        await results.aclose()


def _result(following: "asyncio.Future[ExecutionResult | None]") -> ExecutionResult | None:
    try:
        return following.result()
    except Refusing as no:
        return ExecutionResult(None, [no.error])


def _next(result: ExecutionResult) -> bytes:
    return b"event: next\ndata: " + orjson.dumps(shown(result)) + b"\n\n"
