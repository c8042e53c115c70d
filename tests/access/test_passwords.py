"""A password may hold whatever can be typed."""

import asyncio
import os
import subprocess
import sys
import unicodedata
from typing import Literal

import pytest

from gateway.access.accounts import as_typed
from gateway.refusals import InputNotAccepted, StateConflict
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


async def test_a_password_beyond_any_is_refused_and_never_composed(world: World) -> None:
    """Marks that are put in order take a time that grows with the square of how many there are."""
    member_id = (await world.sql("select member_id from card where number = 'CARD-1'"))[0][0]
    endless = "a" + "\u0301\u0323" * 20_000
    with pytest.raises(InputNotAccepted, match="10 to 1000 characters"):
        await world.set_password("zoe", endless, member_id)
    assert as_typed(endless) is endless


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
