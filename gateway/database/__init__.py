"""Connections, roles, transactions: the only importer of asyncpg."""

from gateway.database.failures import (
    CreditShort,
    DatabaseAway,
    Duplicate,
    LostRace,
    PostedNothing,
    Stuck,
    WalletTooFull,
)
from gateway.database.pools import Database
from gateway.database.tx import Listener, Row, Tx

__all__ = [
    "CreditShort",
    "Database",
    "DatabaseAway",
    "Duplicate",
    "Listener",
    "LostRace",
    "PostedNothing",
    "Row",
    "Stuck",
    "Tx",
    "WalletTooFull",
]
