"""Local accounts: operators and members with a password, and how what they began ends."""

import asyncio
import hmac
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import pyotp
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from gateway.access.revocations import revoke
from gateway.access.vault import Vault
from gateway.database import Row, Tx
from gateway.ids import new_id
from gateway.refusals import InputNotAccepted, StateConflict
from gateway.statements import load_queries
from gateway.texts import COMPOSED_MAX_LENGTH, check_text, composed, forms_of

sql = load_queries(__file__, "accounts.sql")

LOGIN_MAX_LENGTH = 200
PASSWORD_MIN_LENGTH, PASSWORD_MAX_LENGTH = 10, COMPOSED_MAX_LENGTH
FAILURES_MAX = 5
LOCKED = timedelta(minutes=15)

# OWASP's first choice for argon2id: 19 MiB, two passes, one lane (23 ms).
_hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
# Of thirty-two random bytes that nobody kept: checking it takes as long as checking anybody's.
_NOBODY = "$argon2id$v=19$m=19456,t=2,p=1$HOYfsmeaO7tq4iJNriQiyA$5QBlPIHoE4BjPAhI13pXRnVOoMHcOHW+HoGzzm6dESc"


@dataclass(frozen=True, slots=True)
class Account:
    """A local account; `member_id` is None for an operator."""

    account_id: UUID
    kind: str
    member_id: UUID | None
    roles: tuple[str, ...] = ()
    login: "Login | None" = None


async def account_named(tx: Tx, vault: Vault, login: str) -> tuple[Row | None, bytes]:
    """The account of a login name, if there is one, and the blind index that it is found by, or would be."""
    hashes = [vault.blind("login", form) for form in forms_of(login)]
    found = [(await tx.one(sql.account_by_login, login_hash=each), each) for each in hashes]
    return next((each for each in found if each[0] is not None), found[-1])


async def operator_named(tx: Tx, login: str) -> Row | None:
    """An operator's local account."""
    found = [await tx.one(sql.operator_by_login, login=form) for form in forms_of(login)]
    return next((row for row in found if row is not None), None)


@dataclass(frozen=True, slots=True)
class Login:
    """How a person proved who it is: when, and whether with two factors."""

    at: datetime
    strong: bool


async def set_password(
    tx: Tx, vault: Vault, kind: str, login: str, password: str, member_id: UUID | None, now: datetime, roles: Sequence[str] = ()
) -> UUID:
    """Create a local account, or give an existing one of the same person a new password.

    `roles` are an operator's; without any a new one is an admin, and one that is there keeps those it has.

    A new password ends what was begun with the one before: sessions, refresh tokens, access tokens.

    Raises InputNotAccepted, StateConflict when the login belongs to somebody else.
    """
    for form in forms_of(login):
        check_text(form, "login", LOGIN_MAX_LENGTH)
    before, login_hash = await account_named(tx, vault, login)
    if not all(PASSWORD_MIN_LENGTH <= len(form) <= PASSWORD_MAX_LENGTH for form in forms_of(password)):
        told = f"A password has {PASSWORD_MIN_LENGTH} to {PASSWORD_MAX_LENGTH} characters."
        raise InputNotAccepted(told, "password")
    if before is not None:
        await end_codes(tx, before["account_id"], now)  # before its account, in the order of `lock_logins`
    account_id: UUID | None = await tx.value(
        sql.store_account,
        account_id=new_id(),
        kind=kind,
        login=composed(login),
        login_hash=login_hash,
        password_hash=await asyncio.to_thread(_hasher.hash, composed(password)),
        member_id=member_id,
        roles=list(roles),
        created_at=now,
    )
    if account_id is None:
        raise StateConflict(f"The login {login!r} belongs to another account.")
    if before is not None:
        await end_logins(tx, before, now)
    return account_id


async def disable(tx: Tx, account: Row, now: datetime) -> None:
    """Neither a password nor an outside issuer opens the account, until it is given a new password; what was begun has ended."""
    await end_codes(tx, account["account_id"], now)  # before the account, in the order of `lock_logins`
    await tx.run(sql.disable_account, account_id=account["account_id"], at=now)
    await end_logins(tx, account, now)


async def lock_logins(tx: Tx, member_id: UUID) -> None:
    """Nobody logs in as this member until the transaction ends, and who tried to is forgotten.

    It comes before `consents.decide_alone`: a login locks its tries, its account and its member in this order; and who redeems a
    code, the code and then the account.
    """
    for row in await tx.all(sql.logins_of, member=member_id):
        await tx.run(sql.forget_login_failures, login_hash=row["login_hash"])
    await tx.run(sql.lock_codes_of, member=member_id)
    await tx.run(sql.lock_accounts_of, member=member_id)


async def forget_logins(tx: Tx, member_id: UUID, now: datetime) -> None:
    """A member's local accounts end, names and all, what was begun with them, and what outside issuers call the member."""
    await tx.run(sql.forget_identities, member=member_id)
    await revoke_subject(tx, member_id, now)
    for account in await tx.all(sql.end_accounts_of, member=member_id, at=now):
        await end_logins(tx, account, now)


