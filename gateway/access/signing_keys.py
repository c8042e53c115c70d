"""The keys that sign tokens and blocks: published in the database, their private parts sealed under the vault."""

from dataclasses import dataclass
from datetime import datetime

import orjson
from joserfc.jwk import ECKey

from gateway.access.revocations import revoke
from gateway.access.vault import Vault
from gateway.clock import Clock
from gateway.database import Database, Tx
from gateway.statements import load_queries

PURPOSE = "signing"

sql = load_queries(__file__, "signing_keys.sql")


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key of this gateway; `state` is next (published, not used yet), active, or retired (its public part alone)."""

    key: ECKey
    state: str
    created_at: datetime
    retired_at: datetime | None


async def load_signing_keys(database: Database, vault: Vault, clock: Clock) -> list[SigningKey]:
    """Every key that signs or has signed; the first ones are made where there are none. Raises CannotOpen, DatabaseAway."""
    async with database.transaction() as tx:
        await tx.run(sql.lock_signing_keys)
        await _seal_what_lies_open(tx, vault)
        states = {row["state"] for row in await tx.all(sql.key_states)}
        for state in ("active", "next"):
            if state not in states:
                await _make_key(tx, vault, state, clock.now())
        return await read_signing_keys(tx, vault)


async def read_signing_keys(tx: Tx, vault: Vault) -> list[SigningKey]:
    """Every key that signs or has signed. Raises CannotOpen."""
    found = []
    for row in await tx.all(sql.signing_keys):
        jwk = row["jwk"] if row["sealed"] is None else vault.unseal(PURPOSE, row["sealed"], row["key_id"].encode())
        found.append(SigningKey(ECKey.import_key(orjson.loads(jwk)), row["state"], row["created_at"], row["retired_at"]))
    return found


async def replace_signing_keys(tx: Tx, vault: Vault, now: datetime, long_ago: datetime) -> None:
    """Somebody else may have the keys: new ones sign and are published as next, and all before count as retired `long_ago`. What
    tokens were to follow from, somebody may have got with one of theirs, or a restored backup brought it back: it ends. The keys
    are revoked, too: until a process has read the new ones, nothing lasting follows from a token of an old one."""
    await tx.run(sql.wait_for_logins)  # in a statement of its own: those after it see what was waited for
    await tx.run(sql.end_all_sessions)
    await tx.run(sql.end_all_requests)
    await tx.run(sql.end_all_codes, ended_at=now)
    await tx.run(sql.end_all_families, ended_at=now)
    await tx.run(sql.lock_signing_keys)
    for row in await tx.all(sql.key_states):
        await revoke(tx, f"kid:{row['key_id']}", now)
    await rotate_signing_keys(tx, vault, now)
    await rotate_signing_keys(tx, vault, now)
    await tx.run(sql.end_retired_keys, retired_at=long_ago)


async def rotate_signing_keys(tx: Tx, vault: Vault, now: datetime) -> None:
    """The next key signs from now on and another one is published as next; the one that signed keeps its public part."""
    await tx.run(sql.lock_signing_keys)
    await tx.run(sql.retire_active_key, retired_at=now)
    await tx.run(sql.activate_next_key)
    await _make_key(tx, vault, "next", now)


async def _make_key(tx: Tx, vault: Vault, state: str, now: datetime) -> None:
    key = ECKey.generate_key("P-256", {"use": "sig", "alg": "ES256"}, private=True, auto_kid=True)
    await tx.run(sql.store_signing_key, key_id=key.kid, state=state, created_at=now, **_parts(vault, key))


async def _seal_what_lies_open(tx: Tx, vault: Vault) -> None:
    """Keys from before they were sealed (migration 0032)."""
    for row in await tx.all(sql.signing_keys):
        if row["sealed"] is None and row["state"] != "retired":
            key = ECKey.import_key(orjson.loads(row["jwk"]))
            await tx.run(sql.seal_signing_key, key_id=row["key_id"], **_parts(vault, key))


def _parts(vault: Vault, key: ECKey) -> dict[str, str | bytes]:
    private = orjson.dumps(key.as_dict(private=True))
    return {
        "jwk": orjson.dumps(key.as_dict(private=False)).decode(),
        "sealed": vault.seal(PURPOSE, private, str(key.kid).encode()),
    }
