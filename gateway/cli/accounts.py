"""`gateway operator` and `gateway member`: local accounts, and a member's history."""

import csv
import getpass
import os
import sys
from contextlib import suppress
from functools import partial
from typing import Annotated
from uuid import UUID

import pyotp
import typer

from gateway import ids
from gateway.access import accounts
from gateway.access.accounts import sql
from gateway.access.audit import Audit, Deed
from gateway.access.scopes import ROLES
from gateway.access.vault import open_vault
from gateway.cli.running import noting, out, settings_of, with_database
from gateway.clock import SystemClock
from gateway.coalition.catalogue import read_coalition
from gateway.database import Database, Row, Tx
from gateway.members import lookup
from gateway.privacy import forgetting
from gateway.wallets import history

operator_app = typer.Typer(help="Operators' local accounts.", no_args_is_help=True)
member_app = typer.Typer(help="Members' local accounts.", no_args_is_help=True)


def _asked(prompt: str) -> str:
    """A password: GATEWAY_PASSWORD, or typed unseen, or the first line of what is piped in. It is no option: others see those."""
    if given := os.environ.get("GATEWAY_PASSWORD"):
        return given
    return getpass.getpass(prompt) if sys.stdin.isatty() else sys.stdin.readline().rstrip("\r\n")


def _address_of(login: str, factor: str) -> str:
    """What an authenticator app reads (https://github.com/google/google-authenticator/wiki/Key-Uri-Format)."""
    return pyotp.TOTP(factor).provisioning_uri(name=login, issuer_name="Loyalty gateway")


@operator_app.command("create")
def operator_create(
    login: Annotated[str, typer.Argument(help="Login name.")],
    role: Annotated[list[str] | None, typer.Option(help=f"May be given several times: {', '.join(ROLES)}.")] = None,
) -> None:
    """Create an operator's account, or give it a new password, which is asked for, or GATEWAY_PASSWORD.

    Without --role a new one is an admin, others keep their roles.

    Nobody logs in without a second factor (TOTP): a new account gets one. Prints its address for an authenticator app, this once.
    """
    roles = role or []
    if unknown := set(roles) - set(ROLES):
        raise typer.BadParameter(f"There is no role {', '.join(sorted(unknown))}; there are {', '.join(ROLES)}.")
    if not login.strip():
        raise typer.BadParameter("An operator has a login name.")
    secret = _asked(f"Password for {login}: ")

    async def work(opened: Database) -> str | None:
        vault = await open_vault(opened, settings_of())
        async with opened.transaction() as tx:
            account_id = await accounts.set_password(tx, vault, "operator", login, secret, None, SystemClock().now(), roles)
            account = await tx.one(sql.operator_by_login, login=login)
            has_factor = account is not None and account["second_factor"] is not None
            return None if has_factor else await accounts.set_second_factor(tx, vault, account_id)

    factor = with_database(work, noting("operator create", login=login, roles=roles))
    which = "this" if factor else "its"
    out.print(f"The operator {login} can log in at /graphiql, with a one-time code of {which} second factor.")
    if factor:
        print(_address_of(login, factor))


@operator_app.command("disable")
def operator_disable(login: Annotated[str, typer.Argument(help="Login name.")]) -> None:
    """Shut an operator out: no password opens the account, and every session and token of it ends within seconds."""

    async def work(opened: Database) -> None:
        async with opened.transaction() as tx:
            account = await tx.one(sql.operator_by_login, login=login)
            if account is None:
                raise typer.BadParameter(f"There is no operator {login!r}.")
            await accounts.disable(tx, account, SystemClock().now())

    with_database(work, noting("operator disable", login=login))
    out.print(f"{login} is shut out. A new password lets it in again: gateway operator create {login}")


@operator_app.command("factor")
def operator_factor(login: Annotated[str, typer.Argument(help="Login name.")]) -> None:
    """Give an operator a new second factor (TOTP) in place of the one it has. Its sessions and tokens end.

    Prints the address that an authenticator app reads, this once.
    """

    async def work(opened: Database) -> str:
        vault = await open_vault(opened, settings_of())
        async with opened.transaction() as tx:
            account = await tx.one(sql.operator_by_login, login=login)
            if account is None:
                raise typer.BadParameter(f"There is no operator {login!r}.")
            # The account first: a login that is under way is waited for, and ends with the others.
            made = await accounts.set_second_factor(tx, vault, account["account_id"])
            await accounts.end_logins(tx, account, SystemClock().now())
            return made

    print(_address_of(login, with_database(work, noting("operator factor", login=login))))


