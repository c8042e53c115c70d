"""Replays twelve months from nothing, times it, and holds the report against the independent calculation.

`make verify-year` runs it: about five minutes, most of which is the replay and the calculation.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests" / "journeys"))

from oracle import calculate  # noqa: E402

with tempfile.TemporaryDirectory(prefix="gateway-year-") as folder:
    Path(folder).chmod(0o755)
    environment = {**os.environ, "GATEWAY_DATA_DIR": f"{folder}/data", "GATEWAY_PORT": "8181"}
    gateway = [sys.executable, "-m", "gateway"]
    report = Path(folder) / "report.json"
    began = time.monotonic()
    subprocess.run([*gateway, "demo", "--months", "12", "--exit", "--report", str(report)], env=environment, check=True)
    seconds = time.monotonic() - began
    subprocess.run([*gateway, "verify"], env=environment, check=True)
    same = json.loads(report.read_text()) == calculate(12)
    print(f"The year took {seconds:.0f} s; the report {'agrees' if same else 'DOES NOT AGREE'} with the independent calculation.")
    sys.exit(0 if same else 1)
