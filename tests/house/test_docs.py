"""The commands and files that the documentation shows are real."""

import asyncio
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from base64 import urlsafe_b64decode
from pathlib import Path

import psycopg
import pytest

from gateway.access.issuers import read_issuers
from gateway.onboarding.partner_file import read_partner_file
from gateway.refusals import RefusalCode
from tests.house.test_embedded import Gateway
from tests.points import ENROL, ann_logs_in
from tests.world import World, log_in

ROOT = Path(__file__).parent.parent.parent


def test_the_guide_to_adding_a_partner_holds_word_for_word(dsn: str, tmp_path: Path) -> None:
    guide = (ROOT / "partners/README.md").read_text()
    file, connector = (re.sub(r"^   ", "", block, flags=re.M) for block in re.findall(r"```toml\n(.*?)```", guide, re.S))
    described = tmp_path / "cornerbakery" / "partner.toml"
    described.parent.mkdir()
    described.write_text(file + connector)
    partner = read_partner_file(described)
    assert (partner.code, partner.protocol, len(partner.stores), len(partner.contracts)) == ("cornerbakery", "rest_json", 1, 1)
    gateway = Gateway(tmp_path / "data")
    gateway.environment["DATABASE_URL"] = dsn
    created = gateway.run("coalition", "create", "--name", "Ours", "--currency", "USD")
    assert created.returncode == 0, created.stderr
    for _ in range(2):
        onboarded = gateway.run("partner", "onboard", str(described))
        assert onboarded.returncode == 0, onboarded.stderr
    assert "Corner Bakery" in gateway.run("partner", "list").stdout
    client = gateway.run("partner", "client", "cornerbakery").stdout
    assert "client_id=partner-cornerbakery" in client
    described.write_text(file.replace('"3" ', '"4" '))
    changed = gateway.run("partner", "onboard", str(described))
    assert changed.returncode != 0
    assert f"{described}:11: " in changed.stderr
    assert "published with earn_rate 3, not 4" in changed.stderr
    described.write_text(file.replace('"3" ', '"lots" '))
    told = gateway.run("partner", "onboard", str(described))
    assert told.returncode != 0
    assert f"{described}:11: earn_rate" in told.stderr
    assert "Traceback" not in told.stderr


def test_the_operators_commands_work_as_written(dsn: str, tmp_path: Path) -> None:
    text = (ROOT / "docs/operating.md").read_text()
    block = re.findall(r"```sh\n(.*?)```", text, re.S)[0]
    gateway = Gateway(tmp_path)
    gateway.environment |= {"DATABASE_URL": dsn, "GATEWAY_PASSWORD": "a long password"}
    for line in block.splitlines():
        if line == "gateway serve":
            gateway.start()
            gateway.stop()
            continue
        ran = gateway.run(*shlex.split(line)[1:])
        assert ran.returncode == 0, ran.stderr
    claims = gateway.run("token", "--operator", "olga", "--port", "8123").stdout.split(".")[1]
    assert json.loads(urlsafe_b64decode(claims + "=="))["iss"] == "http://127.0.0.1:8123"
    assert gateway.run("token", "--operator", "nobody").returncode != 0
    for command in ("verify", "verify --chain", "events"):
        assert f"`gateway {command}" in text
        ran = gateway.run(*command.split())
        assert ran.returncode == 0, ran.stdout
    with psycopg.connect(dsn) as connection:  # who looked at everybody's movements is noted
        noted = connection.execute("select result from audit_log where action = 'events' order by number").fetchall()
        assert noted == [("ASKED",), ("ok",)]


async def test_the_documents_that_partners_are_shown_work_as_written(world: World) -> None:
    await world.ask("grocer", ENROL, i={"externalId": "you"})
    await world.record("50.00", member={"externalId": "you"}, receipt="R-1")
    blocks = re.findall(r"```graphql\n(.*?)```", (ROOT / "docs/integrating.md").read_text(), re.S)
    assert blocks
    for block in blocks:
        block = block.replace("2026-11-02T12:00:00Z", world.clock.now().isoformat())
        payload = next(iter((await world.ask("grocer", block)).values()))
        assert payload, block
        assert (payload["errors"] if block.startswith("mutation") else []) == [], block