@operator_app.command("code")
def operator_code(login: Annotated[str, typer.Argument(help="Login name.")]) -> None:
    """Print the one-time code of this moment, for local use; whoever can run this can read the database anyway."""

    async def work(opened: Database) -> str:
        vault = await open_vault(opened, settings_of())
        async with opened.reading() as tx:
            account = await tx.one(sql.operator_by_login, login=login)
        if account is None or account["second_factor"] is None:
            raise typer.BadParameter(f"There is no operator {login!r} with a second factor.")
        return accounts.code_of(vault, account, SystemClock().now())

    print(with_database(work, noting("operator code", login=login)))


@member_app.command("history")
def member_history(
    card: Annotated[str, typer.Argument(help="A card of the member.")],
    programme: Annotated[str, typer.Argument(help="Code of the programme.")] = "MER",
) -> None:
    """Print everything that changed a wallet's balance as CSV, the latest posted first, with the balance after it."""

    async def work(opened: Database) -> list[Row]:
        async with opened.snapshot() as tx:
            rows = await tx.all(lookup.sql.cards_by_number, numbers=[card])
            if not rows:
                raise typer.BadParameter(f"Nobody has the card {card!r}.")
            found = (await read_coalition(tx)).programme_by_code(programme)
            return [entry async for entry in history.whole(tx, rows[0]["member_id"], found.id)]

    # Noted before anything is shown: whoever reads it may stop after the first line.
    entries = with_database(work, noting("member history", card=card, programme=programme))
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["posted_at", "occurred_at", "transaction", "kind", "points", "balance"])
    for entry in entries:
        times, id = (entry["posted_at"].isoformat(), entry["occurred_at"].isoformat()), ids.show("txn", entry["transaction_id"])
        writer.writerow([*times, id, entry["kind"], entry["points"], entry["balance"]])


@member_app.command("forget")
def member_forget(members: Annotated[list[str], typer.Argument(help="Ids of members: mem_...")]) -> None:
    """Forget members as persons, for good: what is known of them, their logins, tokens and consents.

    An id that nobody has, as after a restored backup, is told and passed over.
    """
    settings = settings_of()
    if wrong := [text for text in members if ids.read("mem", text) is None]:
        raise typer.BadParameter(f"{wrong[0]!r} is no member's id; nobody was forgotten.")

    unknown: list[str] = []

    async def work(opened: Database) -> None:
        audit = Audit(opened, await open_vault(opened, settings), SystemClock())
        for text in members:
            member_id = ids.read("mem", text)
            assert member_id is not None
            async with opened.reading() as tx:
                known = await tx.one(lookup.sql.member_by_id, bucket=ids.bucket_of(member_id), member=member_id)
            if known is None:
                unknown.append(text)
                continue
            await opened.decided(partial(_forget, member_id=member_id, audit=audit, deed=noting("member forget", about=[text])))
            with suppress(OSError):  # nobody reads on, and the rest is forgotten all the same
                out.print(f"{text} is forgotten.")

    with_database(work, settings=settings)
    if unknown:
        raise SystemExit(f"gateway: no member has the id {', '.join(unknown)}.")


async def _forget(tx: Tx, member_id: UUID, audit: Audit, deed: Deed) -> None:
    """One member, and that it was forgotten: both or neither."""
    await forgetting.lock(tx, member_id)
    await forgetting.forget(tx, member_id, SystemClock().now())
    await audit.note_in(tx, deed)


@member_app.command("password")
def member_password(
    card: Annotated[str, typer.Argument(help="A card of the member.")],
    login: Annotated[str, typer.Argument(help="Login name.")],
) -> None:
    """Give a member a local account for apps, or a new password; prints the member's id. It is asked for, or GATEWAY_PASSWORD."""
    secret = _asked(f"Password for {login}: ")

    async def work(opened: Database) -> str:
        vault = await open_vault(opened, settings_of())
        async with opened.transaction() as tx:
            rows = await tx.all(lookup.sql.cards_by_number, numbers=[card])
            if not rows:
                raise typer.BadParameter(f"Nobody has the card {card!r}.")
            await accounts.set_password(tx, vault, "member", login, secret, rows[0]["member_id"], SystemClock().now())
            return ids.show("mem", rows[0]["member_id"])

    print(with_database(work, noting("member password", card=card)))
