"""Conversion rates, from a moment on."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from gateway.coalition.catalogue import Coalition
from gateway.conversion.quotes import sql
from gateway.database import Tx
from gateway.ids import new_id
from gateway.points import MAX_POINTS
from gateway.refusals import InputNotAccepted, NotAllowed, RateNotOffered, StateConflict


@dataclass(frozen=True, slots=True)
class NewRate:
    """`take` points of `source` become `give` of `target`."""

    source: str
    target: str
    take: int
    give: int
    minimum: int
    increment: int
    valid_from: datetime


async def publish_rate(tx: Tx, coalition: Coalition, new: NewRate) -> UUID:
    """Publish a conversion rate from a moment on and answer its id.

    Raises ProgrammeUnknown, RateNotOffered, InputNotAccepted, NotAllowed, StateConflict.
    """
    source, target = coalition.programme_by_code(new.source, "from"), coalition.programme_by_code(new.target, "to")
    if source.id == target.id:
        raise RateNotOffered(source.code, target.code)
    if source.custody != "ledger" or target.custody != "partner":
        raise NotAllowed("Points convert from a programme on this ledger into one that a partner keeps.").at("to")
    for name in ("take", "give", "minimum", "increment"):
        if not 0 < getattr(new, name) <= MAX_POINTS:
            raise InputNotAccepted(f"{name} is {getattr(new, name)}; it must be at least 1.", name)
    rate_id: UUID | None = await tx.value(
        sql.store_rate,
        rate_id=new_id(),
        source_id=source.id,
        target_id=target.id,
        take=new.take,
        give=new.give,
        minimum=new.minimum,
        increment=new.increment,
        valid_from=new.valid_from,
    )
    if rate_id is None:
        raise StateConflict(f"A rate from {new.valid_from.isoformat()} on is published already.").at("validFrom")
    return rate_id
