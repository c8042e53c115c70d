"""Structured logs: one JSON object a line, or coloured text for people. They hold nothing of anybody, whatever goes wrong."""

import logging
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import structlog

OURS = Path(__file__).parent
ABOUT_A_VALUE = "22"  # the class of SQLSTATE (PostgreSQL, appendix A)
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
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
        if format == "console"
        else structlog.processors.JSONRenderer()
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[_first_line_of_a_failure, *processors],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.ExceptionRenderer(_traced),
            renderer,
        ],
    )
    handler = logging.StreamHandler(sys.stderr)
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


def describe(error: BaseException) -> str:
    """Which error it is, and where in our own code it arose. Not in its words: they may be of what somebody sent, or a partner
    answered. PostgreSQL's are told without the detail, unless they are about a value."""
    said = type(error).__name__
    sqlstate = getattr(error, "sqlstate", None)
    if sqlstate is not None:
        words = "" if sqlstate.startswith(ABOUT_A_VALUE) else str(error.args[0]).partition("\n")[0]
        said = f"{said} (SQLSTATE {sqlstate}): {words}".removesuffix(": ")
    here = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(OURS)]
    return f"{said}, at {Path(here[-1].filename).relative_to(OURS)}:{here[-1].lineno}" if here else said


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


def _first_line_of_a_failure(_logger: Any, _name: str, said: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """What asyncio says of a failure goes on with the failure's words."""
    if "exc_info" in said:
        said["event"] = said["event"].partition("\n")[0]
    return said


def _is_news(record: logging.LogRecord) -> bool:
    """A WebSocket that we refuse is no error of ours."""
    return record.msg != DENIED
