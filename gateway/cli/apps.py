"""`gateway app`: the apps that members log in with."""

from typing import Annotated

import typer

from gateway.access.registration import APP_CLIENT, CONSOLE_CLIENT, is_redirect_uri, register_public_client
from gateway.access.scopes import MEMBER
from gateway.cli.running import noting, out, with_database
from gateway.clock import SystemClock
from gateway.database import Database

app_app = typer.Typer(help="The apps that members log in with.", no_args_is_help=True)
PARTNERS_PREFIX = "partner-"


@app_app.command("register")
def app_register(
    client: Annotated[str, typer.Argument(help="The app's client id: 2 to 40 lower-case letters, digits and hyphens.")],
    redirect: Annotated[list[str], typer.Option(help="Where members come back to after the login: com.example.app:/back.")],
    name: Annotated[str, typer.Option(help="What the login page calls it.")] = "The members' app",
) -> None:
    """Register an app, or change where its logins lead; it keeps no secret. Its documents: `gateway documents register`."""
    if not 2 <= len(client) <= 40 or not client.replace("-", "").isalnum() or client != client.lower() or not client.isascii():
        raise typer.BadParameter(f"{client!r} is no client id: 2 to 40 lower-case letters, digits and hyphens.")
    if client in (APP_CLIENT, CONSOLE_CLIENT, "gateway-token") or client.startswith(PARTNERS_PREFIX):
        raise typer.BadParameter(f"{client!r} is the gateway's own or a partner's; choose another.")
    if wrong := [uri for uri in redirect if not is_redirect_uri(uri)]:
        raise typer.BadParameter(f"{wrong[0]!r} is no redirect URI, such as com.example.app:/back or https://app.example/back.")

    async def work(opened: Database) -> None:
        async with opened.transaction() as tx:
            await register_public_client(tx, client, name, redirect, sorted(MEMBER), True, SystemClock().now())

    with_database(work, noting("app register", client=client, name=name, redirect=redirect))
    out.print(f"client_id={client}")
