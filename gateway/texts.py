"""Texts that callers give."""

import unicodedata

from gateway.refusals import InputNotAccepted

NAME_MAX = 100
# Marks that are put in order take a time that grows with the square of how many there are.
COMPOSED_MAX_LENGTH = 1_000
# Printable to Unicode, and blank to who reads them.
BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0")


def check_text(text: str, name: str, most: int, *outer: str) -> str:
    """Text that is safe to store and show: 1 to `most` printable characters. `outer`: the path of the input that `name` is in.

    Raises InputNotAccepted.
    """
    if not 1 <= len(text) <= most or not text.isprintable():
        raise InputNotAccepted(f"{name} must have 1 to {most} printable characters.", *outer, name)
    return text


def check_name(text: str, name: str, *outer: str, most: int = NAME_MAX) -> None:
    """What something is shown to people as: 1 to `most` printable characters that are not all blank. Raises InputNotAccepted,
    which repeats it; it is nobody's.
    """
    if all(char.isspace() or char in BLANK for char in text) or not text.isprintable() or len(text) > most:
        told = f"{name} is 1 to {most} printable characters that are not all blank, not {text[:40]!r}."
        raise InputNotAccepted(told, *outer, name)


def composed(text: str) -> str:
    """A login name or password in one form, however its letters were composed: keyboards differ (NFKC; NIST SP 800-63B, section
    5.1.1.2). A text of more than COMPOSED_MAX_LENGTH, as neither has, is left as it is."""
    return unicodedata.normalize("NFKC", text) if len(text) <= COMPOSED_MAX_LENGTH else text


def forms_of(text: str) -> list[str]:
    """How a login name or password may have been kept: as it was typed, from before it was composed, and composed."""
    return list(dict.fromkeys((text, composed(text))))
