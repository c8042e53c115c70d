"""The database that a command works on."""

import contextlib
import errno
import socket
import sys
import time
from collections.abc import Iterator

import psycopg

from gateway.embedded import DatabaseFolderBusy, EmbeddedPostgres
from gateway.migrate import migrate
from gateway.settings import BadSetting, Settings

NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
# A gateway that was told to end finishes its requests first, then its server.
ENDING_SECONDS = 20


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
    deadline, told = time.monotonic() + patience, False
    while True:
        try:
            embedded.start()
        except DatabaseFolderBusy as busy:
            if not alone and _answers(embedded.dsn):
                return False
            if time.monotonic() > deadline:
                raise
            if not told:
                sys.stderr.write(f"gateway: {busy} Waiting {patience:.0f} seconds, in case it is ending ...\n")
                told = True
            time.sleep(0.1)
        else:
            return True


def _answers(dsn: str) -> bool:
    try:
        psycopg.connect(dsn, connect_timeout=5).close()
    except psycopg.Error:
        return False
    return True


def check_port(settings: Settings) -> None:
    """Raises BadSetting where somebody else listens on the port already."""
    for door in listen(settings):
        door.close()


def listen(settings: Settings) -> list[socket.socket]:
    """A socket for each of the host's addresses. Raises BadSetting."""
    where = f"GATEWAY_HOST and GATEWAY_PORT: {settings.host}:{settings.port}"
    doors: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        addresses = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
        for family, address in addresses:
            try:
                doors.append(socket.create_server(address, family=family))
            except OSError as error:  # a name may stand for an address that this machine does not have, such as ::1
                if error.errno not in NOT_HERE or (not doors and (family, address) == addresses[-1]):
                    raise
    except OSError as error:
        for door in doors:
            door.close()
        if error.errno == errno.EADDRINUSE:
            told = f"Port {settings.port} of {settings.host} is in use; choose another with --port or GATEWAY_PORT."
            raise BadSetting(told) from None
        raise BadSetting(f"{where}: {error.strerror}.") from None
    except UnicodeError:  # a part of a name has 63 letters at most, and one at least
        raise BadSetting(f"{where}: that is no name of a host.") from None
    return doors
