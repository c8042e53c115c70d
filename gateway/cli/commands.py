"""The commands without a group: serving, checking, settling, showing."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table
from rich.text import Text

from gateway import ids
from gateway.access.accounts import sql as account_sql
from gateway.access.audit import id_of
from gateway.access.scopes import CEILING, of_roles
from gateway.access.tokens import open_tokens
from gateway.cli.running import month_of, noting, out, settings_of, subject_named, with_database
from gateway.clock import SystemClock
from gateway.coalition.catalogue import read_coalition
from gateway.database import Database
from gateway.events import outbox
from gateway.ledger import seal
from gateway.ledger.verify import verify as verify_ledger
from gateway.points import decimal_of_minor
from gateway.settlement import close
from gateway.settlement.statements import positions

app = typer.Typer(
    help="The loyalty gateway: one API, one member identity, one ledger of points.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
BATCHES_AT_ONCE = 100
HOLD_EVENTS = ("hold", "release", "hold_expired")


@app.command()
def serve(port: Annotated[int | None, typer.Option(help="Port to listen on; GATEWAY_PORT if not given.")] = None) -> None:
    """Run the service until Ctrl-C, with an embedded PostgreSQL unless DATABASE_URL names another."""
    from gateway.server import serve as serve_gateway  # the whole API is slow to import, and few commands need it

    serve_gateway(settings_of(port))


@app.command()
def migrate() -> None:
    """Bring the database to this version's schema; doing it again changes nothing."""
    with_database(_nothing)
    out.print("The database is at this version's schema.")


async def _nothing(opened: Database) -> None:
    """`database` has migrated by now."""


@app.command()
def verify(
    chain: Annotated[
        bool, typer.Option("--chain", help="Walk the sealed blocks instead: hashes, signatures, and what they seal.")
    ] = False,
    known: Annotated[str, typer.Option(help="With --chain: a block that was there before, as an earlier run named it.")] = "",
) -> None:
    """Check every invariant of the ledger, or its sealed chain; exit status 1 if something is broken."""
    settings = settings_of()
    if known and not chain:
        raise typer.BadParameter("--known is compared with the sealed blocks: gateway verify --chain --known HEIGHT:HASH.")
    try:
        mark = seal.Mark.read(known) if known else None
    except ValueError:
        raise typer.BadParameter(f"{known!r} is no block: HEIGHT:HASH, as `gateway verify --chain` prints it.") from None

    async def walk(opened: Database) -> bool:
        clock = SystemClock()
        signer = await open_tokens(opened, settings, clock)
        blocks = transactions = 0
        sound = True
        async for height, count, fault in seal.verify_chain(opened, signer, mark):
            if height:
                blocks, transactions = height, transactions + count
            if fault is not None:
                sound = False
                out.print(Text.assemble(("BROKEN", "bold red"), f" {f'block {height}: ' if height else ''}{fault}"))
        out.print(f"{blocks} blocks with {transactions:,} transactions{' hold.' if sound else '.'}")
        if sound and (last := await seal.last_mark(opened)) is not None:
            out.print(f"Note the last one where nobody who owns this database can change it: --known {last}", soft_wrap=True)
        return sound

    async def work(opened: Database) -> bool:
        if chain:
            return await walk(opened)
        table = Table("", "invariant", "breaches", title="Integrity")
        broken = []
        async for check in verify_ledger(opened):
            if not check.holds:
                broken.append(check.name)
            mark = Text("holds", "green") if check.holds else Text("BROKEN", "bold red")
            examples = [(f"\n{example}", "red") for example in check.examples]
            told = Text.assemble((check.name, "bold"), f"\n{check.sentence}", *examples)
            table.add_row(mark, told, str(check.breaches))
        out.print(table)
        out.print(f"Broken: {', '.join(broken)}." if broken else f"All {table.row_count} invariants hold.")
        return not broken

    if not with_database(work, settings=settings):
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

    with_database(work, noting("events", after=after))


@app.command()
def settle(
    month: Annotated[str, typer.Argument(help="The month to close and settle: 2026-10.")],
    early: Annotated[bool, typer.Option("--early", help="Close it also while it runs.")] = False,
) -> None:
    """Close a month, settle it and write its files; a closed month gives the same files again."""
    first_day = month_of(month)
    settings = settings_of()

    async def work(opened: Database) -> None:
        async with opened.reading() as tx:
            coalition = await read_coalition(tx)
        folder = settings.data_dir / "settlement"
        await close.close_period(opened, coalition, folder, first_day, SystemClock().now(), early)
        async with opened.reading() as tx:
            settled = await close.read_settled(tx, coalition, first_day)
        table = Table("party", Column(f"owes net, {settled.currency}", justify="right"), title=f"Positions of {month}")
        for position in positions(settled.statements, settled.currency):
            party = coalition.partners[position.party_id].code if position.party_id else "coalition"
            table.add_row(party, decimal_of_minor(position.net_minor))
        out.print(table)
        out.print(f"The files lie in {folder / month}, with their SHA-256 digests in manifest.json.")
        out.print("`gateway verify` proves the ledger that they come from.")

    with_database(work, noting("settle", month=month, early=early), settings)


@app.command()
def token(
    partner: Annotated[str | None, typer.Option(help="Code of the partner to act as.")] = None,
    operator: Annotated[str | None, typer.Option(help="Login name of the operator to act as.")] = None,
    member: Annotated[str | None, typer.Option(help="Id of the member to act as: mem_...")] = None,
    port: Annotated[int | None, typer.Option(help="Port of the gateway it is for; GATEWAY_PORT if not given.")] = None,
) -> None:
    """Print a token of five minutes for local use, with all that its subject may hold; whoever can run this can read the database
    anyway."""
    settings = settings_of(port)
    about = ids.named_in(member)

    async def work(opened: Database) -> str:
        clock = SystemClock()
        signer = await open_tokens(opened, settings, clock)
        subject = await subject_named(opened, partner, operator, member)
        about[:] = [id_of(subject.kind, subject.id)]
        async with opened.reading() as tx:
            account = await tx.one(account_sql.account_by_id, account_id=subject.id) if subject.kind == "operator" else None
        scopes = CEILING[subject.kind] if account is None else of_roles(account["roles"])
        # Whoever can run this has shown more than two factors would.
        return signer.issue(subject, "gateway-token", scopes, clock.now(), strong_since=clock.now())

    deed = noting("token", about, partner=partner, operator=operator, member=member)
    print(with_database(work, deed, settings))


@app.command()
def schema(
    rights: Annotated[bool, typer.Option("--rights", help="The table of rights instead, as docs/rights.md holds it.")] = False,
) -> None:
    """Print the GraphQL schema, sorted, as schema.graphql holds it."""
    from gateway.http.rights import rights_table  # as above
    from gateway.schema import create_schema, schema_text

    print(rights_table(create_schema()._schema) if rights else schema_text(), end="")


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

    run_demo(settings_of(port), months=months, stay=not exit, report=report, reset=reset)
