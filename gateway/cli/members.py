"""`gateway member` and `gateway card`: a member's history, who is shut out where, what is forgotten and withdrawn."""

import csv
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Annotated
from uuid import UUID

import typer

from gateway import ids
from gateway.access import consents
from gateway.access.audit import Audit
from gateway.access.vault import open_vault
from gateway.cli.running import noting, out, settings_of, with_database
from gateway.clock import SystemClock
from gateway.coalition.catalogue import read_coalition
from gateway.database import Database, Row, Tx
from gateway.members.lookup import sql
from gateway.privacy import forgetting
from gateway.statements import Statement
from gateway.wallets import history

member_app = typer.Typer(help="Members: accounts, history, suspending, forgetting.", no_args_is_help=True)
card_app = typer.Typer(help="Cards that were lost or stolen.", no_args_is_help=True)

Card = Annotated[str, typer.Argument(help="Number of a card.")]
PartnerCode = Annotated[str, typer.Argument(help="Code of the partner.")]
ExternalId = Annotated[str, typer.Argument(help="The partner's own id of the member.")]


@card_app.command("block")
def card_block(card: Card) -> None:
    """Block a card: nobody is found by it any more, from now on. The member's other cards and points stay."""
    _set_card(card, "blocked")


@card_app.command("admit")
def card_admit(card: Card) -> None:
    """Let a card be used again that was blocked."""
    _set_card(card, "active")


@member_app.command("suspend")
def member_suspend(partner: PartnerCode, external_id: ExternalId) -> None:
    """Suspend a member at a partner: nothing is begun for it there, from now on. Elsewhere it goes on."""
    _set_membership(partner, external_id, "suspended")


@member_app.command("admit")
def member_admit(partner: PartnerCode, external_id: ExternalId) -> None:
    """Let a member in again that was suspended at a partner."""
    _set_membership(partner, external_id, "active")


def _set_card(number: str, status: str) -> None:
    _set_status(f"card {status}", f"Nobody has the card {number!r}.", sql.set_card_status, number=number, status=status)
    out.print(f"{number} is {status}.")


def _set_membership(partner: str, external_id: str, status: str) -> None:
    unknown = f"The partner {partner!r} knows nobody as {external_id!r}."
    set_status = partial(_set_status, f"member {status}", unknown, sql.set_membership_status)
    set_status(partner=partner, external_id=external_id, status=status)
    out.print(f"{external_id} of {partner} is {status}.")


def _set_status(action: str, unknown: str, statement: Statement, **named: str) -> None:
    """The change, and that it was made: both or neither. Raises typer.BadParameter, which says who is `unknown`."""
    settings = settings_of()

    async def work(opened: Database) -> None:
        audit = Audit(opened, await open_vault(opened, settings), SystemClock())

        async def change(tx: Tx) -> None:
            member_id = await tx.value(statement, **named)
            if member_id is None:
                raise typer.BadParameter(unknown)
            await audit.note_in(tx, noting(action, about=[ids.show("mem", member_id)], **named))

        await opened.decided(change)

    with_database(work, settings=settings)


@member_app.command("history")
def member_history(
    card: Annotated[str, typer.Argument(help="A card of the member.")],
    programme: Annotated[str, typer.Argument(help="Code of the programme.")] = "MER",
) -> None:
    """Print everything that changed a wallet's balance as CSV, the latest posted first, with the balance after it."""
    about: list[str] = []

    async def work(opened: Database) -> list[Row]:
        async with opened.snapshot() as tx:
            rows = await tx.all(sql.cards_by_number, numbers=[card])
            if not rows:
                raise typer.BadParameter(f"Nobody has the card {card!r}.")
            about.append(ids.show("mem", rows[0]["member_id"]))
            found = (await read_coalition(tx)).programme_by_code(programme)
            return [entry async for entry in history.whole(tx, rows[0]["member_id"], found.id)]

    # Noted before anything is shown: whoever reads it may stop after the first line.
    entries = with_database(work, noting("member history", about, card=card, programme=programme))
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

    async def forget(tx: Tx, member_id: UUID) -> Sequence[str] | None:
        known = await tx.one(sql.member_by_id, bucket=ids.bucket_of(member_id), member=member_id)
        if known is None:
            return None
        await forgetting.lock(tx, member_id)
        await forgetting.forget(tx, member_id, SystemClock().now())
        return [ids.show("mem", member_id)]

    _one_by_one("mem", members, forget, "member forget", "is forgotten")


@member_app.command("withdraw")
def member_withdraw(given: Annotated[list[str], typer.Argument(metavar="CONSENTS...", help="Ids of consents: cns_...")]) -> None:
    """Withdraw consents in their members' stead; what partners got under them ends within seconds.

    An id that no consent has, as after a restored backup, is told and passed over.
    """

    async def withdraw(tx: Tx, consent_id: UUID) -> Sequence[str] | None:
        found = await consents.consent_by_id(tx, consent_id)
        if found is None:
            return None
        await consents.withdraw(tx, found.member_id, consent_id, SystemClock().now())
        return [ids.show("mem", found.member_id), ids.show("cns", consent_id), ids.show("ptn", found.partner_id)]

    _one_by_one("cns", given, withdraw, "member withdraw", "is withdrawn")


def _one_by_one(
    kind: str, texts: Sequence[str], act: Callable[[Tx, UUID], Awaitable[Sequence[str] | None]], action: str, done: str
) -> None:
    """Do something to each, and note whom it was about, as `act` answers: both or neither. Of None it was about nobody."""
    settings = settings_of()
    if wrong := [text for text in texts if ids.read(kind, text) is None]:
        raise typer.BadParameter(f"{wrong[0]!r} is no id that begins with {kind}_; nothing was done.")
    unknown: list[str] = []

    async def work(opened: Database) -> None:
        audit = Audit(opened, await open_vault(opened, settings), SystemClock())

        async def one(tx: Tx, id: UUID) -> bool:
            about = await act(tx, id)
            if about is not None:
                await audit.note_in(tx, noting(action, about=about))
            return about is not None

        for text in texts:
            id = ids.read(kind, text)
            assert id is not None
            if not await opened.decided(partial(one, id=id)):
                unknown.append(text)
                continue
            with suppress(OSError):  # nobody reads on, and the rest is done all the same
                out.print(f"{text} {done}.")

    with_database(work, settings=settings)
    if unknown:
        raise SystemExit(f"gateway: there is no {', '.join(unknown)}.")
