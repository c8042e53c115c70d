"""The `gateway` command."""

import sys

from gateway.cipher import CannotOpen
from gateway.cli.accounts import operator_app
from gateway.cli.apps import app_app
from gateway.cli.coalition import coalition_app, partner_app
from gateway.cli.commands import app
from gateway.cli.documents import documents_app
from gateway.cli.issuers import issuer_app
from gateway.cli.keys import keys_app
from gateway.cli.members import card_app, member_app
from gateway.coalition.catalogue import NoCoalition
from gateway.database import DatabaseAway, PostedNothing, Stuck
from gateway.embedded import DatabaseDidNotStart, DatabaseFolderBusy
from gateway.events.outbox import BadCursor, OfAnotherServer
from gateway.migrate import DatabaseOutOfReach
from gateway.onboarding.partner_file import BadPartnerFile
from gateway.onboarding.partners import NotOnboarded
from gateway.refusals import Refused
from gateway.settings import BadSetting, read_settings

app.add_typer(coalition_app, name="coalition")
app.add_typer(partner_app, name="partner")
app.add_typer(operator_app, name="operator")
app.add_typer(member_app, name="member")
app.add_typer(card_app, name="card")
app.add_typer(keys_app, name="keys")
app.add_typer(issuer_app, name="issuer")
app.add_typer(app_app, name="app")
app.add_typer(documents_app, name="documents")

__all__ = ["app", "main"]


def main() -> None:
    """What a person can act on is told in a sentence, without a traceback."""
    try:
        " ".join(sys.argv).encode()
    except UnicodeEncodeError as error:
        sys.exit(f"gateway: an argument is not UTF-8: {error.object[max(error.start - 20, 0) : error.end + 20]!a}")
    try:
        app()
    except (
        BadCursor,
        BadSetting,
        CannotOpen,
        BadPartnerFile,
        DatabaseFolderBusy,
        DatabaseDidNotStart,
        OfAnotherServer,
        DatabaseAway,
        DatabaseOutOfReach,
        NotOnboarded,
        PostedNothing,
        Stuck,
    ) as error:
        sys.exit(f"gateway: {error}")
    except NoCoalition as error:
        settings = read_settings()
        where = "DATABASE_URL" if settings.database_url else f"the data folder {settings.data_dir.resolve()} (GATEWAY_DATA_DIR)"
        sys.exit(f"gateway: {error} It was looked for in {where}.")
    except OSError as error:
        if error.filename is None:
            raise
        sys.exit(f"gateway: {error.filename}: {error.strerror}")
    except Refused as refused:
        sys.exit(f"gateway: {refused.message}")
