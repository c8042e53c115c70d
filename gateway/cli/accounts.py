"""`gateway operator` and `gateway member password`: local accounts."""

import getpass
import os
import sys
from typing import Annotated

import pyotp
import typer

from gateway import ids
from gateway.access import accounts
from gateway.access.audit import id_of
from gateway.access.scopes import ROLES
from gateway.access.vault import open_vault
from gateway.cli.members import member_app
from gateway.cli.running import noting, out, settings_of, with_database
from gateway.clock import SystemClock
from gateway.database import Database, Tx
from gateway.members import lookup
from gateway.texts import forms_of

operator_app = typer.Typer(help="Operators' local accounts.", no_args_is_help=True)


def _asked(prompt: str) -> str:
    """A password: GATEWAY_PASSWORD, or typed unseen, or the first line of what is piped in. It is no option: others see those."""
    try:
        given = os.environ.get("GATEWAY_PASSWORD")
        if not given and sys.stdin is not None:
            # Some shells put a byte order mark before what they pipe.
            given = getpass.getpass(prompt) if sys.stdin.isatty() else sys.stdin.readline().rstrip("\r\n").removeprefix("\ufeff")
        password = given or ""
        password.encode()
    except UnicodeError:  # its words hold the password
        raise typer.BadParameter("The password is not UTF-8; type it, or send it in that encoding.") from None
    return password


def _check_login(login: str) -> None:
    if not login or any(form != form.strip() for form in forms_of(login)):
        raise typer.BadParameter(f"A login name begins and ends with no space, and this is {login!r}.")


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
    _check_login(login)
    secret = _asked(f"Password for {login}: ")
    about: list[str] = []
    deed = noting("operator create", about, login=login, roles=roles)

    async def work(opened: Database) -> str | None:
        vault = await open_vault(opened, settings_of())

        async def make(tx: Tx) -> str | None:
            account_id = await accounts.set_password(tx, vault, "operator", login, secret, None, SystemClock().now(), roles)
            account = await accounts.operator_named(tx, login)
            assert account is not None  # it was made here
            about[:] = [id_of("operator", account_id)]
            deed.details["roles"] = list(account["roles"])
            return None if account["second_factor"] is not None else await accounts.set_second_factor(tx, vault, account_id)

        return await opened.decided(make)

    factor = with_database(work, deed)
    which = "this" if factor else "its"
    out.print(f"The operator {login} can log in at /graphiql, with a one-time code of {which} second factor.")
    if factor:
        print(_address_of(login, factor))


@operator_app.command("disable")
def operator_disable(login: Annotated[str, typer.Argument(help="Login name.")]) -> None:
    """Shut an operator out: no password opens the account, and every session and token of it ends within seconds."""
    about: list[str] = []

    async def work(opened: Database) -> None:
        async def disable(tx: Tx) -> None:
            account = await accounts.operator_named(tx, login)
            if account is None:
                raise typer.BadParameter(f"There is no operator {login!r}.")
            about[:] = [id_of("operator", account["account_id"])]
            await accounts.disable(tx, account, SystemClock().now())

        await opened.decided(disable)

    with_database(work, noting("operator disable", about, login=login))
    out.print(f"{login} is shut out. A new password lets it in again: gateway operator create {login}")


@operator_app.command("factor")
def operator_factor(login: Annotated[str, typer.Argument(help="Login name.")]) -> None:
    """Give an operator a new second factor (TOTP) in place of the one it has. Its sessions and tokens end.

    Prints the address that an authenticator app reads, this once.
    """
    about: list[str] = []

    async def work(opened: Database) -> str:
        vault = await open_vault(opened, settings_of())

        async def replace(tx: Tx) -> str:
            account = await accounts.operator_named(tx, login)
            if account is None:
                raise typer.BadParameter(f"There is no operator {login!r}.")
            about[:] = [id_of("operator", account["account_id"])]
            # The account first: a login that is under way is waited for, and ends with the others.
            made = await accounts.set_second_factor(tx, vault, account["account_id"])
            await accounts.end_logins(tx, account, SystemClock().now())
            return made

        return await opened.decided(replace)

    print(_address_of(login, with_database(work, noting("operator factor", about, login=login))))


@operator_app.command("code")
def operator_code(login: Annotated[str, typer.Argument(help="Login name.")]) -> None:
    """Print the one-time code of this moment, for local use; whoever can run this can read the database anyway."""
    about: list[str] = []

    async def work(opened: Database) -> str:
        vault = await open_vault(opened, settings_of())
        async with opened.reading() as tx:
            account = await accounts.operator_named(tx, login)
        if account is None or account["second_factor"] is None:
            raise typer.BadParameter(f"There is no operator {login!r} with a second factor.")
        about[:] = [id_of("operator", account["account_id"])]
        return accounts.code_of(vault, account, SystemClock().now())

    print(with_database(work, noting("operator code", about, login=login)))


@member_app.command("password")
def member_password(
    card: Annotated[str, typer.Argument(help="A card of the member.")],
    login: Annotated[str, typer.Argument(help="Login name.")],
) -> None:
    """Give a member a local account for apps, or a new password; prints the member's id. It is asked for, or GATEWAY_PASSWORD."""
    _check_login(login)
    secret = _asked(f"Password for {login}: ")
    about: list[str] = []

    async def work(opened: Database) -> str:
        vault = await open_vault(opened, settings_of())

        async def make(tx: Tx) -> str:
            rows = await tx.all(lookup.sql.cards_by_number, numbers=[card])
            if not rows:
                raise typer.BadParameter(f"Nobody has the card {card!r}.")
            await accounts.set_password(tx, vault, "member", login, secret, rows[0]["member_id"], SystemClock().now())
            about[:] = [ids.show("mem", rows[0]["member_id"])]
            return about[0]

        return await opened.decided(make)

    print(with_database(work, noting("member password", about, card=card)))
