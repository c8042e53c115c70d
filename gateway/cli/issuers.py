"""`gateway issuer`: identity providers of others."""

from typing import Annotated

import typer

from gateway.access.audit import id_of
from gateway.access.tokens import Subject
from gateway.cli.running import noting, out, settings_of, subject_named, with_database
from gateway.clock import SystemClock
from gateway.database import Database
from gateway.ids import named_in
from gateway.texts import check_text

issuer_app = typer.Typer(help="Identity providers of others whose tokens are trusted.", no_args_is_help=True)


@issuer_app.command("list")
def issuer_list() -> None:
    """List the issuers of GATEWAY_ISSUERS_FILE."""
    from gateway.access.issuers import read_issuers  # what speaks to others is slow to import

    path = settings_of().issuers_file
    for each in read_issuers(path) if path else []:
        out.print(f"{each.issuer}: {each.kind}s, {', '.join(sorted(each.ceiling))}")


@issuer_app.command("link")
def issuer_link(
    issuer: Annotated[str, typer.Argument(help="The issuer, as its tokens say it.")],
    subject: Annotated[str, typer.Argument(help="The subject there, as its tokens say it.")],
    partner: Annotated[str | None, typer.Option(help="Code of the partner that it is.")] = None,
    operator: Annotated[str | None, typer.Option(help="Login name of the operator that it is.")] = None,
    member: Annotated[str | None, typer.Option(help="Id of the member that it is: mem_...")] = None,
) -> None:
    """Say who a subject of an outside issuer is here."""

    from gateway.access.accounts import revoke_subject
    from gateway.access.issuers import NAME_MAX, sql

    for name, text in (("issuer", issuer), ("subject", subject)):
        check_text(text, name, NAME_MAX)

    about = named_in(member)
    # What an issuer calls a member is gone when the member is forgotten, and the audit log is not.
    deed = noting("issuer link", about, issuer=issuer, partner=partner, operator=operator, member=member)

    async def work(opened: Database) -> Subject:
        found = await subject_named(opened, partner, operator, member)
        about[:] = [id_of(found.kind, found.id)]
        async with opened.transaction() as tx:
            before = await tx.one(sql.identity_before, issuer=issuer, subject=subject)
            if "member" not in (found.kind, before and before["kind"]):
                deed.details["subject"] = subject
            if before is not None and before["subject_id"] != found.id:
                await revoke_subject(tx, before["subject_id"], SystemClock().now())  # who it was is looked up again at once
                about.append(id_of(before["kind"], before["subject_id"]))
            await tx.run(
                sql.link_identity, issuer=issuer, subject=subject, kind=found.kind, subject_id=found.id, at=SystemClock().now()
            )
        return found

    out.print(f"{subject} of {issuer} is a known {with_database(work, deed).kind} now.")


@issuer_app.command("unlink")
def issuer_unlink(
    issuer: Annotated[str, typer.Argument(help="The issuer, as its tokens say it.")],
    subject: Annotated[str, typer.Argument(help="The subject there, as its tokens say it.")],
) -> None:
    """A subject of an outside issuer is nobody here any more; its tokens serve two seconds more at most, and so do all others of
    whom it was, who logs in again."""

    from gateway.access.accounts import revoke_subject
    from gateway.access.issuers import sql

    about: list[str] = []
    deed = noting("issuer unlink", about, issuer=issuer)

    async def work(opened: Database) -> None:
        async with opened.transaction() as tx:
            was = await tx.one(sql.unlink_identity, issuer=issuer, subject=subject)
            if was is None:
                raise typer.BadParameter(f"{subject!r} of {issuer!r} is nobody here.")
            await revoke_subject(tx, was["subject_id"], SystemClock().now())
            about.append(id_of(was["kind"], was["subject_id"]))
            if was["kind"] != "member":
                deed.details["subject"] = subject

    with_database(work, deed)
    out.print(f"{subject} of {issuer} is nobody here any more.")
