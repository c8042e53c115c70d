"""Everything that can be configured: one frozen object, read once from the environment."""

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from gateway.addresses import is_base
from gateway.cipher import KEY_BYTES

FOLDER_MODE = 0o711
"""Of the data folder: the database's own user gets through it to its cluster, and nobody sees what lies there."""

DATABASE_PARAMETERS = (
    "application_name", "dbname", "gsslib", "host", "krbsrvname", "options", "passfile", "password", "port", "service",
    "ssl_max_protocol_version", "ssl_min_protocol_version", "sslcert", "sslcrl", "sslkey", "sslmode", "sslnegotiation",
    "sslpassword", "sslrootcert", "target_session_attrs", "user",
)  # fmt: skip
"""What an address of a database may say after its `?`: what both drivers know, the one that migrates and the one that serves. The
latter takes any other word of libpq's (`connect_timeout`, `channel_binding`) for a setting of the server."""

DATABASE_FILES = ("sslcert", "sslcrl", "sslkey", "sslrootcert")
"""Of these, what names a file: it has to be there."""

JOBS = ("conversions", "credit", "expire", "fold", "holds", "mature", "notices", "seal", "tidy")


class BadSetting(ValueError):
    """An environment variable with a value that cannot be used; its text names both."""


def _setting(variable: str, default: str, doc: str) -> Any:
    return field(metadata={"variable": variable, "default": default, "doc": doc})


@dataclass(frozen=True, slots=True)
class Settings:
    """The gateway's settings; each field names its environment variable, its default and its meaning."""

    database_url: str = _setting(
        "DATABASE_URL",
        "",
        "PostgreSQL 15 or newer to use, with `sslmode` and the like behind a `?`; empty: an embedded server, its data in the "
        "data folder.",
    )
    data_dir: Path = _setting("GATEWAY_DATA_DIR", ".data", "Folder of the embedded database and of settlement files.")
    host: str = _setting("GATEWAY_HOST", "127.0.0.1", "Address to listen on.")
    port: int = _setting("GATEWAY_PORT", "8080", "Port to listen on, 1 to 65535.")
    issuer: str = _setting("GATEWAY_ISSUER", "", "Public base URL, the `iss` of every token; empty: http://HOST:PORT.")
    partners_dir: Path = _setting("GATEWAY_PARTNERS_DIR", "partners", "Folder with one `<code>/partner.toml` a partner.")
    pool_size: int = _setting("GATEWAY_POOL_SIZE", "12", "Connections of each of a process's three pools, 2 to 100.")
    lanes: int = _setting("GATEWAY_LANES", "2", "Batches posted side by side by one process, 1 to 64.")
    adjustment_limit: int = _setting(
        "GATEWAY_ADJUSTMENT_LIMIT", "1000", "Points an operator may adjust alone within a day; above it a second one approves."
    )
    jobs: tuple[str, ...] = _setting(
        "GATEWAY_JOBS",
        "conversions,credit,expire,fold,holds,mature,notices,seal,tidy",
        "Background jobs this process takes part in, by comma; empty: none.",
    )
    issuers_file: Path | None = _setting(
        "GATEWAY_ISSUERS_FILE", "", "TOML file of outside issuers whose tokens are trusted; empty: none."
    )
    jwks_hosts: tuple[str, ...] = _setting(
        "GATEWAY_JWKS_HOSTS", "", "Hosts (with their port, if it is not 443) that keys may be fetched from, by comma."
    )
    partner_hosts: tuple[str, ...] = _setting(
        "GATEWAY_PARTNER_HOSTS", "", "Hosts, likewise, that operators may name as a partner's own system through the API."
    )
    trusted_proxies: tuple[str, ...] = _setting(
        "GATEWAY_TRUSTED_PROXIES",
        "",
        "Addresses or networks of proxies whose X-Forwarded-For is believed, by comma; empty: none.",
    )
    authorization_server: str = _setting(
        "GATEWAY_AUTHORIZATION_SERVER", "on", "on, or off where every token comes from outside issuers."
    )
    encryption_keys: tuple[bytes, ...] = _setting(
        "GATEWAY_ENCRYPTION_KEY",
        "",
        "32 random bytes in base64, under which all other keys in the database are wrapped; several by comma: the first wraps, "
        "the others still open. Empty: one is made and kept in the data folder.",
    )
    log_level: str = _setting("GATEWAY_LOG_LEVEL", "info", "Of the gateway's own log: debug, info, warning or error.")
    log_format: str = _setting("GATEWAY_LOG_FORMAT", "json", "json, or console for people.")

    @property
    def base_url(self) -> str:
        return self.issuer or f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def read_settings(environ: Mapping[str, str] = os.environ, **overrides: Any) -> Settings:
    """Settings from the environment; `overrides` (from the command line) win.

    Raises BadSetting, naming the variable, its value and what it should be.
    """
    texts = {f.name: environ.get(f.metadata["variable"], f.metadata["default"]) for f in fields(Settings)}
    if overrides.get("port") is not None:
        texts["port"] = str(overrides["port"])
    for name in ("data_dir", "host", "partners_dir"):
        if not texts[name]:
            variable = Settings.__dataclass_fields__[name].metadata["variable"]
            raise BadSetting(f"{variable} is empty; leave it unset for its default, or give it a value.")
    values: dict[str, Any] = {
        **texts,
        "data_dir": Path(texts["data_dir"]).absolute(),
        "partners_dir": Path(texts["partners_dir"]).absolute(),
        "port": _whole_number("GATEWAY_PORT", texts["port"], 1, 65535),
        "pool_size": _whole_number("GATEWAY_POOL_SIZE", texts["pool_size"], 2, 100),
        "lanes": _whole_number("GATEWAY_LANES", texts["lanes"], 1, 64),
        "adjustment_limit": _whole_number("GATEWAY_ADJUSTMENT_LIMIT", texts["adjustment_limit"], 0, 10**12),
        "jobs": _some_of("GATEWAY_JOBS", texts["jobs"], JOBS),
        "issuers_file": Path(texts["issuers_file"]).absolute() if texts["issuers_file"] else None,
        "jwks_hosts": _hosts("GATEWAY_JWKS_HOSTS", texts["jwks_hosts"]),
        "partner_hosts": _hosts("GATEWAY_PARTNER_HOSTS", texts["partner_hosts"]),
        "trusted_proxies": _networks("GATEWAY_TRUSTED_PROXIES", texts["trusted_proxies"]),
        "authorization_server": _one_of("GATEWAY_AUTHORIZATION_SERVER", texts["authorization_server"], ("on", "off")),
        "encryption_keys": _keys("GATEWAY_ENCRYPTION_KEY", texts["encryption_keys"]),
        "log_level": _one_of("GATEWAY_LOG_LEVEL", texts["log_level"], ("debug", "info", "warning", "error")),
        "log_format": _one_of("GATEWAY_LOG_FORMAT", texts["log_format"], ("json", "console")),
        "issuer": texts["issuer"].rstrip("/"),
    }
    if texts["database_url"]:
        _check_database(texts["database_url"])
    if values["issuer"] and not is_base(values["issuer"]):
        raise BadSetting(
            "GATEWAY_ISSUER must start with http:// or https:// and name a host, without a user, a query or a fragment, such as "
            "https://points.example."
        )
    return Settings(**{**values, **{name: value for name, value in overrides.items() if name != "port" and value is not None}})


