"""Liveness and readiness."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.database import Database


class Health:
    """`/livez` says that the process runs, `/readyz` that it can do its work."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def live(self, request: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def ready(self, request: Request) -> Response:
        if await self._database.is_up():
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "not ready", "reason": "The database does not answer."}, 503, {"Retry-After": "2"})
