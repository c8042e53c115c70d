"""The `gateway` command."""

import asyncio
import csv
import getpass
import json
import sys
from collections.abc import Awaitable, Callable
from datetime import date
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from gateway import ids
from gateway.access import accounts, tokens
from gateway.access.scopes import CEILING
from gateway.clock import SystemClock
from gateway.coalition import onboard
from gateway.coalition.catalogue import NoCoalition, read_coalition
from gateway.coalition.partner_file import BadPartnerFile, read_partner_file
from gateway.database import Database, DatabaseAway
from gateway.embedded import DatabaseDidNotStart, DatabaseFolderBusy
from gateway.events import outbox
from gateway.ledger import seal
from gateway.ledger.verify import verify as verify_ledger
from gateway.local import database
from gateway.logs import configure_logs
from gateway.members import lookup
from gateway.points import decimal_of_minor
from gateway.refusals import Refused
from gateway.settings import BadSetting, Settings, read_settings
from gateway.settlement import close
from gateway.settlement.statements import positions
from gateway.wallets import history

app = typer.Typer(
    help="The loyalty gateway: one API, one member identity, one ledger of points.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
coalition_app = typer.Typer(help="The coalition of this database.", no_args_is_help=True)
partner_app = typer.Typer(help="Partners: onboard them from their files, give them clients.", no_args_is_help=True)
operator_app = typer.Typer(help="Operators' local accounts.", no_args_is_help=True)
member_app = typer.Typer(help="Members' local accounts.", no_args_is_help=True)
app.add_typer(coalition_app, name="coalition")
app.add_typer(partner_app, name="partner")
app.add_typer(operator_app, name="operator")
app.add_typer(member_app, name="member")

BATCHES_AT_ONCE = 100
HOLD_EVENTS = ("hold", "release", "hold_expired")
out = Console()
T = TypeVar("T")


def _settings(port: int | None = None) -> Settings:
    settings = read_settings(port=port)
    configure_logs(settings.log_level, settings.log_format)
    return settings


def _with_database(work: Callable[[Database], Awaitable[T]], settings: Settings | None = None) -> T:
    """Run some work against the configured database, or the one of the data folder."""
    settings = settings or _settings()

    async def run(dsn: str) -> T:
        opened = Database(dsn, 2)
        await opened.open()
        try:
            return await work(opened)
        finally:
            await opened.close()

    with database(settings) as dsn:
        return asyncio.run(run(dsn))


@app.command()
def serve(port: Annotated[int | None, typer.Option(help="Port to listen on; GATEWAY_PORT if not given.")] = None) -> None:
    """Run the service until Ctrl-C, with an embedded PostgreSQL unless DATABASE_URL names another."""
    from gateway.server import serve as serve_gateway  # the whole API is slow to import, and few commands need it

    serve_gateway(_settings(port))


@app.command()
def migrate() -> None:
    """Bring the database to this version's schema; doing it again changes nothing."""
    _with_database(_nothing)
    out.print("The database is at this version's schema.")


async def _nothing(opened: Database) -> None:
    """`database` has migrated by now."""


@app.command()
def verify(
    chain: Annotated[bool, typer.Option("--chain", help="Walk the sealed blocks instead: hashes and signatures.")] = False,
) -> None:
    """Check every invariant of the ledger, or its sealed chain; exit status 1 if something is broken."""
    settings = _settings()

    async def walk(opened: Database) -> bool:
        clock = SystemClock()
        signer = tokens.Tokens(settings.base_url, await tokens.load_signing_keys(opened, clock), clock)
        blocks = transactions = 0
        sound = True
        async for height, count, fault in seal.verify_chain(opened, signer):
            if height:
                blocks, transactions = height, transactions + count
            if fault is not None:
                sound = False
                out.print(f"[bold red]BROKEN[/] {f'block {height}: ' if height else ''}{fault}")
        out.print(f"{blocks} blocks with {transactions:,} transactions{' hold.' if sound else '.'}")
        return sound

    async def work(opened: Database) -> bool:
        if chain:
            return await walk(opened)
        table = Table("", "invariant", "breaches", title="Integrity")
        sound = True
        async for check in verify_ledger(opened):
            sound &= check.holds
            mark = "[green]holds[/]" if check.holds else "[bold red]BROKEN[/]"
            details = "".join(f"\n[red]{example}[/]" for example in check.examples)
            table.add_row(mark, f"[bold]{check.name}[/]\n{check.sentence}{details}", str(check.breaches))
        out.print(table)
        return sound

    if not _with_database(work, settings):
        raise typer.Exit(1)


@app.command()
def events(
    after: Annotated[
        str, typer.Option(help="The last cursor that was seen; from the beginning if not given.")
    ] = outbox.BEGINNING,
) -> None:
    """Print what happened after a cursor, a JSON object a line, each with the cursor to go on from."""

    async def work(opened: Database) -> None:
        cursor = after
        while True:
            async with opened.reading() as tx:
                found = await outbox.read_events(tx, cursor, BATCHES_AT_ONCE)
            for event in found:
                subject = None
                if event.subject_id is not None:
                    subject = ids.show("hld" if event.kind in HOLD_EVENTS else "txn", event.subject_id)
                shown = {
                    "cursor": event.cursor,
                    "kind": event.kind,
                    "posted_at": event.posted_at.isoformat(),
                    "member": ids.show("mem", event.member_id),
                    "subject": subject,
                }
                print(json.dumps(shown))
            if not found:
                return
            cursor = found[-1].cursor

    _with_database(work)


@app.command()
def settle(month: Annotated[str, typer.Argument(help="The month to close and settle: 2026-10.")]) -> None:
    """Close a month, settle it and write its files; a closed month gives the same files again."""
    first_day = _month(month)
    settings = _settings()

    async def work(opened: Database) -> None:
        async with opened.reading() as tx:
            coalition = await read_coalition(tx)
        folder = settings.data_dir / "settlement"
        await close.close_period(opened, coalition, folder, first_day, SystemClock().now())
        async with opened.reading() as tx:
            settled = await close.read_settled(tx, coalition, first_day)
        table = Table("party", f"owes net, {settled.currency}", title=f"Positions of {month}")
        for position in positions(settled.statements, settled.currency):
            party = coalition.partners[position.party_id].code if position.party_id else "coalition"
            table.add_row(party, decimal_of_minor(position.net_minor))
        out.print(table)
        out.print(f"The files lie in {folder / month}.")

    _with_database(work, settings)


@app.command()
def token(
    partner: Annotated[str | None, typer.Option(help="Code of the partner to act as.")] = None,
    operator: Annotated[str | None, typer.Option(help="Login name of the operator to act as.")] = None,
    member: Annotated[str | None, typer.Option(help="Id of the member to act as: mem_...")] = None,
) -> None:
    """Print a token of five minutes for local use; whoever can run this can read the database anyway."""
    settings = _settings()

    async def work(opened: Database) -> str:
        clock = SystemClock()
        signer = tokens.Tokens(settings.base_url, await tokens.load_signing_keys(opened, clock), clock)
        async with opened.reading() as tx:
            if partner is not None:
                coalition = await read_coalition(tx)
                found = next((p for p in coalition.partners.values() if p.code == partner), None)
                subject = tokens.Subject("partner", found.id) if found else None
            elif operator is not None:
                row = await tx.one(tokens.sql.account_by_login, login=operator)
                subject = tokens.Subject("operator", row["account_id"]) if row and row["kind"] == "operator" else None
            else:
                member_id = ids.read("mem", member or "")
                subject = tokens.Subject("member", member_id) if member_id else None
        if subject is None:
            raise typer.BadParameter(f"There is no such partner, operator or member: {partner or operator or member}.")
        return signer.issue(subject, "gateway-token", CEILING[subject.kind], clock.now())

    if sum(given is not None for given in (partner, operator, member)) != 1:
        raise typer.BadParameter("Name one of --partner, --operator or --member.")
    print(_with_database(work, settings))


@app.command()
def schema() -> None:
    """Print the GraphQL schema, sorted, as schema.graphql holds it."""
    from gateway.schema import schema_text  # as above

    print(schema_text(), end="")


@app.command()
def demo(
    months: Annotated[int, typer.Option(help="Months of 2017 to replay.", min=1, max=12)] = 12,
    exit: Annotated[bool, typer.Option("--exit", help="Leave nothing running when the replay is done.")] = False,
    report: Annotated[Path | None, typer.Option(help="Write a JSON report of the replayed months to this file.")] = None,
    reset: Annotated[bool, typer.Option("--reset", help="Delete the data folder's demonstration first.")] = False,
    port: Annotated[int | None, typer.Option(help="Port of the gateway; GATEWAY_PORT if not given.")] = None,
) -> None:
    """Replay a year of real baskets through the API, month by month, and show what it settles to."""
    from gateway.demo.run import run_demo  # the data set is an optional extra

    run_demo(_settings(port), months=months, stay=not exit, report=report, reset=reset)


@coalition_app.command("create")
def coalition_create(
    name: Annotated[str, typer.Option(help="What it is called.")],
    timezone: Annotated[str, typer.Option(help="Where its months begin: Europe/Vienna.")] = "UTC",
    currency: Annotated[str, typer.Option(help="What it settles in: EUR.")] = "EUR",
    programme: Annotated[str, typer.Option(help="Code of its shared point currency.")] = "MER",
    expires_after_months: Annotated[int | None, typer.Option(help="When its points run out; never if not given.")] = None,
    started_on: Annotated[str | None, typer.Option(help="First settlement month, 2026-10; this one if not given.")] = None,
) -> None:
    """Create the coalition with its shared programme; one database serves one."""

    async def work(opened: Database) -> None:
        first = _month(started_on) if started_on else SystemClock().now().date().replace(day=1)
        async with opened.transaction() as tx:
            await onboard.create_coalition(tx, onboard.NewCoalition(name, timezone, currency, first))
            new = onboard.NewProgramme(programme, f"{name} points", "ledger", expires_after_months=expires_after_months)
            await onboard.create_programme(tx, new)

    _with_database(work)
    out.print(f"Created {name}. Onboard its partners next: gateway partner onboard partners/*/partner.toml")


@partner_app.command("onboard")
def partner_onboard(
    files: Annotated[list[Path], typer.Argument(help="partner.toml files, each in a folder of the partner's code.")],
) -> None:
    """Onboard partners from their files, or bring them up to date; contracts that are published stay as they are."""
    described = [read_partner_file(file) for file in files]

    async def work(opened: Database) -> None:
        async with opened.transaction() as tx:
            await onboard.onboard_from_files(tx, described, SystemClock().now())

    _with_database(work)
    for new in described:
        out.print(f"{new.code}: {new.name}, {len(new.contracts)} contract(s), {len(new.stores)} store(s)")


@partner_app.command("client")
def partner_client(code: Annotated[str, typer.Argument(help="The partner's code.")]) -> None:
    """Give a partner its OAuth client with a new secret, which is shown this once; an earlier secret ends."""

    async def work(opened: Database) -> tuple[str, str]:
        async with opened.transaction() as tx:
            coalition = await read_coalition(tx)
            found = next((p for p in coalition.partners.values() if p.code == code), None)
            if found is None:
                raise typer.BadParameter(f"There is no partner {code!r}.")
            return await accounts.create_partner_client(tx, found.id, code, SystemClock().now())

    client_id, secret = _with_database(work)
    print(f"client_id={client_id}\nclient_secret={secret}")


@partner_app.command("list")
def partner_list() -> None:
    """List the partners with the contract in force today."""

    async def work(opened: Database) -> Table:
        async with opened.reading() as tx:
            coalition = await read_coalition(tx)
        today = coalition.day_of(SystemClock().now())
        table = Table("code", "name", "status", "points per 1.00", "issue price", "redeem price", title=coalition.name)
        table.columns[0].no_wrap = table.columns[1].no_wrap = True
        for p in sorted(coalition.partners.values(), key=lambda p: p.code):
            c = coalition.contract_of(p.id, coalition.settlement_currency, today)
            prices = (str(c.earn_rate), str(c.issue_price), str(c.redeem_price)) if c else ("-", "-", "-")
            table.add_row(p.code, p.name, p.status, *prices)
        return table

    out.print(_with_database(work))


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

    _with_database(work)
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

    _with_database(work)


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

    print(_with_database(work))


def _month(text: str) -> date:
    try:
        return date.fromisoformat(f"{text}-01")
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a month such as 2026-10.") from None


def main() -> None:
    """What a person can act on is told in a sentence, without a traceback."""
    try:
        app()
    except (
        outbox.BadCursor,
        BadSetting,
        BadPartnerFile,
        DatabaseFolderBusy,
        DatabaseDidNotStart,
        NoCoalition,
        DatabaseAway,
    ) as error:
        sys.exit(f"gateway: {error}")
    except Refused as refused:
        sys.exit(f"gateway: {refused.message}")