async def end_logins(tx: Tx, account: Row, now: datetime) -> None:
    """Sessions, codes, refresh tokens and access tokens of an account end, within two seconds in every process."""
    await tx.run(sql.end_console_sessions, account_id=account["account_id"])
    # Codes first: one that is being redeemed is waited for, and what it began is seen then.
    await end_codes(tx, account["account_id"], now)
    for ended in await tx.all(sql.end_families, account_id=account["account_id"], ended_at=now):
        await revoke(tx, f"sid:{ended['family_id']}", now)
    await revoke_subject(tx, account["member_id"] or account["account_id"], now)


async def end_codes(tx: Tx, account_id: UUID, now: datetime) -> None:
    """No code of an account serves any more."""
    await tx.run(sql.end_codes, account_id=account_id, ended_at=now)


async def revoke_subject(tx: Tx, subject_id: UUID, now: datetime) -> None:
    """Every token of a subject that was issued before ends, within two seconds in every process."""
    await revoke(tx, f"sub:{subject_id}", now)


async def end_partner(tx: Tx, partner_id: UUID, now: datetime) -> None:
    """Every token of a partner that was issued before ends, those with which it acts for members too."""
    await revoke_subject(tx, partner_id, now)
    for client in await tx.all(sql.clients_of_partner, partner=partner_id):
        await revoke(tx, f"client:{client['client_id']}", now)


class LoginLocked(Exception):
    """Too many wrong passwords for this login; `minutes` until the next try counts."""

    def __init__(self, minutes: int) -> None:
        super().__init__(f"Too many wrong passwords. Try again in {minutes} minute{'' if minutes == 1 else 's'}.")
        self.minutes = minutes


async def check_login(tx: Tx, vault: Vault, login_hash: bytes, password: str, code: str, now: datetime) -> Account | None:
    """The account by its password and, of an operator, a code of its second factor; else None. `login_hash`: what `account_named`
    finds it by. Raises LoginLocked.

    An unknown login takes as long as a wrong password, and is locked after as many tries, so that neither is told apart: not by a
    right password in between either, so what is counted is the wrong ones of the last minutes, whatever else there was.
    """
    before = await tx.one(sql.login_failures, login_hash=login_hash, at=now)
    assert before is not None
    free_at = before["last_at"] + LOCKED
    failures = before["failures"] if now < free_at else 0
    if failures >= FAILURES_MAX:
        raise LoginLocked(math.ceil((free_at - now).total_seconds() / 60))
    row = await tx.one(sql.account_by_login, login_hash=login_hash)
    stored = (row["password_hash"] if row else None) or _NOBODY  # a disabled account has none
    if not await asyncio.to_thread(_is_right, stored, password):
        row = None
    strong = row is not None and (row["kind"] == "operator" or row["second_factor"] is not None)
    if row is not None and strong and not await _serves(tx, vault, row, code, now):
        row = None
    # Checking took its time: password or factor may be others by now, or the account disabled. All stays until the login is kept.
    if row is not None:
        factor = row["second_factor"]
        stands = await tx.value(sql.account_stands, account_id=row["account_id"], password_hash=stored, second_factor=factor)
        row = row if stands else None
    if row is None:
        await tx.run(sql.note_login_failure, login_hash=login_hash, failures=failures + 1, at=now)
        return None
    return account_of(row, Login(now, strong))


def _is_right(stored: str, password: str) -> bool:
    """Whether a password is the one whose hash is stored."""
    for form in reversed(forms_of(password)):
        with suppress(VerificationError, InvalidHashError):
            return _hasher.verify(stored, form)
    return False


def account_of(row: Row, login: Login | None) -> Account:
    """The account of a row."""
    return Account(row["account_id"], row["kind"], row["member_id"], tuple(row["roles"]), login)


async def set_second_factor(tx: Tx, vault: Vault, account_id: UUID) -> str:
    """Give an account a new TOTP secret (RFC 6238), in place of an earlier one; answers it, in base32."""
    secret = pyotp.random_base32()
    sealed = vault.seal("second_factor", secret.encode(), account_id.bytes)
    await tx.run(sql.set_second_factor, account_id=account_id, second_factor=sealed)
    return secret


def code_of(vault: Vault, row: Row, now: datetime) -> str:
    """The one-time code of an account with a second factor, as its authenticator app shows it at this moment."""
    return pyotp.TOTP(_secret(vault, row)).at(now)


def _secret(vault: Vault, row: Row) -> str:
    return vault.unseal("second_factor", row["second_factor"], row["account_id"].bytes).decode()


async def _serves(tx: Tx, vault: Vault, row: Row, code: str, now: datetime) -> bool:
    """Whether a code is right, now or one step of 30 seconds ago, and was not used before (RFC 6238, section 5.2)."""
    if row["second_factor"] is None:
        return False
    totp = pyotp.TOTP(_secret(vault, row))
    step = totp.timecode(now)
    for candidate in (step, step - 1):
        if candidate > row["factor_step"] and hmac.compare_digest(totp.generate_otp(candidate).encode(), code.encode()):
            await tx.run(sql.use_factor_step, account_id=row["account_id"], step=candidate)
            return True
    return False
