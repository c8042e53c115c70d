"""The demonstration from nothing, as a person runs it: the report against an independent calculation, after kill -9 too,
and the README's words against the gateway that is left."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import httpx
import psycopg
import pytest

from gateway.embedded import EmbeddedPostgres
from tests.conftest import open_folder
from tests.house.test_embedded import Gateway, alive, until
from tests.journeys.oracle import ROOT, calculate


def purchases(gateway: Gateway) -> int:
    """How many purchases the running replay has posted so far."""
    dsn = EmbeddedPostgres(gateway.data_dir).dsn
    try:
        with psycopg.connect(dsn) as connection:
            row = connection.execute("select count(*) from purchase").fetchone()
            return row[0] if row else 0
    except psycopg.Error:
        return 0


@pytest.fixture(scope="session")
def demo() -> Iterator[Gateway]:
    """One month replayed; the replay was killed in the middle and started again."""
    gateway = Gateway(open_folder() / "data")
    command = [sys.executable, "-m", "gateway", "demo", "--months", "1", "--exit", "--port", str(gateway.port)]
    first = subprocess.Popen(command, env=gateway.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log = gateway.data_dir / "gateway.log"
    assert until(lambda: log.exists() and "serving" in log.read_text(), 60)
    assert until(lambda: purchases(gateway) > 2_000, 60)
    first.kill()
    first.wait()
    report = gateway.data_dir / "report.json"
    done = gateway.run("demo", "--months", "1", "--exit", "--port", str(gateway.port), "--report", str(report), seconds=200)
    assert done.returncode == 0, done.stdout + done.stderr
    gateway.printed = done.stdout
    yield gateway
    gateway.stop()


def test_the_report_agrees_with_the_rules_to_the_cent_also_after_kill_9(demo: Gateway) -> None:
    assert json.loads((demo.data_dir / "report.json").read_text()) == calculate(1)


def test_it_prints_a_table_and_where_the_files_lie_and_leaves_nothing_running(demo: Gateway) -> None:
    assert "January 2017" in demo.printed
    assert "435,684" in demo.printed
    for code in ("greengrocer", "wellspring"):
        assert code in demo.printed
    assert str(demo.data_dir / "settlement") in demo.printed.replace("\n", "")
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{demo.port}/livez", trust_env=False)


def test_the_ledger_verifies_and_the_files_are_there(demo: Gateway) -> None:
    verified = demo.run("verify")
    assert verified.returncode == 0, verified.stdout
    assert "BROKEN" not in verified.stdout
    assert re.search(r"All \d\d invariants hold", verified.stdout)
    manifest = json.loads((demo.data_dir / "settlement/2017-01/manifest.json").read_text())
    assert len(manifest["files"]) == 18
    check = re.findall(r"```python\n(.*?)\n   ```", (ROOT / "docs/operating.md").read_text(), re.S)[0]
    run_check = [sys.executable, "-c", textwrap.dedent(check)]
    month = demo.data_dir / "settlement/2017-01"
    assert subprocess.run(run_check, cwd=month, capture_output=True, text=True, check=True).stdout == "[]\n"
    settled = demo.run("settle", "2017-01")
    assert json.loads((demo.data_dir / "settlement/2017-01/manifest.json").read_text()) == manifest
    assert "coalition" in settled.stdout


def test_the_readme_earns_a_point_in_the_words_it_uses(demo: Gateway) -> None:
    demo.start()
    text = (ROOT / "README.md").read_text()
    section = text[text.index("## A first purchase") : text.index("## Where to go next")]
    script = "\n".join(re.findall(r"```sh\n(.*?)```", section, re.S))
    script = script.replace(".venv/bin/gateway", f"{sys.executable} -m gateway")
    said = []
    for _ in range(2):
        ran = subprocess.run(
            ["bash", "-ec", script], env=demo.environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert ran.returncode == 0, ran.stderr
        said.append(ran.stdout)
    expected = json.loads(re.findall(r"```json\n(.*?)```", section, re.S)[0])
    for output in said:
        answers = [json.loads(line) for line in output.replace("}{", "}\n{").splitlines()]
        assert answers[0]["data"]["enrolMember"]["errors"] == []
        assert answers[1]["data"] == expected["data"]
        assert answers[1]["extensions"]["cost"]["actualQueryCost"] > 0
        assert answers[2]["token_type"] == "Bearer"
    demo.stop()


def test_the_integration_guide_names_every_scope_of_a_partner() -> None:
    from gateway.access.scopes import PARTNER

    guide = (ROOT / "docs/integrating.md").read_text()
    assert all(f"| `{scope}` |" in guide for scope in PARTNER)


def test_ctrl_c_ends_a_staying_demonstration_and_everything_it_started(demo: Gateway) -> None:
    command = [sys.executable, "-m", "gateway", "demo", "--months", "1", "--port", str(demo.port)]
    staying = subprocess.Popen(command, env=demo.environment, stdout=subprocess.PIPE, text=True)
    assert staying.stdout is not None
    seen = ""
    for line in staying.stdout:
        seen += line
        if "Ctrl-C" in line:
            break
    assert "log in as" in seen
    assert "settled before" in seen or "January 2017" in seen
    postgres = demo.postgres()
    staying.send_signal(signal.SIGINT)
    assert staying.wait(30) == 0
    assert until(lambda: not alive(postgres), 5)


def test_a_staying_demonstration_says_so_when_its_gateway_is_killed(demo: Gateway) -> None:
    command = [sys.executable, "-m", "gateway", "demo", "--months", "1", "--port", str(demo.port)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    staying = subprocess.Popen(command, env=demo.environment, text=True, **pipes)
    assert staying.stdout is not None
    assert any("Ctrl-C" in line for line in staying.stdout)
    served = [json.loads(line) for line in (demo.data_dir / "gateway.log").read_text().splitlines() if '"serving"' in line]
    os.kill(served[-1]["process"], signal.SIGKILL)
    assert staying.wait(30) != 0
    assert staying.stderr is not None
    assert "the gateway ended" in staying.stderr.read()
