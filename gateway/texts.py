"""Texts that callers give."""

from gateway.refusals import InputNotAccepted


def check_text(text: str, name: str, most: int, *outer: str) -> str:
    """Text that is safe to store and show: 1 to `most` printable characters. `outer`: the path of the input that `name` is in.

    Raises InputNotAccepted.
    """
    if not 1 <= len(text) <= most or not text.isprintable():
        raise InputNotAccepted(f"{name} must have 1 to {most} printable characters.", *outer, name)
    return text
