"""`gateway operator` and `gateway member`: local accounts, and a member's history."""

import csv
import getpass
import sys
from typing import Annotated

import typer

from gateway import ids
from gateway.access import accounts
from gateway.cli.running import out, with_database
from gateway.clock import SystemClock
from gateway.coalition.catalogue import read_coalition
from gateway.database import Database
from gateway.members import lookup
from gateway.wallets import history

operator_app = typer.Typer(help="Operators' local accounts.", no_args_is_help=True)
member_app = typer.Typer(help="Members' local accounts.", no_args_is_help=True)


@operator_app.command("create")
def operator_create(
    login: Annotated[str, typer.Argument(help="Login name.")],
    password: Annotated[str | None, typer.Option(help="Asked for if not given.", envvar="GATEWAY_PASSWORD")] = None,
) -> None:
    """Create an operator's account, or give it a new password."""
    secret = password or getpass.getpass(f"Password for {login}: ")

    async def work(opened: Database) -> None:
        async with opened.transaction() as tx:
            await accounts.set_password(tx, "operator", login, secret, None, SystemClock().now())

    with_database(work)
    out.print(f"The operator {login} can log in at /graphiql.")


@member_app.command("history")
def member_history(
    card: Annotated[str, typer.Argument(help="A card of the member.")],
    programme: Annotated[str, typer.Argument(help="Code of the programme.")] = "MER",
) -> None:
    """Print everything that changed a wallet's balance as CSV, the latest posted first, with the balance after it."""

    async def work(opened: Database) -> None:
        async with opened.snapshot() as tx:
            rows = await tx.all(lookup.sql.cards_by_number, numbers=[card])
            if not rows:
                raise typer.BadParameter(f"Nobody has the card {card!r}.")
            found = (await read_coalition(tx)).programme_by_code(programme)
            writer = csv.writer(sys.stdout, lineterminator="\n")
            writer.writerow(["posted_at", "occurred_at", "transaction", "kind", "points", "balance"])
            async for entry in history.whole(tx, rows[0]["member_id"], found.id):
                times = entry["posted_at"].isoformat(), entry["occurred_at"].isoformat()
                id = ids.show("txn", entry["transaction_id"])
                writer.writerow([*times, id, entry["kind"], entry["points"], entry["balance"]])

    with_database(work)


@member_app.command("password")
def member_password(
    card: Annotated[str, typer.Argument(help="A card of the member.")],
    login: Annotated[str, typer.Argument(help="Login name.")],
    password: Annotated[str | None, typer.Option(help="Asked for if not given.", envvar="GATEWAY_PASSWORD")] = None,
) -> None:
    """Give a member a local account for apps, or a new password; prints the member's id."""
    secret = password or getpass.getpass(f"Password for {login}: ")

    async def work(opened: Database) -> str:
        async with opened.transaction() as tx:
            rows = await tx.all(lookup.sql.cards_by_number, numbers=[card])
            if not rows:
                raise typer.BadParameter(f"Nobody has the card {card!r}.")
            await accounts.set_password(tx, "member", login, secret, rows[0]["member_id"], SystemClock().now())
            return ids.show("mem", rows[0]["member_id"])

    print(with_database(work))
