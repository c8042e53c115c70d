"""What the driver raises, as what callers tell apart: every error of the server is known here, by SQLSTATE."""

from typing import Any

import asyncpg
import structlog

from gateway.logs import describe
from gateway.refusals import InputNotAccepted

log = structlog.get_logger(__name__)


class DatabaseAway(ConnectionError):
    """The database cannot be reached now, or can keep nothing; what was asked can be asked again."""


class PostedNothing(RuntimeError):
    """A posting did nothing, and can be done again."""


class LostRace(PostedNothing):
    """Another transaction came first and this one did nothing; done again, it finds what the other did."""


class Duplicate(LostRace):
    """A row that must be unique is there already: it was not looked for, or another request stored it in this very moment."""


class Stuck(RuntimeError):
    """What was asked waited too long, for a lock of somebody else's (SQLSTATE 55P03) or for a connection, or took too long
    (57014), and did nothing."""


class CreditShort(PostedNothing):
    """A batch found a partner's credit short in its slot, and posted nothing (SQLSTATE LG001)."""


class WalletTooFull(PostedNothing):
    """A batch would have brought a wallet beyond what it can hold, and posted nothing (SQLSTATE LG002)."""


AWAY = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a connection that broke in the middle of an answer
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    # Of who may come in, and where to: what is there is not ready yet, as while a dump is restored.
    asyncpg.InvalidCatalogNameError,
    asyncpg.InvalidAuthorizationSpecificationError,
)


# It answers, and has no room on its disk or in its memory.
NO_ROOM = (asyncpg.InsufficientResourcesError, asyncpg.PostgresIOError)


class telling_away:  # noqa: N801 - used like a function
    """Turns what the driver raises into what callers tell apart: DatabaseAway, Duplicate, LostRace, Stuck, CreditShort,
    WalletTooFull, InputNotAccepted.

    `reads`: in a transaction that is not to write; in any other one, who may not has come to a server that only reads, as after a
    failover.
    """

    def __init__(self, reads: bool = False) -> None:
        self._reads = reads

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: Any) -> None:
        if isinstance(error, AWAY) and not isinstance(error, DatabaseAway):
            raise DatabaseAway("The database does not answer.") from error
        if isinstance(error, NO_ROOM) or (isinstance(error, asyncpg.ReadOnlySQLTransactionError) and not self._reads):
            log.error("the database keeps nothing", reason=describe(error))
            raise DatabaseAway("The database can keep nothing now.") from error
        # In what follows the words alone are passed on: the detail of an error holds values.
        if isinstance(error, asyncpg.UniqueViolationError):
            raise Duplicate(error.args[0]) from error
        if isinstance(error, asyncpg.DeadlockDetectedError | asyncpg.SerializationError):
            raise LostRace(error.args[0]) from error
        if isinstance(error, asyncpg.LockNotAvailableError | asyncpg.QueryCanceledError):
            raise Stuck(error.args[0]) from error
        if isinstance(error, asyncpg.PostgresError) and error.sqlstate == "LG001":
            raise CreditShort from error
        if isinstance(error, asyncpg.PostgresError) and error.sqlstate == "LG002":
            raise WalletTooFull from error
        if isinstance(error, asyncpg.NumericValueOutOfRangeError):
            raise InputNotAccepted("A number would come to more than can be stored.") from error
        if isinstance(error, asyncpg.CharacterNotInRepertoireError | asyncpg.UntranslatableCharacterError):
            raise InputNotAccepted("A text holds a character that cannot be stored, such as NUL.") from error
