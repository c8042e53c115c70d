"""Liveness and readiness."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.database import Database

T = TypeVar("T")


class AtOnce(Generic[T]):
    """What one finds, for all who ask meanwhile: anybody may, and as often as they like."""

    def __init__(self, find: Callable[[], Awaitable[T]]) -> None:
        self._find = find
        self._looking: asyncio.Future[T] | None = None

    async def get(self) -> T:
        if self._looking is None or self._looking.done():
            self._looking = asyncio.ensure_future(self._find())
        return await asyncio.shield(self._looking)


class Health:
    """`/livez` says that the process runs, `/readyz` that it can do its work."""

    def __init__(self, database: Database) -> None:
        self._is_up = AtOnce(database.is_up)

    async def live(self, request: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def ready(self, request: Request) -> Response:
        if await self._is_up.get():
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "not ready", "reason": "The database does not answer."}, 503, {"Retry-After": "2"})
