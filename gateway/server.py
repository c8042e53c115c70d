"""Runs the gateway: the embedded database if none is configured, migrations, and the HTTP server."""

import asyncio
import gc
import os
import signal
import socket
from collections.abc import Sequence

import structlog
import uvicorn
import uvloop
from starlette.types import ASGIApp

from gateway.embedded import EmbeddedPostgres
from gateway.http import patience
from gateway.http.patience import UNREAD_SECONDS, PatientHttp
from gateway.http.patient_socket import PatientSocket
from gateway.http.socket import MESSAGE_MAX_BYTES
from gateway.local import check_port, listen
from gateway.lookups import Loop
from gateway.main import Gateway, create_app
from gateway.migrate import migrate
from gateway.settings import Settings

WATCH_SECONDS = 0.2
# Longer than clients keep idle connections (5 s with httpx, 60 s with many load balancers), so that a request never
# meets a connection that is being closed.
KEEP_ALIVE_SECONDS = 75

# libuv accepts one connection of a socket in each round of the loop; behind a hundred who come at once one more would wait as
# many rounds.
ACCEPTED_AT_ONCE = 16

# A batch of purchases makes some ten thousand objects, which go by themselves when it is answered; the collector has only
# cycles to find, and looks for them less often than after every 700 objects.
YOUNG_OBJECTS = 5_000

log = structlog.get_logger(__name__)


def serve(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM. Raises DatabaseFolderBusy, DatabaseDidNotStart, DatabaseAway, BadSetting."""
    embedded = None if settings.database_url else EmbeddedPostgres(settings.data_dir)
    dsn = embedded.start() if embedded else settings.database_url
    try:
        check_port(settings)
        applied = migrate(dsn)
        log.info("database ready", embedded=embedded is not None, migrations_applied=applied)
        uvloop.run(_serve(settings, dsn, embedded), loop_factory=Loop)
    finally:
        if embedded is not None:
            embedded.stop()


def server_config(app: ASGIApp, proxies: Sequence[str] = ()) -> uvicorn.Config:
    """How HTTP and WebSockets are spoken, and whose word is taken for where a caller is; the tests serve in the same way."""
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(proxies),
        forwarded_allow_ips=list(proxies),
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=patience.SHUTDOWN_SECONDS,
        http=PatientHttp,
        ws=PatientSocket,
        ws_max_size=MESSAGE_MAX_BYTES,
        ws_ping_timeout=UNREAD_SECONDS + 15,  # a ping waits behind what is still to be read
        ws_per_message_deflate=False,  # costs 70 KiB a socket, and lets small messages grow large
    )


def doors(settings: Settings) -> list[socket.socket]:
    """What to accept connections from: the host's sockets, ACCEPTED_AT_ONCE times each. Raises BadSetting."""
    return [each for one in listen(settings) for each in (one, *(one.dup() for _ in range(ACCEPTED_AT_ONCE - 1)))]


class Server(uvicorn.Server):
    """uvicorn's, which tells the gateway that it is to end before it waits for what is under way."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if isinstance(self.config.app, Gateway):
            self.config.app.end()
        await super().shutdown(sockets)


async def _serve(settings: Settings, dsn: str, embedded: EmbeddedPostgres | None) -> None:
    app = await create_app(settings, dsn)
    server = Server(server_config(app, settings.trusted_proxies))
    watcher = asyncio.create_task(_watch(embedded)) if embedded else None
    # The schema and all else that lives as long as the process is not looked through again and again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 10, 10)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup leaves it
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, lambda: setattr(server, "should_exit", True))
    log.info("serving", url=settings.base_url, process=os.getpid())
    await server.serve(doors(settings))
    if watcher is not None:
        watcher.cancel()


async def _watch(embedded: EmbeddedPostgres) -> None:
    """Bring the embedded server back when it dies; the pool reconnects by itself."""
    while True:
        await asyncio.sleep(WATCH_SECONDS)
        try:
            if await embedded.revive():
                log.warning("the embedded database had died and was started again")
        except Exception:
            log.exception("the embedded database could not be started again")
