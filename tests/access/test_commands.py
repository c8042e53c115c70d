"""What the commands do to clients, operators and keys, and what they say of what they cannot read."""

import subprocess
import sys
from pathlib import Path

import orjson
from joserfc.jwk import ECKey

from gateway.access.scopes import ROLES
from tests.founding import OPERATOR_PASSWORD
from tests.house.test_embedded import Gateway
from tests.world import World, said_by


async def test_the_command_line_suspends_and_admits_and_keeps_what_a_client_was_registered_with(world: World) -> None:
    gateway = Gateway(world.data_dir)
    gateway.environment |= {"DATABASE_URL": world.dsn, "GATEWAY_PASSWORD": OPERATOR_PASSWORD}
    for command in (
        "partner client fuel --dpop --redirect https://fuel.example/back --purpose saving",
        "partner client fuel",
        "partner suspend grocer",
        "operator create eve --role support",
        "operator factor eve",
        "operator code eve",
        "token --operator eve",
        "operator disable eve",
        "keys rotate --leaked",
    ):
        ran = gateway.run(*command.split())
        assert ran.returncode == 0, ran.stderr
        if command == "operator code eve":
            assert ran.stdout.strip().isdigit()
        if command == "token --operator eve":
            assert set(said_by(ran.stdout.strip())["scope"].split()) == ROLES["support"]
    shut_out = gateway.run("token", "--operator", "eve")
    assert (shut_out.returncode, shut_out.stdout) == (2, "")
    assert "'eve' is shut out" in " ".join(shut_out.stderr.replace("│", "").split())
    gone = await world.sql("select from signing_key where state = 'retired' and retired_at <= now() - interval '10 minutes'")
    assert (len(gone), len(await world.sql("select from signing_key where state <> 'retired'"))) == (2, 2)
    kept = (await world.sql("select dpop_bound, redirect_uris, purpose from oauth_client where client_id = 'partner-fuel'"))[0]
    assert tuple(kept) == (True, ["https://fuel.example/back"], "saving")
    assert gateway.run("partner", "client", "fuel", "--no-dpop").returncode == 0
    assert (await world.sql("select dpop_bound from oauth_client where client_id = 'partner-fuel'"))[0][0] is False
    asked = {"data": {"grant_type": "client_credentials"}, "auth": world.clients["grocer"]}
    assert (await world.http.post("/oauth/token", **asked)).status_code == 401  # type: ignore[arg-type]
    assert gateway.run("partner", "admit", "grocer").returncode == 0
    assert (await world.http.post("/oauth/token", **asked)).status_code == 200  # type: ignore[arg-type]
    assert gateway.run("partner", "suspend", "nobody").returncode != 0
    assert gateway.run("operator", "disable", "nobody").returncode != 0
    for elsewhere in ("http://evil.example/x", "javascript:alert(1)", "https:///x", "com.example:/x#y"):
        assert gateway.run("app", "register", "ours", "--redirect", elsewhere).returncode != 0
        assert gateway.run("partner", "client", "fuel", "--redirect", elsewhere).returncode != 0
    assert gateway.run("app", "register", "ours", "--redirect", "http://127.0.0.1:3000/back", "--redirect", "com.ours:/x").returncode == 0
    (world.data_dir / "bad.graphql").write_text("query { nothing }")
    refused = gateway.run("documents", "register", "member-app", str(world.data_dir / "bad.graphql"))
    assert refused.returncode != 0
    assert (await world.sql("select count(*) from trusted_document where text like '%nothing%'"))[0][0] == 0


async def test_what_a_client_shows_who_it_is_with_stays_unless_a_command_says_otherwise(world: World) -> None:
    gateway = Gateway(world.data_dir)
    gateway.environment |= {"DATABASE_URL": world.dsn}
    (world.data_dir / "keys.json").write_text(orjson.dumps({"keys": [ECKey.generate_key("P-256").as_dict(private=False)]}).decode())
    (world.data_dir / "binary.der").write_bytes(b"\x30\x82\xff")

    async def registered() -> tuple[bool, int]:
        (row,) = await world.sql(
            "select jwks is not null, (select count(*) from oauth_secret s where s.client_id = c.client_id and ended_at is null)"
            "  from oauth_client c where client_id = 'partner-fuel'"
        )
        return tuple(row)

    for options, ends, expected in (
        ("--purpose saving", 0, (False, 1)),  # its secret serves on, and no other is made
        ("--purpose saving", 0, (False, 1)),
        ("--secret", 0, (False, 2)),
        (f"--jwks {world.data_dir}/keys.json", 0, (True, 0)),
        ("--redirect https://fuel.example/back --no-dpop", 0, (True, 0)),
        ("", 2, (True, 0)),
        ("--only", 2, (True, 0)),
        (f"--secret --jwks {world.data_dir}/keys.json", 2, (True, 0)),
        (f"--jwks {world.data_dir}/nowhere.json", 1, (True, 0)),
        (f"--jwks {world.data_dir}/binary.der", 2, (True, 0)),
        ("--redirect https://fuel.example/back --no-redirect", 2, (True, 0)),
        ("--no-redirect", 0, (True, 0)),
        ("--secret", 0, (False, 1)),
    ):
        ran = gateway.run("partner", "client", "fuel", *options.split())
        assert (ran.returncode, await registered()) == (ends, expected), options
        assert ("client_secret=gws_" in ran.stdout) == (options == "--secret")
        assert "Traceback" not in ran.stderr
        assert "does not answer" not in ran.stderr
    assert await world.sql("select from oauth_client where client_id = 'partner-fuel' and redirect_uris <> '{}'") == []
    auth = world.clients["fuel"][0], ran.stdout.split("client_secret=")[1].strip()
    assert (await world.http.post("/oauth/token", data={"grant_type": "client_credentials"}, auth=auth)).status_code == 200


def test_a_block_that_is_known_is_not_passed_over_where_no_chain_is_walked(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gateway", "verify", "--known", f"1:{'0' * 64}"]
    ran = subprocess.run(command, capture_output=True, check=False, cwd=tmp_path)
    assert (ran.returncode, ran.stdout, b"--chain" in ran.stderr) == (2, b"", True)


def test_arguments_that_are_no_text_are_told(tmp_path: Path) -> None:
    for command in (["card", "block", b"\xff"], ["operator", "disable", b"caf\xe9"]):
        ran = subprocess.run([sys.executable, "-m", "gateway", *command], capture_output=True, check=False, cwd=tmp_path)
        assert (ran.returncode, ran.stdout) == (1, b"")
        assert ran.stderr.startswith(b"gateway: an argument is not UTF-8: ")
        assert ran.stderr.count(b"\n") == 1
