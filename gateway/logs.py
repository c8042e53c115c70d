"""Structured logs: one JSON object a line, or coloured text for people. They hold nothing of anybody, whatever goes wrong."""

import logging
import os
import re
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import structlog

HOUSE = Path(__file__).parent.parent
OURS = HOUSE / "gateway", HOUSE / "partners"
# Classes of SQLSTATE (PostgreSQL, appendix A) whose errors speak of our own tables, functions and queries, and of the server.
OF_NO_VALUE = ("23", "25", "40", "42", "53", "54", "55", "57", "58", "LG")
OF_SOMEBODY = re.compile(r" in callback | of <|: <| <|\n")
DENIED = "ASGI callable returned without completing handshake."


def configure_logs(level: str, format: str) -> None:
    """Send every log, ours and libraries', to stderr in one format.

    `level` is of our own; libraries say nothing below info: what they say to debug them holds tokens and what people sent.
    Of errors it is told which they are and where they arose, not their words (`describe`).
    """
    processors: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    stream = sys.stderr or open(os.devnull, "w")  # noqa: SIM115 - closed by whoever started us
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback)
        if format == "console"
        else structlog.processors.JSONRenderer()
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[_what_failed, *processors],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.ExceptionRenderer(_traced),
            renderer,
        ],
    )
    handler = _Quiet(stream)
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=max(logging.INFO, logging.getLevelNamesMapping()[level.upper()]), force=True)
    for ours in ("gateway", "partners"):
        logging.getLogger(ours).setLevel(level.upper())
    logging.getLogger("yoyo").setLevel("WARNING")
    logging.getLogger("httpx").setLevel("WARNING")
    server = logging.getLogger("uvicorn.error")
    server.setLevel("WARNING")  # at info it tells of each WebSocket, with all that its address holds
    server.addFilter(_is_news)
    structlog.configure(
        processors=[*processors, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    sys.excepthook = _log_unexpected
    sys.unraisablehook = lambda failed: _log_unexpected(failed.exc_type, failed.exc_value, failed.exc_traceback)
    threading.excepthook = lambda failed: _log_unexpected(failed.exc_type, failed.exc_value, failed.exc_traceback)


class _Quiet(logging.StreamHandler[TextIO]):
    """What cannot be written is told without it."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        with suppress(OSError, ValueError, AttributeError):  # nobody may be there to be told
            sys.stderr.write(f"gateway: a line of the log of {record.name} could not be written\n")


def _log_unexpected(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    """In place of Python's own telling of what nobody caught."""
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error or kind(), trace)
    elif not issubclass(kind, SystemExit):  # of a thread, which Python passes over
        structlog.get_logger(__name__).critical("unexpected error", exc_info=(kind, error or kind(), trace))


def describe(error: BaseException) -> str:
    """Which error it is, and where in our own code it arose. Not in its words: they may be of what somebody sent, or a partner
    answered. PostgreSQL's are told without the detail, where they are of no value that it came upon."""
    said = type(error).__name__
    sqlstate = getattr(error, "sqlstate", None)
    if isinstance(sqlstate, str):
        words = str(next(iter(error.args), "")).partition("\n")[0] if sqlstate.startswith(OF_NO_VALUE) else ""
        said = f"{said} (SQLSTATE {sqlstate}): {words}".removesuffix(": ")
    here = [frame for frame in traceback.extract_tb(error.__traceback__) if any(map(Path(frame.filename).is_relative_to, OURS))]
    return f"{said}, at {Path(here[-1].filename).relative_to(HOUSE)}:{here[-1].lineno}" if here else said


def _traced(exc_info: tuple[type[BaseException], BaseException, TracebackType | None]) -> str:
    """A traceback as Python writes it, with the errors described."""
    return "".join(_chain(exc_info[1], set())).rstrip()


def _chain(error: BaseException, told: set[int]) -> Iterator[str]:
    told.add(id(error))
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None and id(before) not in told:
        yield from _chain(before, told)
        yield "\nThen:\n\n"
    yield from traceback.format_tb(error.__traceback__)
    yield f"{describe(error)}\n"
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            if id(each) not in told:
                yield "\nOf these:\n\n"
                yield from _chain(each, told)


def _what_failed(_logger: Any, _name: str, said: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """A library's line on a failure, without what it fills in, or goes on with: what was called with which arguments."""
    if "exc_info" in said:
        said["event"] = OF_SOMEBODY.split(str(said["_record"].msg))[0]
    elif said["event"].startswith("Traceback"):  # as text, with all its words: Starlette's, when it cannot begin or end
        said["event"] = "The gateway failed while it began or ended."
    return said


def _is_news(record: logging.LogRecord) -> bool:
    """A WebSocket that we refuse is no error of ours."""
    return record.msg != DENIED
