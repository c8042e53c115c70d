"""What every command needs: its settings, a database, a place to print."""

import asyncio
import getpass
from collections.abc import Awaitable, Callable
from datetime import date
from typing import Any, TypeVar

import typer
from rich.console import Console

from gateway.access.audit import COMMAND_LINE, Audit, Deed
from gateway.access.vault import open_vault
from gateway.clock import SystemClock
from gateway.database import Database
from gateway.local import database
from gateway.logs import configure_logs
from gateway.settings import Settings, read_settings

out = Console()
T = TypeVar("T")


def settings_of(port: int | None = None) -> Settings:
    settings = read_settings(port=port)
    configure_logs(settings.log_level, settings.log_format)
    return settings


def noting(action: str, **details: Any) -> Deed:
    """What a command does, for the audit log; by whom, as far as the machine knows."""
    return Deed(COMMAND_LINE, None, "gateway", action, "ok", details={"user": getpass.getuser(), **details})


def with_database(work: Callable[[Database], Awaitable[T]], deed: Deed | None = None, settings: Settings | None = None) -> T:
    """Run some work against the configured database, or the one of the data folder; a deed is noted once it is done."""
    settings = settings or settings_of()

    async def run(dsn: str) -> T:
        opened = Database(dsn, 2)
        await opened.open()
        try:
            done = await work(opened)
            if deed is not None:
                await Audit(opened, await open_vault(opened, settings), SystemClock()).note(deed)
            return done
        finally:
            await opened.close()

    with database(settings) as dsn:
        return asyncio.run(run(dsn))


def month_of(text: str) -> date:
    try:
        return date.fromisoformat(f"{text}-01")
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a month such as 2026-10.") from None
