"""Which database a command works on while a gateway runs, ends, or stays on the data folder."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from gateway import local
from gateway.embedded import DatabaseFolderBusy, EmbeddedPostgres
from gateway.settings import BadSetting, Settings, read_settings
from tests.house.test_embedded import Gateway

SMALL = {"shared_buffers": "16MB", "fsync": "off"}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    environ = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    return read_settings(environ | {"GATEWAY_DATA_DIR": str(tmp_path)})


@pytest.fixture
def running(settings: Settings) -> Iterator[EmbeddedPostgres]:
    """A server on the folder, as a gateway has it."""
    made = EmbeddedPostgres(settings.data_dir, SMALL)
    made.start()
    yield made
    made.stop()


def migrated(dsn: str) -> bool:
    with psycopg.connect(dsn) as connection:
        row = connection.execute("select to_regclass('purchase') is not null").fetchone()
        return bool(row and row[0])


def test_a_command_shares_the_server_of_a_running_gateway_and_leaves_it_running(
    settings: Settings, running: EmbeddedPostgres
) -> None:
    with local.database(settings) as dsn, psycopg.connect(dsn) as connection:
        connection.execute("select 1")
    with psycopg.connect(running.dsn) as connection:
        connection.execute("select 1")


def test_a_command_that_wants_the_folder_alone_waits_for_a_gateway_that_is_ending(
    settings: Settings, running: EmbeddedPostgres
) -> None:
    before = running.process_id
    ending = threading.Timer(1, running.stop)
    ending.start()
    try:
        with local.database(settings, alone=True) as dsn:
            assert running.process_id is None
            assert migrated(dsn)
            first_line = (Path(os.path.realpath(settings.data_dir / "postgres")) / "postmaster.pid").read_text().splitlines()[0]
            assert int(first_line) != before
    finally:
        ending.join()


def test_a_gateway_that_stays_is_named_and_keeps_its_folder(settings: Settings, running: EmbeddedPostgres) -> None:
    with pytest.raises(DatabaseFolderBusy, match=str(os.getpid())), local.database(settings, alone=True, patience=0.5):
        pytest.fail("the folder was given to two")
    with psycopg.connect(running.dsn) as connection:
        connection.execute("select 1")


def test_the_data_of_a_running_gateway_is_not_forgotten(settings: Settings, running: EmbeddedPostgres) -> None:
    before = sorted(os.listdir(os.path.realpath(settings.data_dir / "postgres")))
    with pytest.raises(DatabaseFolderBusy, match="Stop it"):
        EmbeddedPostgres(settings.data_dir).forget()
    assert sorted(os.listdir(os.path.realpath(settings.data_dir / "postgres"))) == before
    psycopg.connect(running.dsn).close()
    running.stop()
    EmbeddedPostgres(settings.data_dir).forget()
    assert not (settings.data_dir / "postgres").exists()


def test_a_port_that_is_taken_is_told_with_what_to_do(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        busy = replace(settings, port=taken.getsockname()[1])
        with pytest.raises(BadSetting, match="choose another with --port"):
            local.check_port(busy)
    local.check_port(busy)


def test_a_command_without_a_coalition_says_where_it_looked(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path / "elsewhere")
    ran = gateway.run("token", "--partner", "grocer")
    assert ran.returncode != 0
    assert f"It was looked for in the data folder {gateway.data_dir.resolve()} (GATEWAY_DATA_DIR)." in ran.stderr


def test_an_address_of_the_host_that_this_machine_does_not_have_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """As ::1 of localhost, where there is no IPv6; 203.0.113.1 is nobody's (RFC 5737)."""
    here, elsewhere = ((socket.AF_INET, socket.SOCK_STREAM, 0, "", (host, 0)) for host in ("127.0.0.1", "203.0.113.1"))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [elsewhere, here])
    (door,) = local.listen(read_settings({}))
    assert door.getsockname()[0] == "127.0.0.1"
    door.close()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [elsewhere])
    with pytest.raises(BadSetting, match="Cannot assign requested address"):
        local.listen(read_settings({}))


@pytest.mark.parametrize("name", ["a..b", ".", "a" * 70, "ü" * 64])
def test_what_is_no_name_of_a_host_is_told(name: str) -> None:
    with pytest.raises(BadSetting, match="no name of a host"):
        local.listen(read_settings({"GATEWAY_HOST": name}))


INTERRUPTED = """
import builtins
from gateway.__main__ import main
load = builtins.__import__
def interrupted(name, *more, **named):
    if name == "gateway.cli":
        raise KeyboardInterrupt
    return load(name, *more, **named)
builtins.__import__ = interrupted
main()
"""


def test_a_command_that_is_interrupted_while_it_is_loading_ends_without_a_word() -> None:
    ended = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")
