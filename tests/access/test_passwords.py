"""A password may hold whatever can be typed."""

import asyncio
import os
import subprocess
import sys

import pytest

from tests.world import World, log_in

REDIRECT = "com.example.loyalty:/callback"


@pytest.mark.parametrize("password", ["correct\u3000horse battery", "family \U0001f468\u200d\U0001f469\u200d\U0001f467 of three", "tab\tand\u00a0no-break", "%25 & + = % and more"])
async def test_whoever_has_set_a_password_logs_in_with_it(world: World, password: str) -> None:
    member_id = (await world.sql("select member_id from card where number = 'CARD-1'"))[0][0]
    await world.set_password("zoe", password, member_id)
    assert await log_in(world, "member-app", REDIRECT, "zoe", password)


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
