"""The files of a settled month: a CSV and a JSON statement per partner, and a manifest of their digests.

Nothing in them depends on when or where they are written, so a month that is closed again gives the same bytes.
"""

import csv
import hashlib
import io
import json
import os
import tempfile
from datetime import date
from pathlib import Path

from gateway.coalition.catalogue import Coalition
from gateway.points import decimal_of_minor
from gateway.settlement.statements import Line, Settled, Statement, positions

FORMAT_VERSION = 1
COLUMNS = (
    "period", "partner", "line", "kind", "debtor", "creditor", "programme", "contract_version", "points", "unit_price",
    "gross", "currency",
)  # fmt: skip


def statement_digest(month: date, statement: Statement) -> str:
    """SHA-256 (hex) over a statement's content, the same however it is presented."""
    content = [
        str(month), str(statement.partner_id), statement.currency, statement.purchases, statement.amount_minor,
        statement.issued, statement.returns, statement.returned, statement.redemptions, statement.redeemed,
        statement.conversions, statement.converted_out, statement.converted_in,
        [
            [line.kind, str(line.debtor_id), str(line.creditor_id), str(line.programme_id), str(line.contract_id), line.points,
             f"{line.unit_price.normalize():f}", line.gross_minor, line.currency]
            for line in statement.lines
        ],
    ]  # fmt: skip
    # Not orjson: sums may have more than 64 bits.
    return hashlib.sha256(json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()).hexdigest()


def write_package(folder: Path, coalition: Coalition, settled: Settled) -> Path:
    """Write the package of a month below `folder` and answer where it lies: `<folder>/2026-10/`."""
    target = folder / f"{settled.month:%Y-%m}"
    target.mkdir(parents=True, exist_ok=True)
    contents: dict[str, bytes] = {}
    for statement in settled.statements:
        code = coalition.partners[statement.partner_id].code
        contents[f"{code}.csv"] = statement_csv(coalition, settled.month, statement)
        contents[f"{code}.json"] = statement_json(coalition, settled.month, statement)
    contents["manifest.json"] = _manifest(coalition, settled, contents)
    for name, content in contents.items():
        _replace(target / name, content)
    return target


def statement_csv(coalition: Coalition, month: date, statement: Statement) -> bytes:
    """A line a row, ready for a spreadsheet."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for number, line in enumerate(statement.lines, start=1):
        shown = _line(coalition, line)
        writer.writerow([f"{month:%Y-%m}", coalition.partners[statement.partner_id].code, number, *shown.values()])
    return text.getvalue().encode()


def statement_json(coalition: Coalition, month: date, statement: Statement) -> bytes:
    """The whole statement: counts, points, lines and the net."""
    return _json(
        {
            "format": FORMAT_VERSION,
            "coalition": coalition.name,
            "period": f"{month:%Y-%m}",
            "partner": coalition.partners[statement.partner_id].code,
            "currency": statement.currency,
            "purchases": statement.purchases,
            "amount": decimal_of_minor(statement.amount_minor),
            "issued": statement.issued,
            "returns": statement.returns,
            "returned": statement.returned,
            "redemptions": statement.redemptions,
            "redeemed": statement.redeemed,
            "conversions": statement.conversions,
            "converted_out": statement.converted_out,
            "converted_in": statement.converted_in,
            "lines": [_line(coalition, line) for line in statement.lines],
            "net_owed_by_partner": decimal_of_minor(statement.net_minor),
        }
    )


def _line(coalition: Coalition, line: Line) -> dict[str, object]:
    contracts = (c for found in coalition.contracts.values() for c in found)
    return {
        "kind": line.kind,
        "debtor": _party(coalition, line.debtor_id),
        "creditor": _party(coalition, line.creditor_id),
        "programme": coalition.programmes[line.programme_id].code,
        "contract_version": next(c.version for c in contracts if c.id == line.contract_id),
        "points": line.points,
        "unit_price": f"{line.unit_price.normalize():f}",
        "gross": decimal_of_minor(line.gross_minor),
        "currency": line.currency,
    }


def _party(coalition: Coalition, party_id: object) -> str:
    return next((p.code for p in coalition.partners.values() if p.id == party_id), "coalition")


def _manifest(coalition: Coalition, settled: Settled, contents: dict[str, bytes]) -> bytes:
    return _json(
        {
            "format": FORMAT_VERSION,
            "coalition": coalition.name,
            "period": f"{settled.month:%Y-%m}",
            "currency": settled.currency,
            "positions": [
                {"party": _party(coalition, p.party_id), "net_owed": decimal_of_minor(p.net_minor)}
                for p in positions(settled.statements, settled.currency)
            ],
            "programmes": [
                {
                    "programme": coalition.programmes[s.programme_id].code,
                    "outstanding": s.outstanding,
                    "debt": s.debt,
                    "expired": s.expired,
                }
                for s in sorted(settled.standings, key=lambda s: coalition.programmes[s.programme_id].code)
            ],
            "files": {name: {"bytes": len(c), "sha256": hashlib.sha256(c).hexdigest()} for name, c in sorted(contents.items())},
        }
    )


def _json(content: object) -> bytes:
    return (json.dumps(content, ensure_ascii=False, indent=2) + "\n").encode()


def _replace(path: Path, content: bytes) -> None:
    """Write beside and rename, so that a reader never sees half a file."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.chmod(name, 0o640)
        os.replace(name, path)
    except BaseException:  # a full disk, say
        os.unlink(name)
        raise
