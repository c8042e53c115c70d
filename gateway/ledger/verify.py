"""The invariants: what must hold on any database of this gateway, each proven by a query that finds its breaches."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from gateway.database import Database
from gateway.statements import Statement, load_queries

EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class Check:
    """One invariant: its sentence, and how many breaches were found, with the first few of them."""

    name: str
    sentence: str
    breaches: int
    examples: tuple[str, ...]

    @property
    def holds(self) -> bool:
        return self.breaches == 0


def invariants() -> list[Statement]:
    """The checks of the folder `invariants`; the sentence over each query says what must hold."""
    found = (load_queries(__file__, f"invariants/{about}.sql") for about in ("wallets", "transactions", "settlement"))
    return [check for queries in found for check in vars(queries).values()]


async def verify(database: Database) -> AsyncIterator[Check]:
    """Run every check on one snapshot of the database, answering each as it is done. Raises DatabaseAway."""
    async with database.snapshot() as tx:
        for invariant in invariants():
            rows = await tx.all(invariant)
            examples = tuple(", ".join(f"{k} {v}" for k, v in row.items()) for row in rows[:EXAMPLES])
            yield Check(invariant.name, invariant.sentence, len(rows), examples)
