"""The database that a command works on."""

import contextlib
from collections.abc import Iterator

from gateway.embedded import DatabaseFolderBusy, EmbeddedPostgres
from gateway.migrate import migrate
from gateway.settings import Settings


@contextlib.contextmanager
def database(settings: Settings) -> Iterator[str]:
    """The DSN of a migrated database for a command: the configured one, the one of a running gateway, or our own.

    Raises DatabaseDidNotStart.
    """
    if settings.database_url:
        migrate(settings.database_url)
        yield settings.database_url
        return
    embedded = EmbeddedPostgres(settings.data_dir)
    try:
        dsn = embedded.start()
    except DatabaseFolderBusy:
        # A gateway runs on the folder: its server can be used by whoever may open its socket.
        yield embedded.dsn
        return
    try:
        migrate(dsn)
        yield dsn
    finally:
        embedded.stop()
