"""The vault: keys of the database itself, each for one purpose, wrapped by the configured key."""

import base64
import contextlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from gateway.cipher import Wrapping, blind, new_key, seal, unseal
from gateway.database import Database, Tx
from gateway.settings import FOLDER_MODE, Settings
from gateway.statements import load_queries

sql = load_queries(__file__, "vault.sql")

KEY_FILE = "encryption.key"
PURPOSES = ("audit", "second_factor", "signing", "email", "phone", "login")


class Vault:
    """Seals under the key of a purpose, and blinds what is looked for."""

    def __init__(self, wrapping: Wrapping, keys: dict[str, bytes]) -> None:
        self.wrapping, self._keys = wrapping, keys

    def seal(self, purpose: str, plain: bytes, about: bytes) -> bytes:
        """Encrypt for a purpose; `about` names the row."""
        return seal(self._keys[purpose], plain, about)

    def unseal(self, purpose: str, sealed: bytes, about: bytes) -> bytes:
        """Raises CannotOpen."""
        return unseal(self._keys[purpose], sealed, about)

    def blind(self, field: str, text: str) -> bytes:
        """What a text is looked for by; each field has a key of its own."""
        return blind(self._keys[field], text)


async def open_vault(database: Database, settings: Settings) -> Vault:
    """Unwrap the keys; those that are not there yet are made, and logins from before they were blinded are. Raises CannotOpen,
    DatabaseAway."""
    wrapping = Wrapping(wrapping_keys(settings))
    async with database.transaction() as tx:
        await tx.run(sql.lock_vault)
        kept = {row["purpose"]: row["wrapped"] for row in await tx.all(sql.vault_keys)}
        keys = {}
        for purpose in PURPOSES:
            if purpose in kept:
                keys[purpose] = wrapping.unwrap(kept[purpose], purpose.encode())
            else:
                keys[purpose] = new_key()
                wrapped = wrapping.wrap(keys[purpose], purpose.encode())
                await tx.run(sql.store_vault_key, purpose=purpose, wrapped=wrapped)
        vault = Vault(wrapping, keys)
        for row in await tx.all(sql.logins_to_blind):
            login, login_hash = row["login"], vault.blind("login", row["login"])
            await tx.run(sql.blind_login, account_id=row["account_id"], login=login, login_hash=login_hash)
    return vault


async def rewrap_vault(tx: Tx, wrapping: Wrapping) -> int:
    """Wrap the vault's keys under the first configured key; answers how many. Raises CannotOpen."""
    await tx.run(sql.lock_vault)
    rows = await tx.all(sql.vault_keys)
    for row in rows:
        about = row["purpose"].encode()
        wrapped = wrapping.wrap(wrapping.unwrap(row["wrapped"], about), about)
        await tx.run(sql.replace_vault_key, purpose=row["purpose"], wrapped=wrapped)
    return len(rows)


def wrapping_keys(settings: Settings) -> Sequence[bytes]:
    """The configured keys; where there are none, one that is made once and kept in the data folder, for its owner alone."""
    if settings.encryption_keys:
        return settings.encryption_keys
    path: Path = settings.data_dir / KEY_FILE
    settings.data_dir.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    if not path.exists():
        # Written whole and then given its name, so that nobody reads half a key, and the first of two makers wins.
        handle, made = tempfile.mkstemp(dir=settings.data_dir)
        with os.fdopen(handle, "wb") as file:
            file.write(base64.b64encode(new_key()))
        with contextlib.suppress(FileExistsError):
            os.link(made, path)
        os.unlink(made)
    return [base64.b64decode(path.read_bytes())]
