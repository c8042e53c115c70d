"""A few rounds of `make faults`: killed at random moments under load, the ledger keeps its word."""

import subprocess
import sys

from tests.journeys.oracle import ROOT


def test_killed_under_load_every_answer_stays_and_every_invariant_holds() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "faults.py"), "2", "7"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 rounds; every invariant holds." in done.stdout