def test_every_code_of_a_refusal_is_told_with_what_to_do() -> None:
    table = (ROOT / "docs/integrating.md").read_text().split("### Refusals")[1].split("## Redemptions")[0]
    told = re.findall(r"`([A-Z_]+)`", table)
    assert sorted(told) == sorted(code.value for code in RefusalCode)


def test_every_page_that_is_linked_is_there() -> None:
    for page in (ROOT / "README.md", ROOT / "partners/README.md", *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_test_that_the_threat_model_names_is_there() -> None:
    named = set(re.findall(r"`(tests/[\w/.]+)`", (ROOT / "docs/security.md").read_text()))
    assert len(named) > 10
    assert [each for each in sorted(named) if not (ROOT / each).exists()] == []


def test_the_scopes_in_the_threat_model_are_those_of_the_code() -> None:
    from gateway.access.scopes import MEMBER, OPERATOR, PARTNER, ROLES

    text = (ROOT / "docs/security.md").read_text()
    catalogue = {(kind, *each) for kind, of_kind in (("partner", PARTNER), ("member", MEMBER), ("operator", OPERATOR)) for each in of_kind.items()}
    assert set(re.findall(r"^\| (partner|member|operator) \| `([\w:]+)` \| (.*) \|$", text, re.M)) == catalogue
    assert set(re.findall(r"^\| `(\w+)` \| ", text, re.M)) == set(ROLES)


async def test_what_the_guides_say_of_documents_factors_issuers_and_keys_works_as_written(world: World, tmp_path: Path) -> None:
    integrating, operating = ((ROOT / f"docs/{name}.md").read_text() for name in ("integrating", "operating"))
    gateway = Gateway(world.data_dir)
    gateway.environment |= {"DATABASE_URL": world.dsn, "GATEWAY_PASSWORD": "a long password"}
    app = tmp_path / "app"
    app.mkdir()
    (app / "me.graphql").write_text("query Me { me { id wallets { available } } }")
    commands = [line for kind in ("app", "documents") for line in re.findall(rf"```sh\n(gateway {kind} .*?)```", integrating, re.S)[0].splitlines()]
    assert len(commands) == 3
    for line in commands:
        ran = gateway.run(*shlex.split(line.replace("app/*.graphql", str(app / "me.graphql")))[1:])
        assert ran.returncode == 0, ran.stdout + ran.stderr
    id = next(iter(json.loads(ran.stdout)))
    await ann_logs_in(world)
    own = await log_in(world, "our-app", "com.example.our:/back", "ann", "ann's password")
    token = {"Authorization": f"Bearer {own}"}
    answer = await world.http.post("/graphql", json={"documentId": id}, headers=token)
    assert answer.json()["data"]["me"]["wallets"]
    (app / "bad.graphql").write_text("query { nothing }")
    (app / "operators.graphql").write_text("{ audit(first: 1) { nodes { action } } }")
    checked = gateway.run("documents", "check", *(str(app / f"{name}.graphql") for name in ("me", "bad", "operators")))
    assert checked.returncode == 1
    assert f"me.graphql: sound\n  id     {id}\n  needs  balance:read, profile:read\n" in checked.stdout
    assert "Cannot query field 'nothing'" in checked.stdout
    assert "Query.audit needs the scope audit:read, which the app cannot hold." in checked.stdout
    # Ids are of the bytes, wherever the file was written; what is no text, or no manifest, is told in words.
    (app / "windows.graphql").write_bytes(b"query Me {\r\n  me { id }\r\n}\r\n")
    of_bytes = hashlib.sha256((app / "windows.graphql").read_bytes()).hexdigest()
    assert f"id     sha256:{of_bytes}\n" in gateway.run("documents", "check", str(app / "windows.graphql")).stdout
    assert gateway.run("documents", "register", "our-app", str(app / "windows.graphql")).returncode == 0
    answer = await world.http.post("/graphql", json={"documentId": f"sha256:{of_bytes}"}, headers=token)
    assert answer.status_code == 200
    for name, content in (("latin.graphql", b"# caf\xe9"), ("cut.json", b"{"), ("list.json", b"[]"), ("deep.json", b'{"a": {"b": "c"}}')):
        (app / name).write_bytes(content)
        for command in (("check",), ("register", "our-app")):
            refused = gateway.run("documents", *command, str(app / name))
            assert (refused.returncode, "Traceback" in refused.stderr) == (2, False)
            assert name in re.sub(r"[│\s]", "", refused.stderr)
    (app / "nul.graphql").write_text("{ me { id } } # \0")
    for command in (("check",), ("register", "our-app")):
        refused = gateway.run("documents", *command, str(app / "nul.graphql"))
        assert (refused.returncode, "NUL" in refused.stdout + refused.stderr) == (1 if command == ("check",) else 2, True)
    for client, file in (("our-app", "operators"), ("nobodys-app", "me")):
        refused = gateway.run("documents", "register", client, str(app / f"{file}.graphql"))
        assert refused.returncode == 2
    assert await world.sql("select count(*) from trusted_document where text like '%audit%' or client_id = 'nobodys-app'") == [(0,)]
    for line in ("gateway operator create LOGIN --role support --role approver", "gateway operator factor LOGIN", "gateway issuer link ISSUER SUBJECT --operator LOGIN", "gateway keys rewrap"):
        assert line in operating + (ROOT / "docs/security.md").read_text()
        ran = gateway.run(*shlex.split(line.replace("LOGIN", "otto"))[1:])
        assert ran.returncode == 0, ran.stdout + ran.stderr
        if "factor" in line:
            assert ran.stdout.startswith("otpauth://totp/")
    for refused in (("x", "--role", "king"), (" otto",), ("",)):
        assert gateway.run("operator", "create", *refused).returncode == 2
    assert gateway.run("member", "password", "CARD-1", " ann ").returncode == 2
    described = tmp_path / "issuers.toml"
    described.write_text(re.findall(r"```toml\n(\[\[issuer.*?)```", operating, re.S)[0])
    assert [each.kind for each in read_issuers(described)] == ["operator"]
    log = await world.sql("select action, result from audit_log where actor_kind = 'command_line' order by number")
    registered, made = ["app register", *["documents register"] * 2], ["operator create", "operator factor", "issuer link", "keys rewrap"]
    assert [tuple(row) for row in log] == [
        *((each, result) for each in registered for result in ("ASKED", "ok")),
        *[("documents register", "ASKED")] * 3,  # which were refused
        *((each, result) for each in made for result in ("ASKED", "ok")),
    ]


@pytest.mark.parametrize(("given", "told"), [
    (("--jwks-uri", "not a url"), "GATEWAY_JWKS_HOSTS"),
    (("--jwks-uri", "http://keys.example/keys"), "GATEWAY_JWKS_HOSTS"),
    (("--jwks-uri", "https://elsewhere.example/keys"), "GATEWAY_JWKS_HOSTS"),
    (("--purpose", "\u202ekcab"), "purpose is 1 to 200 printable characters"),
    (("--purpose", " "), "purpose is 1 to 200 printable characters"),
    (("--purpose", "x" * 201), "purpose is 1 to 200 printable characters"),
])  # fmt: skip
async def test_a_client_that_could_not_serve_is_not_made_and_the_secrets_before_it_go_on(
    world: World, given: tuple[str, str], told: str
) -> None:
    gateway = Gateway(world.data_dir)
    gateway.environment |= {"DATABASE_URL": world.dsn, "GATEWAY_JWKS_HOSTS": "keys.example"}
    ran = gateway.run("partner", "client", "fuel", *given)
    assert ran.returncode != 0
    assert told in re.sub(r"[\s│]+", " ", ran.stderr)
    world.tokens.clear()
    assert (await world.post(await world.token("fuel"), "{ partner { code } }")).status_code == 200


async def test_a_password_is_read_from_a_pipe_and_a_short_one_makes_no_account(world: World) -> None:
    environment = os.environ | {"GATEWAY_DATA_DIR": str(world.data_dir), "DATABASE_URL": world.dsn}
    made = []
    for login, piped in (("piped", "a long password\n"), ("short", "short\n"), ("nothing", "")):
        command = [sys.executable, "-m", "gateway", "operator", "create", login]
        ran = await asyncio.to_thread(
            subprocess.run, command, input=piped, capture_output=True, text=True, env=environment, timeout=60
        )
        made.append((ran.returncode, ran.stderr.strip()))
    assert made == [(0, ""), *[(1, "gateway: A password has 10 to 1000 characters.")] * 2]
    assert await world.sql("select login from account where login in ('piped', 'short', 'nothing')") == [("piped",)]
