"""Liveness and readiness."""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Generic, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.access.revocations import Revocations
from gateway.database import Database

T = TypeVar("T")
REVOCATIONS_MAX_AGE_SECONDS = 10


class AtOnce(Generic[T]):
    """What one finds, for all who ask meanwhile: anybody may, and as often as they like."""

    def __init__(self, find: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._find = find
        self._looking: asyncio.Future[T] | None = None

    async def get(self) -> T:
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._find(), context=Context())  # for all, and in nobody's name
        return await asyncio.shield(self._looking)


class Health:
    """`/livez` says that the process runs, `/readyz` that it can do its work."""

    def __init__(self, database: Database, revocations: Revocations) -> None:
        self._is_up, self._revocations = AtOnce(database.is_up), revocations

    async def live(self, request: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def ready(self, request: Request) -> Response:
        reason = ""
        if not await self._is_up.get():
            reason = "The database does not answer, or only reads."
        elif self._revocations.age_seconds > REVOCATIONS_MAX_AGE_SECONDS:
            reason = f"What was revoked was last read {self._revocations.age_seconds:.0f} seconds ago."
        if not reason:
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "not ready", "reason": reason}, 503, {"Retry-After": "2"})
