"""The ledger in GraphQL: the integrity report for operators."""

from uuid import UUID

import strawberry

from gateway.context import Info
from gateway.graph import PUBLIC, requires
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


@strawberry.type(directives=[PUBLIC], description="A hash beside the way from a transaction up to its block's root.")
class ProofStep:
    side: str = strawberry.field(description="On which side it stands: left or right.")
    hash: str = strawberry.field(description="SHA-256, in hex.")


@strawberry.type(
    directives=[PUBLIC],
    description="That a transaction is in the sealed ledger; docs/verify_proof.py checks it with the public key alone.",
)
class LedgerProof:
    leaf: str = strawberry.field(description="The transaction as it was sealed: canonical JSON.")
    path: list[ProofStep] = strawberry.field(description="From the leaf up.")
    header: str = strawberry.field(description="The block's header, which holds the root: canonical JSON.")
    key_id: str = strawberry.field(description="Of the public key at /ledger/keys.")
    signature: str = strawberry.field(description="ES256 over the header, in hex.")


async def proof_of(info: Info, transaction_id: UUID) -> LedgerProof | None:
    """The proof of a transaction that the caller is known to see; None while it is not sealed."""
    async with info.context.reads:
        found = await info.context.doors.prove(transaction_id)
    if found is None:
        return None
    return LedgerProof(
        leaf=found.leaf,
        path=[ProofStep(side=side, hash=hash) for side, hash in found.path],
        header=found.header,
        key_id=found.key_id,
        signature=found.signature,
    )


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
