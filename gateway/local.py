"""The database that a command works on."""

import contextlib
import time
from collections.abc import Iterator

import psycopg

from gateway.embedded import DatabaseFolderBusy, EmbeddedPostgres
from gateway.migrate import migrate
from gateway.settings import Settings

# A gateway that was told to end finishes its requests first, then its server.
ENDING_SECONDS = 60


@contextlib.contextmanager
def database(settings: Settings, alone: bool = False, patience: float = ENDING_SECONDS) -> Iterator[str]:
    """The DSN of a migrated database for a command: the configured one, the one of a running gateway, or our own.

    `alone` is for a command that starts a gateway itself: it waits up to `patience` seconds for one that is on
    its way out, and shares with none.

    Raises DatabaseFolderBusy, DatabaseDidNotStart.
    """
    if settings.database_url:
        migrate(settings.database_url)
        yield settings.database_url
        return
    embedded = EmbeddedPostgres(settings.data_dir)
    if not _started(embedded, alone, patience):
        yield embedded.dsn
        return
    try:
        migrate(embedded.dsn)
        yield embedded.dsn
    finally:
        embedded.stop()


def _started(embedded: EmbeddedPostgres, alone: bool, patience: float) -> bool:
    """True once the server is ours; False if it is a running gateway's and may be shared."""
    deadline = time.monotonic() + patience
    while True:
        try:
            embedded.start()
        except DatabaseFolderBusy:
            if not alone and _answers(embedded.dsn):
                return False
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return True


def _answers(dsn: str) -> bool:
    try:
        psycopg.connect(dsn, connect_timeout=5).close()
    except psycopg.Error:
        return False
    return True
