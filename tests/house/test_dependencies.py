"""Dependencies stand at or above the releases that fixed known holes, and our code has none that a scanner knows."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

# Design, section 10.
FLOORS = {
    "strawberry-graphql": (0, 327, 2),
    "graphql-core": (3, 3, 0),
    "starlette": (1, 3, 1),
    "python-multipart": (0, 0, 27),
    "authlib": (1, 7, 1),
    "joserfc": (1, 7, 3),
}


def locked() -> dict[str, tuple[int, ...]]:
    """Every dependency of the lock file, with its version."""
    found = re.findall(r"^([A-Za-z0-9_.-]+)==([0-9]+(?:\.[0-9]+)*)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    return {name.lower().replace("_", "-"): tuple(map(int, version.split("."))) for name, version in found}


@pytest.mark.parametrize("name", list(FLOORS))
def test_a_dependency_stands_at_or_above_the_release_that_fixed_its_known_holes(name: str) -> None:
    assert locked()[name] >= FLOORS[name]


def test_every_dependency_is_pinned_with_hashes_and_without_hosts() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert len(locked()) > 50
    assert "http" not in re.sub(r"^[a-z-]*http[a-z0-9-]*==|^graphql.*", "", text, flags=re.MULTILINE)
    for block in re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]:
        assert "--hash=sha256:" in block, block[:60]


def test_bandit_finds_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bandit", "-r", "gateway", "partners", "-f", "json", "-q", "-c", "pyproject.toml"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    report = json.loads(done.stdout)
    assert report["errors"] == []
    assert [(r["filename"], r["line_number"], r["test_id"], r["issue_text"]) for r in report["results"]] == []
    assert report["metrics"]["_totals"]["loc"] > 8_000
