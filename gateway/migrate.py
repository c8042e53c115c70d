"""Raw SQL migrations, applied in the order of their names by yoyo."""

from pathlib import Path

import psycopg
from yoyo import get_backend, read_migrations
from yoyo.migrations import MigrationList


class DatabaseOutOfReach(RuntimeError):
    """The database that is to be migrated cannot be reached, or does not let us in; its text says what it said."""


PACKAGED = Path(__file__).with_name("_migrations")
CHECKED_OUT = Path(__file__).parent.parent / "migrations"


def migrations_dir() -> Path:
    """Where the .sql files lie: in the installed package, or in the checkout."""
    return PACKAGED if PACKAGED.exists() else CHECKED_OUT


def migrate(dsn: str, only_first: int | None = None) -> list[str]:
    """Apply what is missing and return the names of what was applied.

    `only_first` stops after that many migrations of the whole list, for tests of an older version. Raises DatabaseOutOfReach.
    """
    try:
        backend = get_backend(dsn.replace("postgresql://", "postgresql+psycopg://").replace("postgres://", "postgresql+psycopg://"))
    except psycopg.OperationalError as error:
        raise DatabaseOutOfReach(f"The database of DATABASE_URL cannot be used: {error}") from None
    try:
        with backend.lock():
            known = read_migrations(str(migrations_dir()))
            wanted = MigrationList(list(known)[:only_first])
            missing = backend.to_apply(wanted)
            names = [migration.id for migration in missing]
            backend.apply_migrations(missing)
    finally:
        backend.connection.close()
    return names
