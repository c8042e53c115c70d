"""`gateway coalition` and `gateway partner`: who takes part."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from gateway.access import accounts, registration
from gateway.access.jwks import is_of
from gateway.cli.running import month_of, noting, out, settings_of, text_of, with_database
from gateway.clock import SystemClock
from gateway.coalition.catalogue import read_coalition, sql
from gateway.database import Database
from gateway.ids import show
from gateway.onboarding.partner_file import blamed, read_partner_file
from gateway.onboarding.partners import NotOnboarded, onboard_from_files
from gateway.onboarding.programmes import BACKDATING_DAYS, NewCoalition, NewProgramme, create_coalition, create_programme

coalition_app = typer.Typer(help="The coalition of this database.", no_args_is_help=True)
partner_app = typer.Typer(help="Partners: onboard them from their files, give them clients.", no_args_is_help=True)


@coalition_app.command("create")
def coalition_create(
    name: Annotated[str, typer.Option(help="What it is called.")],
    timezone: Annotated[str, typer.Option(help="Where its months begin: Europe/Vienna.")] = "UTC",
    currency: Annotated[str, typer.Option(help="What it settles in: EUR.")] = "EUR",
    programme: Annotated[str, typer.Option(help="Code of its shared point currency.")] = "MER",
    expires_after_months: Annotated[int | None, typer.Option(help="When its points run out; never if not given.")] = None,
    started_on: Annotated[str | None, typer.Option(help="First settlement month, 2026-10; this one if not given.")] = None,
    backdating_days: Annotated[
        int, typer.Option(help="How many days ago something may have occurred that is told now; its prices are of then.")
    ] = BACKDATING_DAYS,
) -> None:
    """Create the coalition with its shared programme; one database serves one."""

    async def work(opened: Database) -> None:
        first = month_of(started_on) if started_on else None
        async with opened.transaction() as tx:
            await create_coalition(tx, NewCoalition(name, timezone, currency, first, backdating_days), SystemClock().now())
            new = NewProgramme(programme, f"{name} points", "ledger", expires_after_months=expires_after_months)
            await create_programme(tx, new)

    with_database(work, noting("coalition create", name=name))
    out.print(f"Created {name}. Onboard its partners next: gateway partner onboard partners/*/partner.toml")


@partner_app.command("onboard")
def partner_onboard(
    files: Annotated[list[Path], typer.Argument(help="partner.toml files, each in a folder of the partner's code.")],
) -> None:
    """Onboard partners from their files, or bring them up to date; contracts that are published stay as they are."""
    described = [read_partner_file(file) for file in files]
    about: list[str] = []

    async def work(opened: Database) -> None:
        async with opened.transaction() as tx:
            try:
                about.extend(show("ptn", id) for id in await onboard_from_files(tx, described, SystemClock().now()))
            except NotOnboarded as error:
                raise blamed(files[[new.code for new in described].index(error.partner)], error) from None

    with_database(work, noting("partner onboard", about, partners=[new.code for new in described]))
    for new in described:
        out.print(f"{new.code}: {new.name}, {len(new.contracts)} contract(s), {len(new.stores)} store(s)")


@partner_app.command("client")
def partner_client(
    code: Annotated[str, typer.Argument(help="The partner's code.")],
    jwks: Annotated[Path | None, typer.Option(help="Public keys of the partner instead of a secret: a JWK Set file.")] = None,
    jwks_uri: Annotated[str | None, typer.Option(help="Where it publishes them, of a host in GATEWAY_JWKS_HOSTS.")] = None,
    dpop: Annotated[
        bool | None, typer.Option("--dpop/--no-dpop", help="Its tokens are bound to a key that it proves to hold (DPoP).")
    ] = None,
    redirect: Annotated[list[str] | None, typer.Option(help="Where members come back to whom it asks for consent.")] = None,
    no_redirect: Annotated[bool, typer.Option("--no-redirect", help="It asks members for nothing any more.")] = False,
    purpose: Annotated[str | None, typer.Option(help="For what it asks, on the consent page: 'to book your nights'.")] = None,
    secret: Annotated[bool, typer.Option("--secret", help="A new secret, also in the place of the partner's keys.")] = False,
    only: Annotated[bool, typer.Option("--only", help="A new secret, and every earlier one ends at once.")] = False,
) -> None:
    """Give a partner its OAuth client with a new secret, which is shown this once; or, with options, change the client it has.

    The secret before a new one goes on serving until the next one is made, so that a partner can change over; --only ends it.
    What no option changes stays as it was, secrets and keys, too.
    """

    if wrong := [uri for uri in redirect or () if not registration.is_redirect_uri(uri)]:
        raise typer.BadParameter(f"{wrong[0]!r} is no redirect URI, such as https://partner.example/back.")

    if (jwks is not None) + (jwks_uri is not None) + (secret or only) > 1:
        raise typer.BadParameter("A client has a secret, or keys, or publishes them: give one of --secret, --jwks, --jwks-uri.")
    if redirect and no_redirect:
        raise typer.BadParameter("Members come back somewhere, or are asked for nothing: give --redirect or --no-redirect.")
    changes = bool(redirect) or no_redirect or dpop is not None or purpose is not None
    keys = text_of(jwks) if jwks is not None else None

    settings = settings_of()
    if jwks_uri is not None and not _is_fetched(jwks_uri, settings.jwks_hosts):
        told = f"{jwks_uri!r} is no HTTPS address of a host in GATEWAY_JWKS_HOSTS ({', '.join(settings.jwks_hosts) or 'none'})."
        raise typer.BadParameter(told)

    about: list[str] = []

    async def work(opened: Database) -> tuple[str, str | None]:
        async with opened.transaction() as tx:
            coalition = await read_coalition(tx)
            found = next((p for p in coalition.partners.values() if p.code == code), None)
            if found is None:
                raise typer.BadParameter(f"There is no partner {code!r}.")
            about.append(show("ptn", found.id))
            now = SystemClock().now()
            known = await registration.registered(tx, code)
            client = (known or registration.Registered()).changed(dpop, () if no_redirect else redirect or None, purpose)
            bound, asks = client.dpop_bound, client.for_members
            if jwks_uri is not None:
                return await registration.create_published_client(tx, found.id, code, jwks_uri, bound, now, asks), None
            if keys is not None:
                return await registration.create_keyed_client(tx, found.id, code, keys, bound, now, asks), None
            if known is not None and changes and not (secret or only):
                return await registration.change_client(tx, found.id, code, client, now), None
            if client.is_keyed and not secret:
                raise typer.BadParameter(f"The client of {code!r} has keys of its own; --secret puts a secret in their place.")
            keep = 1 if only else registration.SECRETS_MAX
            return await registration.create_partner_client(tx, found.id, code, now, bound, keep, asks)

    deed = noting(
        "partner client", about, partner=code, jwks=keys is not None, jwks_uri=jwks_uri, dpop=dpop,
        redirect=[] if no_redirect else redirect, purpose=purpose, secret=secret, only=only,
    )  # fmt: skip
    client_id, made = with_database(work, deed, settings)
    print(f"client_id={client_id}" + (f"\nclient_secret={made}" if made else ""))


def _is_fetched(url: str, hosts: Sequence[str]) -> bool:
    try:
        return is_of(url, hosts)
    except ValueError:
        return False


@partner_app.command("suspend")
def partner_suspend(code: Annotated[str, typer.Argument(help="The partner's code.")]) -> None:
    """Shut a partner out: it gets no token, and the access tokens that it holds end within seconds, for good."""
    _set_status(code, "suspended")


@partner_app.command("admit")
def partner_admit(code: Annotated[str, typer.Argument(help="The partner's code.")]) -> None:
    """Let a partner in again that was suspended."""
    _set_status(code, "active")


def _set_status(code: str, status: str) -> None:
    about: list[str] = []

    async def work(opened: Database) -> None:
        async with opened.transaction() as tx:
            partner_id = await tx.value(sql.set_partner_status, code=code, status=status)
            if partner_id is None:
                raise typer.BadParameter(f"There is no partner {code!r}.")
            about.append(show("ptn", partner_id))
            if status == "suspended":
                await accounts.end_partner(tx, partner_id, SystemClock().now())

    with_database(work, noting(f"partner {status}", about, partner=code))
    out.print(f"{code} is {status}.")


@partner_app.command("list")
def partner_list() -> None:
    """List the partners with the contract in force today."""

    async def work(opened: Database) -> Table:
        async with opened.reading() as tx:
            coalition = await read_coalition(tx)
        today = coalition.day_of(SystemClock().now())
        table = Table("code", "name", "status", "since", title=f"{coalition.name}, prices in {coalition.settlement_currency}")
        for column in ("points\nper 1", "issue\nprice", "redeem\nprice"):
            table.add_column(column, justify="right")
        table.columns[0].no_wrap = table.columns[1].no_wrap = table.columns[3].no_wrap = True
        table.box, table.padding = SIMPLE_HEAD, 0
        for p in sorted(coalition.partners.values(), key=lambda p: p.code):
            c = coalition.contract_of(p.id, coalition.settlement_currency, today)
            terms = (c.valid_from, c.earn_rate, c.issue_price, c.redeem_price) if c else ("-",) * 4
            table.add_row(p.code, p.name, p.status, *map(str, terms))
        return table

    out.print(with_database(work))
