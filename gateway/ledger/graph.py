"""The ledger in GraphQL: the integrity report for operators."""

import strawberry

from gateway.context import Info
from gateway.graph import requires
from gateway.ledger.verify import verify


@strawberry.type(directives=[requires("audit:read")], description="One invariant, checked on the whole database.")
class IntegrityCheck:
    name: str
    sentence: str = strawberry.field(description="What must hold.")
    holds: bool
    breaches: int
    examples: list[str] = strawberry.field(description="The first few breaches.")


@strawberry.type(directives=[requires("audit:read")], description="Every invariant of the ledger.")
class IntegrityReport:
    holds: bool
    checks: list[IntegrityCheck]


@strawberry.type
class LedgerQuery:
    @strawberry.field(
        directives=[requires("audit:read")], description="Check every invariant now; on a large ledger it takes a while."
    )
    async def integrity(self, info: Info) -> IntegrityReport:
        checks = [
            IntegrityCheck(
                name=check.name,
                sentence=check.sentence,
                holds=check.holds,
                breaches=check.breaches,
                examples=list(check.examples),
            )
            async for check in verify(info.context.database)
        ]
        return IntegrityReport(holds=all(check.holds for check in checks), checks=checks)
