"""The small coalition of most tests, founded once in a database that each of them copies."""

from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

from gateway.access import accounts, registration
from gateway.access.vault import KEY_FILE, open_vault
from gateway.coalition.catalogue import Coalition, read_coalition
from gateway.conversion.rates import NewRate, publish_rate
from gateway.database import Database
from gateway.onboarding.contracts import NewContract
from gateway.onboarding.partners import NewPartner, onboard_from_files, onboard_partner
from gateway.onboarding.programmes import NewCoalition, NewProgramme, create_coalition, create_programme
from gateway.settings import read_settings

NOW = datetime(2026, 10, 15, 12, 0, tzinfo=UTC)
OPERATOR_PASSWORD = "correct horse battery"
NOWHERE = "http://127.0.0.1:9"  # the port of a service that discards all it gets, and that nobody runs


def contract(earn: str, issue: str = "0.0100", redeem: str = "0.0080", fee: str = "0.015", conversion: str = "0") -> Any:
    return NewContract(
        "MER", "USD", date(2026, 1, 1), Fraction(earn), Decimal(issue), Decimal(redeem), Decimal(fee), Decimal(conversion)
    )


@dataclass(frozen=True)
class Founded:
    """The coalition of the tests in a database to copy, which takes a tenth of the time of founding it anew."""

    template: str
    clients: dict[str, tuple[str, str]]
    factors: dict[str, str]
    vault_key: bytes


async def describe_coalition(database: Database) -> Coalition:
    """The coalition's partners, programmes, contracts and rate, in an empty migrated database."""
    async with database.transaction() as tx:
        await create_coalition(tx, NewCoalition("Test", "America/New_York", "USD", date(2026, 1, 1), 400), NOW)
        airline = NewPartner("airline", "The Airline", "rest_json", NOWHERE)
        issuer = await onboard_partner(tx, airline, NOW)
        await create_programme(tx, NewProgramme("MER", "Points", "ledger", expires_after_months=6))
        await create_programme(tx, NewProgramme("SKY", "Miles", "partner", issuer_id=issuer))
        partners = [
            NewPartner("grocer", "The Grocer", stores=(("s1", "Main Street"),), contracts=(contract("1"),)),
            NewPartner("fuel", "The Fuel Station", contracts=(contract("1/2", "0.0095", "0.0078", "0.02"),)),
            NewPartner("airline", "The Airline", "rest_json", NOWHERE, contracts=(contract("0", "0", "0", "0", "0.0090"),)),
        ]
        await onboard_from_files(tx, partners, NOW)
        rate = NewRate("MER", "SKY", 200, 100, 200, 200, datetime(2026, 1, 1, tzinfo=UTC))
        await publish_rate(tx, await read_coalition(tx), rate)
        return await read_coalition(tx)


async def found_coalition(name: str, dsn: str, folder: Path) -> Founded:
    """Create the coalition in an empty migrated database."""
    database = Database(dsn, 2)
    await database.open()
    coalition = await describe_coalition(database)
    vault = await open_vault(database, read_settings({}, data_dir=folder))
    async with database.transaction() as tx:
        clients = {p.code: await registration.create_partner_client(tx, p.id, p.code, NOW) for p in coalition.partners.values()}
        olga = await accounts.set_password(tx, vault, "operator", "olga", OPERATOR_PASSWORD, None, NOW, ["admin"])
        factors = {"olga": await accounts.set_second_factor(tx, vault, olga)}
    await database.close()
    return Founded(name, clients, factors, (folder / KEY_FILE).read_bytes())
