"""`gateway documents`: what members' apps may send."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.access.registration import sql
from gateway.access.scopes import CEILING, DELEGABLE
from gateway.addresses import is_base
from gateway.cli.running import noting, text_of, with_database
from gateway.clock import SystemClock
from gateway.database import Database

if TYPE_CHECKING:  # the whole API is slow to import
    from gateway.http.engine import Engine, Prepared

documents_app = typer.Typer(help="Documents of members' apps, which send their ids alone.", no_args_is_help=True)
Files = Annotated[
    list[Path], typer.Argument(help="A document a .graphql file, or a .json manifest whose values are documents.", exists=True)
]


@documents_app.command("check")
def documents_check(files: Files) -> None:
    """Check documents against the schema and what members can allow an app, with no database: for the CI of an app.

    Prints their ids, scopes and costs; exit status 1 if the gateway would refuse one.
    """
    from gateway.http.documents import document_id

    engine, sound = _engine(), True
    for file, text in _texts(files):
        try:
            prepared = _prepare(engine, text, CEILING["member"])
        except _Refused as refused:
            sound = False
            print(f"{file}: refused\n  {refused}")
            continue
        apps = [[each for each in need if each <= CEILING["member"]] for need in prepared.needs]
        needs = sorted({" or ".join(" and ".join(sorted(each)) for each in need) for need in apps})
        cost = max(cost({}, {}) for cost in prepared.costs.values())
        print(f"{file}: sound\n  id     {document_id(text)}\n  needs  {', '.join(needs) or 'nothing'}\n  cost   {cost}")
    if not sound:
        raise typer.Exit(1)


@documents_app.command("register")
def documents_register(client: Annotated[str, typer.Argument(help="The app's client id: member-app.")], files: Files) -> None:
    """Register documents of an app; those of its earlier versions stay. Prints the ids as a JSON manifest."""
    from gateway.http.documents import register

    found = list(_texts(files))

    async def work(opened: Database) -> list[str]:
        async with opened.transaction() as tx:
            row = await tx.one(sql.oauth_client, client_id=client)
            # An outside issuer's clients, "https://idp.example app", are registered there; the issuer alone is that of its tokens
            # which name no client.
            if row is None and " " not in client and not is_base(client):
                raise typer.BadParameter(f"There is no client {client!r}: gateway app register")
            engine, scopes = _engine(), CEILING["member"]
            if row is not None:
                scopes = frozenset(row["scopes"]) | (DELEGABLE if row["partner_id"] is not None else frozenset())
            for file, text in found:
                try:
                    _prepare(engine, text, scopes)
                except _Refused as refused:
                    raise typer.BadParameter(f"{file}: {refused}") from None
            return await register(tx, client, [text for _, text in found], SystemClock().now())

    ids = with_database(work, noting("documents register", client=client, documents=len(found)))
    print(json.dumps(dict(zip(ids, [text for _, text in found], strict=True)), indent=2))


class _Refused(Exception):
    """The gateway would refuse a document; the text says why."""


def _engine() -> "Engine":
    from gateway.http.engine import Engine
    from gateway.schema import create_schema

    return Engine(create_schema())


def _prepare(engine: "Engine", text: str, scopes: frozenset[str]) -> "Prepared":
    """Raises _Refused, also where the client can never hold a scope that the document needs."""
    from gateway.http.errors import DocumentRefused
    from gateway.http.guard import missing

    if "\0" in text:
        raise _Refused("It holds NUL, which cannot be stored.")
    try:
        prepared = engine.prepare(text)
    except DocumentRefused as refused:
        raise _Refused(str(refused)) from None
    for field, need in missing(prepared.needs, scopes):
        wanted = " or ".join(" and ".join(sorted(each)) for each in need)
        raise _Refused(f"{field} needs the scope {wanted}, which the app cannot hold.")
    return prepared


def _texts(files: list[Path]) -> Iterator[tuple[Path, str]]:
    """The documents of files as they are, since their ids are those of the files' bytes. Raises typer.BadParameter."""
    for file in files:
        text = text_of(file)
        if file.suffix != ".json":
            yield file, text
            continue
        try:
            documents = list(json.loads(text).values())
        except (ValueError, AttributeError, RecursionError):
            documents = [None]
        if not all(isinstance(document, str) for document in documents):
            raise typer.BadParameter(f'{file} is no manifest such as {{"sha256:...": "query {{ ... }}"}}.')
        yield from ((file, document) for document in documents)
