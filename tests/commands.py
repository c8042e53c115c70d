"""The `gateway` command in a process of its own, forked from one that has imported it: most of its time is imports."""

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from subprocess import CompletedProcess, TimeoutExpired

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["gateway.cli"])


def run_command(arguments: tuple[str, ...], environment: Mapping[str, str], seconds: float) -> CompletedProcess[str]:
    """Run it to its end, as subprocess.run would. Raises TimeoutExpired."""
    with tempfile.TemporaryDirectory() as folder:
        said, complained = Path(folder, "stdout"), Path(folder, "stderr")
        process = _forks.Process(target=_main, args=(arguments, dict(environment), str(said), str(complained)))
        process.start()
        process.join(seconds)
        if process.exitcode is None:
            process.kill()
            raise TimeoutExpired(arguments, seconds)
        return CompletedProcess(arguments, process.exitcode, said.read_text(), complained.read_text())


def _main(arguments: tuple[str, ...], environment: dict[str, str], said: str, complained: str) -> None:
    for number, path in ((1, said), (2, complained)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["gateway", *arguments]
    from gateway.cli import main

    try:
        main()
    finally:
        sys.stdout.flush()
