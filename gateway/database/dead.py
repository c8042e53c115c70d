"""Connections that have died without a word, as where the server's address moved to another machine, or what lies between has
forgotten them: nobody answers, and each would keep whoever takes it waiting for as long as a statement may take.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

import asyncpg
import structlog

from gateway.database.failures import AWAY

LOOK_SECONDS, ANSWER_SECONDS = 1, 5
_STATES = "select pid, state from pg_stat_activity where pid = any($1::int[])"

log = structlog.get_logger(__name__)


class DeadConnections:
    """Asks the server, over a new connection, what it does on those that have waited for one statement since the last time. One
    that it does not have, or that rests there, now and the next time too, is dead. With it goes whatever is as old and at rest.
    While the server answers nobody none is dead.
    """

    def __init__(self, dsn: str, settings: dict[str, str], pools: Iterable[Any]) -> None:
        self._dsn, self._settings, self._pools = dsn, settings, tuple(pools)
        self._waited: dict[Any, int] = {}  # connections in use, and how many statements each had begun
        self._silent: dict[Any, int] = {}

    async def run(self) -> None:
        """Look again and again until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self._look()
            except (*AWAY, asyncpg.PostgresError):
                self._silent = {}  # nobody says anything of any of them
            except Exception:
                log.exception("dead connections could not be looked for")

    async def _look(self) -> None:
        before, self._waited = self._waited, self._in_use()
        suspects = {each: begun for each, begun in self._waited.items() if before.get(each) == begun}
        states = await self._states([each.get_server_pid() for each in suspects]) if suspects else {}
        still = self._in_use()
        silent = {
            each: begun
            for each, begun in suspects.items()
            if still.get(each) == begun and states.get(each.get_server_pid(), "idle") == "idle"
        }
        dead = [each for each, begun in silent.items() if self._silent.get(each) == begun]
        self._silent = silent
        if dead:
            log.warning("connections to the database have died without a word", connections=len(dead))
            for pool in self._pools:
                await pool.expire_connections()
            for each in dead:
                each._transport.abort()  # as if it had broken: who waits is told

    def _in_use(self) -> dict[Any, int]:
        holders = (holder for pool in self._pools for holder in pool._holders)
        return {each._con: each._con._protocol.queries_count for each in holders if each.is_connected() and not each.is_idle()}

    async def _states(self, pids: list[int]) -> dict[int, str | None]:
        """What the server does for each of these, among those that it has. Raises what the driver does."""
        connection = await asyncpg.connect(
            self._dsn, timeout=ANSWER_SECONDS, command_timeout=ANSWER_SECONDS, server_settings=self._settings
        )
        try:
            return {row["pid"]: row["state"] for row in await connection.fetch(_STATES, pids)}
        finally:
            connection.terminate()
