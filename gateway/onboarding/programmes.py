"""The coalition itself and its programmes: created once, with terms that change."""

import re
from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

from gateway.coalition.catalogue import OLDEST_YEAR, Programme
from gateway.coalition.zone import read_zone
from gateway.coalition.zone import sql as zone_sql
from gateway.database import Tx
from gateway.ids import new_id
from gateway.points import MAX_POINTS
from gateway.refusals import InputNotAccepted, StateConflict
from gateway.statements import load_queries
from gateway.texts import check_name

sql = load_queries(__file__)

MONTHS_MAX = 1_200
PENDING_DAYS_MAX = 365

# ISO 4217: currencies without hundredths, or with more; amounts have two decimals here.
OTHER_DECIMALS = frozenset({
    "BHD", "BIF", "CLF", "CLP", "DJF", "GNF", "IQD", "ISK", "JOD", "JPY", "KMF", "KRW", "KWD", "LYD", "OMR", "PYG", "RWF", "TND",
    "UGX", "UYI", "UYW", "VND", "VUV", "XAF", "XOF", "XPF",
})  # fmt: skip

# A till that was offline, a month of receipts that come at once.
BACKDATING_DAYS, BACKDATING_DAYS_MAX = 31, 36_500


@dataclass(frozen=True, slots=True)
class NewCoalition:
    """`started_on` lies in the first settlement month, None: in the running one. `backdating_days`: how long ago something may
    have occurred that is told now, None: any time. Prices and rates are those of then, so within it a partner chooses among
    them."""

    name: str
    timezone: str
    settlement_currency: str
    started_on: date | None
    backdating_days: int | None = BACKDATING_DAYS


@dataclass(frozen=True, slots=True)
class NewProgramme:
    """`issuer_id` None: the coalition itself."""

    code: str
    name: str
    custody: str
    issuer_id: UUID | None = None
    expires_after_months: int | None = None
    refund_policy: str = "allow_debt"


async def create_coalition(tx: Tx, new: NewCoalition, now: datetime) -> None:
    """Raises InputNotAccepted, StateConflict when the database has a coalition."""
    check_name(new.name, "name")
    if not re.fullmatch("[A-Z]{3}", new.settlement_currency):
        raise InputNotAccepted(f"A currency is three capitals such as EUR, not {new.settlement_currency!r}.", "currency")
    if new.settlement_currency in OTHER_DECIMALS:
        raise InputNotAccepted(f"Amounts have two decimals here, and those of {new.settlement_currency} do not.", "currency")
    if not await tx.value(zone_sql.zone_is_known, timezone=new.timezone):
        raise InputNotAccepted(f"{new.timezone!r} is not a time zone such as Europe/Vienna.", "timezone")
    today = (await read_zone(tx, new.timezone)).day_of(now)
    started_on = new.started_on or today
    # It cannot be changed: every month before it has to be closed first, and nothing settles before it.
    if not OLDEST_YEAR <= started_on.year <= today.year + 1:
        told = f"The first settlement month is in {started_on.year}; it lies between {OLDEST_YEAR} and {today.year + 1}."
        raise InputNotAccepted(told, "startedOn")
    if new.backdating_days is not None and not 1 <= new.backdating_days <= BACKDATING_DAYS_MAX:
        told = f"backdatingDays is {new.backdating_days}; it must be between 1 and {BACKDATING_DAYS_MAX}."
        raise InputNotAccepted(told, "backdatingDays")
    created = await tx.value(
        sql.store_coalition,
        coalition_id=new_id(),
        name=new.name,
        timezone=new.timezone,
        settlement_currency=new.settlement_currency,
        started_on=started_on.replace(day=1),
        backdating_days=new.backdating_days,
    )
    if created is None:
        raise StateConflict("This database has a coalition already; one database serves one.")


async def create_programme(tx: Tx, new: NewProgramme) -> UUID:
    """Create a point currency and answer its id. Raises InputNotAccepted, StateConflict when the code is taken."""
    if not re.fullmatch(r"[A-Z][A-Z0-9]{1,9}", new.code):
        raise InputNotAccepted(f"A programme's code is 2 to 10 capitals and digits, such as MER, not {new.code!r}.", "code")
    check_name(new.name, "name")
    if (new.custody == "partner") != (new.issuer_id is not None):
        raise InputNotAccepted("A programme that a partner keeps names that partner, and no other does.", "issuer")
    if new.expires_after_months is not None and not 1 <= new.expires_after_months <= MONTHS_MAX:
        told = f"expiresAfterMonths is {new.expires_after_months}; it must be between 1 and {MONTHS_MAX}."
        raise InputNotAccepted(told, "expiresAfterMonths")
    programme_id: UUID | None = await tx.value(
        sql.store_programme,
        programme_id=new_id(),
        code=new.code,
        name=new.name,
        issuer_id=new.issuer_id,
        custody=new.custody,
        expires_after_months=new.expires_after_months,
        refund_policy=new.refund_policy,
    )
    if programme_id is None:
        raise StateConflict(f"There is a programme {new.code} already.").at("code")
    return programme_id


async def set_programme_terms(
    tx: Tx,
    programme: Programme,
    pending_days: int,
    spend_most: int | None,
    spend_most_a_day: int | None,
    transferable: bool,
    refund_policy: str | None,
) -> None:
    """Change from when and how a programme's points can be spent; what was earned before stays as it was.

    Limits are in whole points, None: no limit; `refund_policy` None: as it was. Raises InputNotAccepted.
    """
    check_pending(pending_days)
    for name, limit in (("spendMost", spend_most), ("spendMostADay", spend_most_a_day)):
        if limit is not None and not 0 < limit <= MAX_POINTS:
            raise InputNotAccepted(f"{name} is {limit}; it must be at least 1.", name)
    await tx.run(
        sql.set_programme_terms,
        programme_id=programme.id,
        pending_days=pending_days,
        spend_most=spend_most,
        spend_most_a_day=spend_most_a_day,
        transferable=transferable,
        refund_policy=refund_policy,
    )


def check_pending(days: int | None) -> None:
    if days is not None and not 0 <= days <= PENDING_DAYS_MAX:
        raise InputNotAccepted(f"pendingDays is {days}; it must be between 0 and {PENDING_DAYS_MAX}.", "pendingDays")
