"""Settings and partner files: read once, wrong values told with their name, file and line."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from gateway.onboarding.partner_file import BadPartnerFile, read_partner_file
from gateway.settings import DATABASE_PARAMETERS, BadSetting, Settings, read_settings
from tests.house.test_embedded import Gateway

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("GATEWAY_PORT", "0"),
        ("GATEWAY_PORT", "eighty"),
        ("GATEWAY_PORT", "65536"),
        ("GATEWAY_POOL_SIZE", "1"),
        ("GATEWAY_LANES", "-1"),
        ("GATEWAY_DATA_DIR", ""),
        ("GATEWAY_HOST", ""),
        ("GATEWAY_JWKS_HOSTS", "http://keys.example/"),
        ("GATEWAY_TRUSTED_PROXIES", "10.0.0.1, proxy.example"),
        ("GATEWAY_LOG_LEVEL", "loud"),
        ("GATEWAY_LOG_FORMAT", "xml"),
        *[("GATEWAY_ISSUER", said) for said in ("ftp://x", "https://", "https://x?y=1", "https://x#f", "https://a b", "https://x:y")],
        ("GATEWAY_ISSUER", "http://user:password@x"),
        ("DATABASE_URL", "mysql://x"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(variable: str, value: str) -> None:
    with pytest.raises(BadSetting, match=variable):
        read_settings({variable: value})


@pytest.mark.parametrize("special", ["/", "#", "?", "\u2100", "["])
def test_what_is_special_in_a_password_is_told_and_not_what_the_password_is(special: str) -> None:
    with pytest.raises(BadSetting, match="DATABASE_URL") as told:
        read_settings({"DATABASE_URL": f"postgresql://gateway:SECRET{special}WORD@127.0.0.1/gateway"})
    assert "SECRET" not in str(told.value)
    assert "WORD" not in str(told.value)
    assert told.value.__suppress_context__


@pytest.mark.parametrize("name", ["connect_timeout", "channel_binding", "keepalives", "pgbouncer", "ssl", "passwrod"])
def test_a_parameter_of_the_database_that_one_of_the_drivers_does_not_know_is_named_without_its_value(name: str) -> None:
    with pytest.raises(BadSetting, match=f"DATABASE_URL.*'{name}'") as told:
        read_settings({"DATABASE_URL": f"postgresql://gateway@127.0.0.1/gateway?sslmode=prefer&{name}=S3CRET"})
    assert "S3CRET" not in str(told.value)


@pytest.mark.parametrize("query", ["sslmode", "sslmode=require&", "12?o=rd@127.0.0.1/x", "sslmode=require&sslmode=disable"])
def test_what_follows_an_address_and_is_no_list_of_values_is_told_and_not_shown(query: str) -> None:
    with pytest.raises(BadSetting, match="DATABASE_URL") as told:
        read_settings({"DATABASE_URL": f"postgresql://gateway:5432?{query}"})
    assert query not in str(told.value)


@pytest.mark.parametrize("name", ["sslcert", "sslcrl", "sslkey", "sslrootcert"])
def test_a_certificate_for_the_database_that_is_not_there_is_named(name: str, tmp_path: Path) -> None:
    there, missing = tmp_path / "there.pem", tmp_path / "missing.pem"
    there.touch()
    url = "postgresql://gateway@127.0.0.1/gateway?sslmode=require"
    read_settings({"DATABASE_URL": f"{url}&{name}={there}"})
    with pytest.raises(BadSetting, match=f"DATABASE_URL: {name} is .*missing.pem"):
        read_settings({"DATABASE_URL": f"{url}&{name}={missing}"})


def test_parameters_of_the_database_that_may_be_given_are_known_to_both_drivers(dsn: str, tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)

    def listing(*parameters: str) -> str:
        gateway.environment |= {"DATABASE_URL": "&".join([dsn, *parameters])}
        return gateway.run("partner", "list").stderr

    told = listing()
    assert "no coalition yet" in told
    values = {
        "application_name": "till", "gsslib": "gssapi", "krbsrvname": "postgres", "options": "-c%20jit%3Doff", "passfile": "/none",
        "password": "x", "ssl_max_protocol_version": "TLSv1.3", "ssl_min_protocol_version": "TLSv1.2", "sslmode": "prefer",
        "sslpassword": "x", "target_session_attrs": "read-write",
    }  # fmt: skip
    assert listing(*(f"{name}={value}" for name, value in values.items())) == told
    # The rest is in the address itself, or takes a server with TLS, or files.
    others = {"dbname", "host", "port", "user", "service", "sslcert", "sslcrl", "sslkey", "sslnegotiation", "sslrootcert"}
    assert values.keys() | others == set(DATABASE_PARAMETERS)
    refused = listing("sslmode=often")
    assert "sslmode" in refused
    assert "Traceback" not in refused


@pytest.mark.parametrize("port", [0, -1, 99_999])
def test_a_port_of_the_command_line_is_checked_like_that_of_the_environment(port: int) -> None:
    with pytest.raises(BadSetting, match=str(port)):
        read_settings({}, port=port)


def test_every_variable_is_documented_with_its_default_and_meaning() -> None:
    table = (ROOT / "docs/operating.md").read_text()
    for field in fields(Settings):
        m = field.metadata
        default = f"`{m['default']}`" if m["default"] else ""
        assert f"| `{m['variable']}` | {default} | {m['doc']} |" in table


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ('name = "X"\nname = "Y"\n', 2, "Cannot overwrite"),
        ("name = 3\n", 1, "Expected `str`"),
        ('name = "X"\ncolour = "red"\n', 2, "colour"),
        (
            'name = "X"\n\n[[contract]]\nvalid_from = 2026-01-01\nprogramme = "MER"\ncurrency = "USD"\nissue_price = 1\n',
            7,
            "issue_price",
        ),
        (
            'name = "X"\n\n[[contract]]\nvalid_from = 2026-01-01\nprogramme = "MER"\ncurrency = "USD"\nearn_rate = "much"\n',
            7,
            "much",
        ),
        ('name = "X"\n\n[[contract]]\nvalid_from = "soon"\nprogramme = "MER"\ncurrency = "USD"\n', 4, "date"),
        ('name = "X"\n\n[[store]]\ncode = "a"\nname = "A"\n\n[[store]]\ncode = "b"\n', 7, "name"),
    ],
)
def test_a_mistake_in_a_partner_file_is_told_with_file_and_line(tmp_path: Path, text: str, line: int, what: str) -> None:
    file = tmp_path / "bakery" / "partner.toml"
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(BadPartnerFile, match=re.escape(f"{file}:{line}: ")) as caught:
        read_partner_file(file)
    assert what in str(caught.value)


def test_the_demonstrations_partner_files_can_be_read() -> None:
    codes = {read_partner_file(file).code for file in (ROOT / "partners").glob("*/partner.toml")}
    assert len(codes) == 9


def test_the_exported_schema_is_the_schema() -> None:
    from gateway.schema import schema_text

    assert (ROOT / "schema.graphql").read_text() == schema_text()


def test_an_address_with_colons_stands_in_brackets_in_the_issuer() -> None:
    assert read_settings({"GATEWAY_HOST": "::1"}).base_url == "http://[::1]:8080"
    assert read_settings({}).base_url == "http://127.0.0.1:8080"
