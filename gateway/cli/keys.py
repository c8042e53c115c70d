"""`gateway keys`: the keys that sign tokens and blocks."""

from datetime import timedelta
from typing import Annotated

import typer
from rich.table import Column, Table

from gateway.access import signing_keys
from gateway.access.tokens import RETIRED_SECONDS
from gateway.access.vault import open_vault, rewrap_vault
from gateway.cli.running import noting, out, settings_of, with_database
from gateway.clock import SystemClock
from gateway.database import Database, Tx

keys_app = typer.Typer(help="The keys that sign tokens and blocks.", no_args_is_help=True)


@keys_app.command("list")
def keys_list() -> None:
    """List the keys: next (published, not used yet), active, and retired (public part alone, to check what they signed)."""

    async def work(opened: Database) -> Table:
        table = Table(Column("key", overflow="fold"), "state", "made", "retired", title="Signing keys")
        for each in await signing_keys.load_signing_keys(opened, await open_vault(opened, settings_of()), SystemClock()):
            made, retired = (f"{at:%Y-%m-%d %H:%M}" if at else "" for at in (each.created_at, each.retired_at))
            table.add_row(str(each.key.kid), each.state, made, retired)
        return table

    out.print(with_database(work))


@keys_app.command("rotate")
def keys_rotate(
    leaked: Annotated[bool, typer.Option(help="Somebody may have the keys: they all end, and every token and login.")] = False,
) -> None:
    """Sign with the next key from now on, in every process within two seconds; what the old key signed stays good."""

    async def work(opened: Database) -> None:
        vault, now = await open_vault(opened, settings_of()), SystemClock().now()
        await signing_keys.load_signing_keys(opened, vault, SystemClock())

        async def rotate(tx: Tx) -> None:
            if leaked:
                await signing_keys.replace_signing_keys(tx, vault, now, now - timedelta(seconds=RETIRED_SECONDS))
            else:
                await signing_keys.rotate_signing_keys(tx, vault, now)

        await opened.decided(rotate)

    with_database(work, noting("keys rotate", leaked=leaked))
    ended = " Every token and login has ended; the old keys count as retired ten minutes ago." if leaked else ""
    out.print(f"Rotated.{ended} `gateway keys list` shows the keys.")


@keys_app.command("rewrap")
def keys_rewrap() -> None:
    """Encrypt every key in the database under the first key of GATEWAY_ENCRYPTION_KEY; then the others can be left out."""

    from gateway.privacy.people import rewrap_people  # what numbers and addresses look like is slow to import

    async def work(opened: Database) -> int:
        wrapping = (await open_vault(opened, settings_of())).wrapping
        async with opened.transaction() as tx:
            return await rewrap_vault(tx, wrapping) + await rewrap_people(tx, wrapping)

    out.print(f"{with_database(work, noting('keys rewrap'))} keys are wrapped by the first key now.")
