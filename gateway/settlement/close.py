"""Closing a month: nothing more goes in, what it came to is worked out once, kept, and written to files."""

from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

from gateway.coalition.catalogue import Coalition, Contract, read_coalition
from gateway.database import Database, Row, Tx
from gateway.ids import new_id
from gateway.refusals import FilesNotWritten, StateConflict
from gateway.settlement.files import statement_digest, write_package
from gateway.settlement.statements import Line, Settled, Standing, Statement, Sum, settle
from gateway.statements import load_queries

sql = load_queries(__file__)


@dataclass(frozen=True, slots=True)
class Period:
    """A settlement month, named by its first day. `state` is open, closing, closed, approved or settled."""

    month: date
    state: str
    closed_at: datetime | None


async def _is_open(database: Database, month: date) -> bool:
    async with database.reading() as tx:
        row = await tx.one(sql.period, month=month)
    return row is None or row["state"] == "open"


async def close_period(
    database: Database, coalition: Coalition, folder: Path, month: date, now: datetime, early: bool = False
) -> Period:
    """Close a month and settle it; a month that is closed already gives the same files again. `early`: also while it runs.

    A crash in between leaves the month closing, and closing it again goes on from there.
    Raises StateConflict while an earlier month is open, or for a month before the coalition or not over yet, FilesNotWritten.
    """
    if month > coalition.day_of(now).replace(day=1):
        raise StateConflict(f"The month {month:%Y-%m} has not begun.").at("month")
    if month == coalition.day_of(now).replace(day=1) and not early and await _is_open(database, month):
        told = f"The month {month:%Y-%m} is not over; closing it for good now has to be asked for (early, --early)."
        raise StateConflict(told).at("month")
    async with database.transaction() as tx:
        state = await tx.value(sql.begin_closing, month=month)
    if state == "before the coalition":
        first = f"{coalition.started_on:%Y-%m}"
        raise StateConflict(f"The month {month:%Y-%m} lies before the coalition's first, {first}.").at("month")
    if state not in ("closing", "closed", "approved", "settled"):
        raise StateConflict(f"The month {state[:7]} is still open; months close in order.").at("month")
    async with database.reading() as tx:
        whole = await read_coalition(tx)  # the caller's may be older than a partner that did something in the month
    if state == "closing":
        async with database.transaction() as tx:
            # The lock makes two who close at once do it one after the other; the second finds it done.
            if await tx.value(sql.begin_closing, month=month) == "closing":
                await _keep(tx, await compute(tx, whole, month))
                await tx.run(sql.finish_closing, month=month, at=now)
    await write_files(database, whole, folder, month)
    async with database.reading() as tx:
        return await period_of_month(tx, month)


async def write_files(database: Database, coalition: Coalition, folder: Path, month: date) -> Path:
    """Write the files of a closed month from what is kept; the same bytes every time. Raises StateConflict, FilesNotWritten."""
    async with database.reading() as tx:
        settled = await read_settled(tx, coalition, month)
    try:
        return write_package(folder, coalition, settled)
    except OSError as error:
        raise FilesNotWritten(f"{month:%Y-%m}", error.strerror) from error


async def compute(tx: Tx, coalition: Coalition, month: date) -> Settled:
    """What a month comes to, worked out afresh from its sums; it changes nothing."""
    sums = [Sum(*map(_whole, row.values())) for row in await tx.all(sql.sums_of_period, month=month)]
    contracts: dict[UUID, Contract] = {c.id: c for found in coalition.contracts.values() for c in found}
    partners = [p.id for p in sorted(coalition.partners.values(), key=lambda p: p.code)]
    standings = [
        Standing(
            row["programme_id"],
            int(row["outstanding"]),
            int(row["debt"]),
            -sum(s.points for s in sums if s.kind == "expiry" and s.programme_id == row["programme_id"]),
        )
        for row in await tx.all(sql.standing_of_programmes, month=month)
    ]
    currency = coalition.settlement_currency
    return Settled(month, currency, settle(partners, currency, _charged(sums), contracts), standings)


def _charged(sums: list[Sum]) -> list[Sum]:
    """What is not charged to a partner: expired points stay the coalition's (no contract here has a breakage share),
    and transfers and adjustments move points without a price."""
    return [s for s in sums if s.kind not in ("expiry", "transfer", "adjustment")]


