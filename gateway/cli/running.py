"""What every command needs: its settings, a database, a place to print."""

import asyncio
import getpass
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import typer
from rich.console import Console

from gateway import ids
from gateway.access.accounts import operator_named
from gateway.access.audit import ASKED, COMMAND_LINE, Audit, Deed
from gateway.access.tokens import Subject
from gateway.access.vault import open_vault
from gateway.clock import SystemClock
from gateway.coalition.catalogue import read_coalition
from gateway.database import Database
from gateway.local import database
from gateway.logs import configure_logs
from gateway.members.lookup import sql as member_sql
from gateway.settings import Settings, read_settings

out = Console(markup=False, highlight=False)  # names come from outside
T = TypeVar("T")


def settings_of(port: int | None = None) -> Settings:
    settings = read_settings(port=port)
    configure_logs(settings.log_level, settings.log_format)
    return settings


def noting(action: str, about: Sequence[str] = (), **details: Any) -> Deed:
    """What a command does, for the audit log, about whom; by whom, as far as the machine knows. Whom it
    turns out to be about while it is done is added to the same list."""
    return Deed(COMMAND_LINE, None, "gateway", action, "ok", about=about, details={"user": getpass.getuser(), **details})


def with_database(work: Callable[[Database], Awaitable[T]], deed: Deed | None = None, settings: Settings | None = None) -> T:
    """Run some work against the configured database, or the one of the data folder; a deed is noted before it is begun, since it
    may be interrupted once it is done, and then with what it came to."""
    settings = settings or settings_of()

    async def run(dsn: str) -> T:
        opened = Database(dsn, 2)
        await opened.open()
        try:
            if deed is None:
                return await work(opened)
            audit = Audit(opened, await open_vault(opened, settings), SystemClock())
            await audit.note(replace(deed, result=ASKED))
            done = await work(opened)
            await audit.note(deed)
            return done
        finally:
            await opened.close()

    with database(settings) as dsn:
        return asyncio.run(run(dsn))


async def subject_named(opened: Database, partner: str | None, operator: str | None, member: str | None) -> Subject:
    """A partner by its code, an operator by its login name, or a member by its id; exactly one is named."""
    if sum(given is not None for given in (partner, operator, member)) != 1:
        raise typer.BadParameter("Name one of --partner, --operator or --member.")
    subject = None
    async with opened.reading() as tx:
        if partner is not None:
            coalition = await read_coalition(tx)
            found = next((p for p in coalition.partners.values() if p.code == partner), None)
            if found is not None and found.status != "active":
                raise typer.BadParameter(f"{partner!r} is suspended. It is admitted again by: gateway partner admit {partner}")
            subject = Subject("partner", found.id) if found else None
        elif operator is not None:
            row = await operator_named(tx, operator)
            if row is not None and row["disabled_at"] is not None:
                told = f"{operator!r} is shut out. A new password lets it in again: gateway operator create {operator}"
                raise typer.BadParameter(told)
            subject = Subject("operator", row["account_id"]) if row else None
        elif (member_id := ids.read("mem", member or "")) is not None:
            known = await tx.one(member_sql.member_by_id, bucket=ids.bucket_of(member_id), member=member_id)
            subject = Subject("member", member_id) if known else None
    if subject is None:
        kind = "partner" if partner is not None else "operator" if operator is not None else "member"
        raise typer.BadParameter(f"There is no {kind} {partner or operator or member!r}.")
    return subject


def text_of(file: Path) -> str:
    """A file's text, its line ends as they are. Raises typer.BadParameter, OSError."""
    try:
        return file.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"{file} is not UTF-8: byte {error.start} is {error.object[error.start]:#04x}.") from None


def month_of(text: str) -> date:
    try:
        return date.fromisoformat(f"{text}-01")
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a month such as 2026-10.") from None
