"""A password may hold whatever can be typed."""

import asyncio
import os
import subprocess
import sys
import unicodedata
from typing import Literal

import pyotp
import pytest
from argon2 import PasswordHasher

from gateway.access.accounts import disable, operator_named, set_second_factor
from gateway.database import Database
from gateway.refusals import InputNotAccepted, StateConflict
from gateway.texts import composed
from tests.access.test_oauth import authorization
from tests.world import OPERATOR_PASSWORD, World, log_in

REDIRECT = "com.example.loyalty:/callback"


@pytest.mark.parametrize("password", ["correct\u3000horse battery", "family \U0001f468\u200d\U0001f469\u200d\U0001f467 of three", "tab\tand\u00a0no-break", "%25 & + = % and more"])
async def test_whoever_has_set_a_password_logs_in_with_it(world: World, password: str) -> None:
    member_id = (await world.sql("select member_id from card where number = 'CARD-1'"))[0][0]
    await world.set_password("zoe", password, member_id)
    assert await log_in(world, "member-app", REDIRECT, "zoe", password)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
async def test_letters_are_the_same_however_a_keyboard_composes_them(world: World, form: Literal["NFC", "NFD"]) -> None:
    """NIST SP 800-63B, section 5.1.1.2; and nobody gets a login that looks like another's."""
    member_id = (await world.sql("select member_id from card where number = 'CARD-1'"))[0][0]
    login, password = "zo\u00eb", "ph\u1edf b\u00f2 t\u00e1i ch\u00edn"
    other = unicodedata.normalize("NFD" if form == "NFC" else "NFC", login)
    await world.set_password(unicodedata.normalize(form, login), unicodedata.normalize(form, password), member_id)
    assert await log_in(world, "member-app", REDIRECT, login, password)
    assert await log_in(world, "member-app", REDIRECT, unicodedata.normalize("NFD", login), unicodedata.normalize("NFD", password))
    with pytest.raises(StateConflict):
        await world.set_password(other, OPERATOR_PASSWORD)
    assert [tuple(row) for row in await world.sql("select kind, member_id from account where login is null")] == [("member", member_id)]


async def test_an_operator_from_before_letters_were_composed_is_found_as_it_types(world: World, database: Database) -> None:
    old, password = "jose\u0301", "a password\u00b2 of before"
    account = await world.set_password("somebody", OPERATOR_PASSWORD, roles=["admin"])
    vault, hashed = await world.vault(database), PasswordHasher().hash(password)
    changed = "update account set login = $2, login_hash = $3, password_hash = $4 where account_id = $1"
    await world.sql(changed, account, old, vault.blind("login", old), hashed)
    async with database.transaction() as tx:
        factor = await set_second_factor(tx, vault, account)
    query, _ = authorization(world)
    form = {"login": old, "password": password, "code": pyotp.TOTP(factor).at(world.clock.now())}
    assert (await world.http.post("/oauth/authorize", params=query, data=form)).status_code == 303
    assert await world.set_password(old, OPERATOR_PASSWORD) == account  # and no other one that looks alike
    async with database.transaction() as tx:
        found = await operator_named(tx, old)
        assert found is not None
        await disable(tx, found, world.clock.now())
    assert await world.sql("select disabled_at is null from account where account_id = $1", account) == [(False,)]


async def test_a_member_from_before_letters_were_composed_goes_on_as_it_types(world: World, database: Database) -> None:
    """Its name is kept nowhere, and its blind index is that of what it typed."""
    old, password = "zoe\u0308", "a password\u00b2 of before"
    member_id = (await world.sql("select member_id from card where number = 'CARD-1'"))[0][0]
    account = await world.set_password("somebody", password, member_id)
    login_hash, hashed = (await world.vault(database)).blind("login", old), PasswordHasher().hash(password)
    await world.sql("update account set login_hash = $2, password_hash = $3 where account_id = $1", account, login_hash, hashed)
    assert await log_in(world, "member-app", REDIRECT, old, password)
    assert await world.set_password(old, "another password", member_id) == account
    assert await log_in(world, "member-app", REDIRECT, old, "another password")


async def test_a_password_beyond_any_is_refused_and_never_composed(world: World) -> None:
    """Marks that are put in order take a time that grows with the square of how many there are."""
    member_id = (await world.sql("select member_id from card where number = 'CARD-1'"))[0][0]
    endless = "a" + "\u0301\u0323" * 20_000
    with pytest.raises(InputNotAccepted, match="10 to 1000 characters"):
        await world.set_password("zoe", endless, member_id)
    assert composed(endless) is endless
    for short in ("\ufdfa", "\u00b4"):  # of which eighteen characters, or a blank and a mark, are composed
        with pytest.raises(InputNotAccepted, match="10 to 1000 characters"):
            await world.set_password("zoe", short, member_id)
    with pytest.raises(InputNotAccepted, match="login must have 1 to 200"):
        await world.set_password("\ufdfa" * 190, OPERATOR_PASSWORD, member_id)


async def test_a_byte_order_mark_before_what_is_piped_is_none_of_the_password(world: World) -> None:
    typed = b"\xef\xbb\xbfcorrect horse battery\r\n"
    environment = {**os.environb, b"DATABASE_URL": world.dsn.encode(), b"GATEWAY_DATA_DIR": str(world.data_dir).encode()}
    command = [sys.executable, "-m", "gateway", "member", "password", "CARD-1", "zoe"]
    ran = await asyncio.to_thread(subprocess.run, command, env=environment, input=typed, capture_output=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert await log_in(world, "member-app", REDIRECT, "zoe", "correct horse battery")


@pytest.mark.parametrize("piped", [True, False])
async def test_a_password_that_is_not_utf_8_is_told_in_words_and_sets_nothing(world: World, piped: bool) -> None:
    typed = b"p\xe4ssw\xf6rter of some length"
    environment = {**os.environb, b"DATABASE_URL": world.dsn.encode(), b"GATEWAY_DATA_DIR": str(world.data_dir).encode()}
    environment |= {} if piped else {b"GATEWAY_PASSWORD": typed}
    ran = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-m", "gateway", "operator", "create", "hans"], env=environment, input=typed, capture_output=True, check=False
    )
    assert (ran.returncode, b"not UTF-8" in ran.stderr, b"Traceback" in ran.stderr) == (2, True, False), ran.stderr
    assert b"rter of" not in ran.stderr + ran.stdout
    assert await world.sql("select from audit_log where action = 'operator create'") == []