async def _keep(tx: Tx, settled: Settled) -> None:
    for statement in settled.statements:
        statement_id = new_id()
        await tx.run(
            sql.store_statement,
            statement_id=statement_id,
            month=settled.month,
            partner_id=statement.partner_id,
            purchases=statement.purchases,
            amount_minor=statement.amount_minor,
            issued=statement.issued,
            returns=statement.returns,
            returned=statement.returned,
            redemptions=statement.redemptions,
            redeemed=statement.redeemed,
            conversions=statement.conversions,
            converted_out=statement.converted_out,
            converted_in=statement.converted_in,
            currency=statement.currency,
            net_minor=statement.net_minor,
            digest=statement_digest(settled.month, statement),
        )
        for ordinal, line in enumerate(statement.lines):
            await tx.run(
                sql.store_line,
                line_id=new_id(),
                statement_id=statement_id,
                ordinal=ordinal,
                kind=line.kind,
                debtor_id=line.debtor_id,
                creditor_id=line.creditor_id,
                programme_id=line.programme_id,
                contract_id=line.contract_id,
                points=line.points,
                unit_price=line.unit_price,
                gross_minor=line.gross_minor,
                currency=line.currency,
            )
    for standing in settled.standings:
        await tx.run(
            sql.store_standing,
            month=settled.month,
            programme_id=standing.programme_id,
            outstanding=standing.outstanding,
            debt=standing.debt,
            expired=standing.expired,
        )


@dataclass(frozen=True, slots=True)
class KeptStatement:
    """A statement as it was kept when its month closed."""

    id: UUID
    month: date
    digest: str
    statement: Statement


async def period_of_month(tx: Tx, month: date) -> Period:
    """A period; one that nothing was posted to is open."""
    row = await tx.one(sql.period, month=month)
    return Period(*row.values()) if row else Period(month, "open", None)


async def statements_of_month(tx: Tx, month: date) -> list[KeptStatement]:
    """The statements of a closed month by partner code; none while it is open."""
    return await _with_lines(tx, await tx.all(sql.statements_of_period, month=month))


async def statements_of_partner(tx: Tx, partner_id: UUID, after: date, most: int) -> list[KeptStatement]:
    """A partner's statements, the latest first, of months before `after`."""
    return await _with_lines(tx, await tx.all(sql.statements_of_partner, partner=partner_id, after=after, most=most))


async def statement_by_id(tx: Tx, statement_id: UUID) -> KeptStatement | None:
    """One statement."""
    row = await tx.one(sql.statement_by_id, statement_id=statement_id)
    return (await _with_lines(tx, [row]))[0] if row else None


async def standings_of_month(tx: Tx, month: date) -> list[Standing]:
    """Where the programmes stood at the end of a closed month."""
    return [Standing(*map(_whole, row.values())) for row in await tx.all(sql.standing_of_period, month=month)]


async def read_settled(tx: Tx, coalition: Coalition, month: date) -> Settled:
    """A settled month as it was kept. Raises StateConflict while it is open."""
    period = await period_of_month(tx, month)
    if period.state in ("open", "closing"):
        raise StateConflict(f"The month {month:%Y-%m} is {period.state}; close it first.").at("month")
    kept = await statements_of_month(tx, month)
    standings = await standings_of_month(tx, month)
    return Settled(month, coalition.settlement_currency, [k.statement for k in kept], standings)


def _whole(value: Any) -> Any:
    """Sums are kept as numeric, which does not overflow, and are whole."""
    return int(value) if isinstance(value, Decimal) else value


async def _with_lines(tx: Tx, rows: list[Row]) -> list[KeptStatement]:
    lines: dict[UUID, list[Line]] = {}
    for row in await tx.all(sql.lines_of_statements, statements=[r["statement_id"] for r in rows]):
        statement_id, _, *values = row.values()
        line = Line(*values)
        lines.setdefault(statement_id, []).append(replace(line, points=int(line.points), gross_minor=int(line.gross_minor)))
    return [
        KeptStatement(
            row["statement_id"],
            row["period"],
            row["digest"],
            Statement(
                partner_id=row["partner_id"],
                currency=row["currency"],
                purchases=row["purchases"],
                amount_minor=int(row["amount_minor"]),
                issued=int(row["issued"]),
                returns=row["returns"],
                returned=int(row["returned"]),
                redemptions=row["redemptions"],
                redeemed=int(row["redeemed"]),
                conversions=row["conversions"],
                converted_out=int(row["converted_out"]),
                converted_in=int(row["converted_in"]),
                lines=lines.get(row["statement_id"], []),
            ),
        )
        for row in rows
    ]
