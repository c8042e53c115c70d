"""Builds the GraphiQL page into console/dist."""

import subprocess
import sys
from pathlib import Path

from node import command

HERE = Path(__file__).parent


def npm(*arguments: str) -> None:
    """Run npm in console/; what it said is shown only when it failed."""
    wanted, environment = command("npm", *arguments)
    done = subprocess.run(wanted, cwd=HERE, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(wanted)} failed:\n{done.stdout}{done.stderr}")


npm("ci", "--no-audit", "--no-fund", "--ignore-scripts")
npm("run", "build")
