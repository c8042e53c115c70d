"""`gateway documents`: what members' apps may send."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

from gateway.cli.running import noting, out, with_database
from gateway.clock import SystemClock
from gateway.database import Database

documents_app = typer.Typer(help="Documents of members' apps, which send their ids alone.", no_args_is_help=True)
Files = Annotated[
    list[Path], typer.Argument(help="A document a .graphql file, or a .json manifest whose values are documents.", exists=True)
]


@documents_app.command("check")
def documents_check(files: Files) -> None:
    """Check documents against the schema, with no database: for the CI of an app. Prints their ids, scopes and costs."""
    from gateway.http.documents import document_id
    from gateway.http.engine import DocumentRefused, Engine
    from gateway.schema import create_schema

    engine = Engine(create_schema())
    table = Table("file", Column("id", overflow="fold"), "needs", "cost", title="Documents")
    sound = True
    for file, text in _texts(files):
        try:
            prepared = engine.prepare(text)
            needs = sorted({" or ".join(" and ".join(sorted(each)) for each in need) for need in prepared.needs})
            cost = max(cost({}) for cost in prepared.costs.values())
            table.add_row(str(file), document_id(text), "\nand ".join(needs), str(cost))
        except DocumentRefused as refused:
            sound = False
            table.add_row(str(file), "[bold red]refused[/]", str(refused), "")
    out.print(table)
    if not sound:
        raise typer.Exit(1)


@documents_app.command("register")
def documents_register(client: Annotated[str, typer.Argument(help="The app's client id: member-app.")], files: Files) -> None:
    """Register documents of an app; those of its earlier versions stay. Prints the ids as a JSON manifest."""
    from gateway.http.documents import register
    from gateway.http.engine import DocumentRefused, Engine
    from gateway.schema import create_schema

    found, engine = list(_texts(files)), Engine(create_schema())
    for file, text in found:
        try:
            engine.prepare(text)
        except DocumentRefused as refused:
            raise typer.BadParameter(f"{file}: {refused}") from None

    async def work(opened: Database) -> list[str]:
        async with opened.transaction() as tx:
            return await register(tx, client, [text for _, text in found], SystemClock().now())

    ids = with_database(work, noting("documents register", client=client, documents=len(found)))
    print(json.dumps(dict(zip(ids, [text for _, text in found], strict=True)), indent=2))


def _texts(files: list[Path]) -> Iterator[tuple[Path, str]]:
    for file in files:
        text = file.read_text()
        if file.suffix == ".json":
            yield from ((file, document) for document in json.loads(text).values())
        else:
            yield file, text