def _hosts(variable: str, text: str) -> tuple[str, ...]:
    hosts = tuple(host.strip().lower() for host in text.split(",") if host.strip())
    if strange := [host for host in hosts if "/" in host]:
        raise BadSetting(f"{variable} names {strange[0]!r}; name hosts alone, such as keys.example or keys.example:8443.")
    return hosts


def _whole_number(variable: str, text: str, least: int, most: int) -> int:
    if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
        raise BadSetting(f"{variable} is {text!r}; it must be a whole number from {least} to {most}.")
    return int(text)


def _keys(variable: str, text: str) -> tuple[bytes, ...]:
    keys = []
    for number, part in enumerate(filter(None, (each.strip() for each in text.split(","))), start=1):
        try:
            key = base64.b64decode(part, validate=True)
        except ValueError:
            key = b""
        if len(key) != KEY_BYTES:
            raise BadSetting(f"{variable}: key {number} is not {KEY_BYTES} bytes in base64; its value is not shown here.")
        keys.append(key)
    return tuple(keys)


def _check_database(url: str) -> None:
    if not url.startswith(("postgres://", "postgresql://")):
        raise BadSetting("DATABASE_URL must start with postgresql://; its value is not shown here.")
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - it is read when it is asked for
        if "@" in parts.query:
            raise ValueError("what stands before @ is the password")
        said = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True) if parts.query else []
    except ValueError:
        raise BadSetting(
            "DATABASE_URL is no address. What is special in its password is written as %2F for /, %23 for #, and so on (RFC "
            "3986, section 2.1), and what follows its ? is name=value&name=value. Its value is not shown here."
        ) from None
    names = [name for name, _ in said]
    if strange := [name for name in names if name not in DATABASE_PARAMETERS]:
        told = f"DATABASE_URL has the parameter {strange[0][:80]!r}, which cannot be used; leave it out."
        raise BadSetting(f"{told} Used are {', '.join(DATABASE_PARAMETERS)}.")
    if len(names) != len(set(names)):
        raise BadSetting("DATABASE_URL has a parameter twice; give each once.")
    for name, file in said:
        if name in DATABASE_FILES and not (Path(file).is_file() and os.access(file, os.R_OK)):
            raise BadSetting(f"DATABASE_URL: {name} is {file!r}, which is no file that can be read.")


def _networks(variable: str, text: str) -> tuple[str, ...]:
    networks = tuple(part.strip() for part in text.split(",") if part.strip())
    for each in networks:
        try:
            ip_network(each)
        except ValueError:
            raise BadSetting(f"{variable} names {each!r}; name addresses or networks, such as 10.0.0.7 or 10.0.0.0/24.") from None
    return networks


def _some_of(variable: str, text: str, allowed: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(_one_of(variable, part.strip(), allowed) for part in text.split(",") if part.strip())


def _one_of(variable: str, text: str, allowed: tuple[str, ...]) -> str:
    if text not in allowed:
        raise BadSetting(f"{variable} is {text!r}; it must be one of {', '.join(allowed)}.")
    return text
