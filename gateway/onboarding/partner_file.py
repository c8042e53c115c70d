"""Reads `partners/<code>/partner.toml`; every mistake is told with its file and line."""

import re
import tomllib
from datetime import date
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from pathlib import Path

import msgspec

from gateway.onboarding.contracts import NewContract
from gateway.onboarding.partners import NewPartner, NotOnboarded


class BadPartnerFile(ValueError):
    """A partner.toml that cannot be used; its text is `file:line: what is wrong`."""


class _Contract(msgspec.Struct, forbid_unknown_fields=True):
    valid_from: date
    programme: str
    currency: str
    earn_rate: str = "0"
    issue_price: str = "0"
    redeem_price: str = "0"
    service_fee: str = "0"
    conversion_price: str = "0"
    pending_days: int | None = None


class _Store(msgspec.Struct, forbid_unknown_fields=True):
    code: str
    name: str


class _Connector(msgspec.Struct, forbid_unknown_fields=True):
    protocol: str
    endpoint: str


class _File(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    contract: list[_Contract] = []
    store: list[_Store] = []
    connector: _Connector | None = None


def read_partner_file(path: Path) -> NewPartner:
    """The partner that a file describes; its code is the name of the file's folder. Raises BadPartnerFile."""
    try:
        text = path.read_text()
        parsed = msgspec.convert(tomllib.loads(text), _File)
    except OSError as error:
        raise BadPartnerFile(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise BadPartnerFile(f"{path}:{line}: this is not UTF-8.") from None
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"line (\d+)", str(error))
        raise BadPartnerFile(f"{path}:{found[1] if found else 1}: {error}") from None
    except msgspec.ValidationError as error:
        raise BadPartnerFile(f"{path}:{_line_of(text, str(error))}: {error}") from None
    contracts = []
    for position, contract in enumerate(parsed.contract):
        values: dict[str, Fraction | Decimal] = {}
        for name in ("earn_rate", "issue_price", "redeem_price", "service_fee", "conversion_price"):
            written = getattr(contract, name)
            try:
                values[name] = Fraction(written) if name == "earn_rate" else Decimal(written)
            except (ValueError, ZeroDivisionError, InvalidOperation):
                line = _line_of(text, f"`$.contract[{position}].{name}`")
                raise BadPartnerFile(f"{path}:{line}: {name} is {written!r}; it must be a number such as 0.0105.") from None
        contracts.append(
            NewContract(
                programme=contract.programme,
                currency=contract.currency,
                valid_from=contract.valid_from,
                pending_days=contract.pending_days,
                **values,  # type: ignore[arg-type]
            )
        )
    return NewPartner(
        code=path.parent.name,
        name=parsed.name,
        protocol=parsed.connector.protocol if parsed.connector else None,
        endpoint=parsed.connector.endpoint if parsed.connector else None,
        stores=tuple((store.code, store.name) for store in parsed.store),
        contracts=tuple(contracts),
    )


def blamed(path: Path, error: NotOnboarded) -> BadPartnerFile:
    """What onboarding refused of a file's partner, with the line that says it."""
    names = [re.sub(r"(?=[A-Z])", "_", name).lower() for name in error.refused.path]
    tables = {"protocol": "connector", "endpoint": "connector"}
    if error.contract is not None:
        where = f"contract[{error.contract}]" + "".join(f".{name}" for name in names)
    elif names[:1] == ["stores"]:
        where = f"store[{names[1]}].{names[2]}"
    else:
        where = ".".join([tables[name] + "." + name if name in tables else name for name in names])
    return BadPartnerFile(f"{path}:{_line_of(path.read_text(), f'`$.{where}`')}: {error.refused.message}")


def _line_of(text: str, error: str) -> int:
    """The line of the key that a validation error names as `$.contract[1].issue_price`; of its table if it is absent."""
    where = re.search(r"`\$\.?([^`]*)`", error)
    names = re.findall(r"(\w+)(?:\[(\d+)\])?", where[1]) if where else []
    unknown = re.search(r"unknown field `(\w+)`", error)
    if unknown:
        names.append((unknown[1], ""))
    lines = text.splitlines()
    at = 0
    for name, position in names:
        headers = [n for n, line in enumerate(lines) if re.match(rf"\s*\[+\s*{name}\s*\]+", line)]
        if headers and (position or name != names[-1][0]):
            at = headers[int(position or 0)]
            continue
        keys = [n for n in range(at, len(lines)) if re.match(rf"\s*{name}\s*=", lines[n])]
        at = keys[0] if keys else at
    return at + 1
