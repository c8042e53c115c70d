"""Raw SQL migrations, applied in the order of their names by yoyo."""

from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import psycopg
import structlog
from yoyo import get_backend, read_migrations
from yoyo.migrations import MigrationList

from gateway.session_settings import IDLE_SECONDS, WHERE_NOBODY_IS

log = structlog.get_logger(__name__)


class DatabaseOutOfReach(RuntimeError):
    """The database that is to be migrated cannot be reached, or does not let us in; its text says what it said."""


CONNECT_SECONDS = 5
PACKAGED = Path(__file__).with_name("_migrations")
CHECKED_OUT = Path(__file__).parent.parent / "migrations"


def migrations_dir() -> Path:
    """Where the .sql files lie: in the installed package, or in the checkout."""
    return PACKAGED if PACKAGED.exists() else CHECKED_OUT


def _address(dsn: str) -> str:
    """As yoyo reads it, with what every session asks of the server: it begins a transaction as soon as it is connected. This one
    keeps a lock between two of them, too, and has nothing to wait for there."""
    parts = urlsplit(dsn)
    said = {"connect_timeout": str(CONNECT_SECONDS), **dict(parse_qsl(parts.query))}
    asked = [f"-c {name}={value}" for name, value in {**WHERE_NOBODY_IS, "idle_session_timeout": f"{IDLE_SECONDS}s"}.items()]
    said["options"] = " ".join([*asked, *filter(None, [said.get("options")])])
    return urlunsplit(parts._replace(scheme="postgresql+psycopg", query=urlencode(said, quote_via=quote)))


def migrate(dsn: str, only_first: int | None = None) -> list[str]:
    """Apply what is missing and return the names of what was applied, each in one transaction with the note that it was: whoever
    is killed in the middle leaves nothing behind, and the next one goes on.

    `only_first` stops after that many migrations of the whole list, for tests of an older version. Raises DatabaseOutOfReach.
    """
    try:
        backend = get_backend(_address(dsn))
    except psycopg.OperationalError as error:
        raise DatabaseOutOfReach(f"The database of DATABASE_URL cannot be used: {error}") from None
    try:
        # It ends with the connection. yoyo's own lock is a row, which who is killed leaves there; once this one is ours, that is
        # nobody's any more.
        if not backend.execute("select pg_try_advisory_lock(hashtext('gateway migrate'))").fetchone()[0]:
            log.info("another process migrates this database; waiting for it")
            backend.execute("select pg_advisory_lock(hashtext('gateway migrate'))")
        backend.break_lock()
        with backend.lock():
            known = read_migrations(str(migrations_dir()))
            wanted = MigrationList(list(known)[:only_first])
            missing = backend.to_apply(wanted)
            names = [migration.id for migration in missing]
            for migration in missing:
                with backend.transaction():
                    migration.process_steps(backend, "apply")
                    backend.log_migration(migration, "apply")
                    backend.mark_one(migration, log=False)
    except psycopg.errors.InsufficientPrivilege as error:
        told = f"The role of DATABASE_URL may not bring the database up to date (docs/operating.md says what it needs): {error}"
        raise DatabaseOutOfReach(told) from None
    except psycopg.OperationalError as error:
        raise DatabaseOutOfReach(f"The database of DATABASE_URL went away: {error}") from None
    finally:
        backend.connection.close()
    return names
