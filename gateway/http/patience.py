"""How long a client may take, and how much it may say, until it is known what it wants, and to read its answer.

A connection that dribbles is closed, so that it holds nothing up; httptools itself reads headers without end, and uvicorn takes
in as many requests as one piece of data holds.
"""

import asyncio
import fcntl
import socket
import struct
import termios
from asyncio import AbstractEventLoop, TimerHandle, Transport
from collections.abc import Collection
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.http.headers import COMMON

HEADER_SECONDS = 10
BODY_SECONDS = 30
QUERY_SECONDS = 120
UNREAD_SECONDS = 60
# Each takes thirty times as much memory as a short one has bytes.
HEADER_MAX_BYTES, HEADERS_MAX = 64 * 1024, 100
# Of lists that say what a connection is to become: reading each name in them takes as long as many other bytes of a request.
LISTS, LISTS_MAX_BYTES = (b"connection", b"upgrade", b"sec-websocket-protocol", b"sec-websocket-extensions"), 1_024
# Of an address up to its `?`: uvicorn decodes it, for which Python takes a hundred times as long where it is all `%`.
PATH_MAX_BYTES = 1_024
# Of a whole request, however it is cut into chunks: four times the largest body that is read.
REQUEST_MAX_BYTES = 16 * 1024 * 1024
# Requests that wait behind one that is answered.
PIPELINED_MAX = 100
# A body that is late is told so by whoever reads it; a few seconds later the connection goes.
GRACE_SECONDS = 5
# What is under way when the process is told to end has so long: an exchange with a silent partner takes nine.
SHUTDOWN_SECONDS = 10
# Who is broken off has so long to notice; who waits for a database that hangs does when its connections are closed, after that.
BROKEN_OFF_SECONDS = 1
# What the kernel takes in of an answer that it has not sent yet; what is more waits here, where it is counted.
UNSENT_MAX_BYTES = 128 * 1024


def last_answer(status: str, message: str) -> bytes:
    """What a connection is told before it is closed, in JSON as all errors are."""
    body = orjson.dumps({"error": message})
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close", **COMMON}
    head = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*head, "", ""]).encode() + body


async def break_off(tasks: Collection["asyncio.Task[Any]"]) -> None:
    """Cancel tasks, and wait for them for a moment."""
    for each in tasks:
        each.cancel()
    if tasks:
        ended, _ = await asyncio.wait(tasks, timeout=BROKEN_OFF_SECONDS)
        for each in ended:
            if not each.cancelled():
                each.exception()  # is nobody's


class ExpectsReading:
    """A protocol on whose connection somebody must read on of whatever piles up here, to the last byte; who reads on, however
    slowly, has as much time again."""

    loop: AbstractEventLoop
    transport: Transport
    _reading_due: TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        # Whatever does not leave at once counts as unread, also when the connection is to be closed after it.
        transport.set_write_buffer_limits(high=0)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_MAX_BYTES)
        super().connection_made(transport)  # type: ignore[misc]

    def pause_writing(self) -> None:
        super().pause_writing()  # type: ignore[misc]
        self._expect_reading()

    def resume_writing(self) -> None:
        self._stop_waiting_for_reading()
        super().resume_writing()  # type: ignore[misc]

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting_for_reading()
        super().connection_lost(exc)  # type: ignore[misc]

    def _expect_reading(self) -> None:
        self._reading_due = self.loop.call_later(UNREAD_SECONDS, self._check_reading, self._unread())

    def _unread(self) -> int:
        """Bytes that were written and not read: those that wait here, and those that wait in the kernel."""
        waiting: int = self.transport.get_write_buffer_size()
        try:
            sent = fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
        except (OSError, ValueError):
            return waiting
        return waiting + int(struct.unpack("i", sent)[0])

    def _check_reading(self, unread: int) -> None:
        if self._unread() < unread:
            self._expect_reading()
        else:
            self.transport.abort()

    def _stop_waiting_for_reading(self) -> None:
        if self._reading_due is not None:
            self._reading_due.cancel()
            self._reading_due = None


class PatientHttp(ExpectsReading, HttpToolsProtocol):
    """uvicorn's protocol, with a time by which the headers of a request must be there, the first one's and all others', one by
    which all of it must, and a size."""

    _headers_due: TimerHandle | None = None
    _request_due: TimerHandle | None = None
    _header_bytes = _request_bytes = _list_bytes = 0
    _began_here = _ended_here = _past_headers = False
    _ends_after_answers = False  # what was asked before is answered, and nothing more is read

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect_headers()

    def data_received(self, data: bytes) -> None:
        self._began_here = self._ended_here = False
        super().data_received(data)
        self._expect_something()
        # What came before a message in the same piece of data is not told apart from it, so a message counts from its second.
        if self._began_here or self.transport.is_closing():
            return
        if self._headers_due is not None:
            self._header_bytes += len(data)
            if self._header_bytes > HEADER_MAX_BYTES:
                self._end_with("431 Request Header Fields Too Large", f"The headers are larger than {HEADER_MAX_BYTES} bytes.")
        elif self._request_due is not None:
            self._request_bytes += len(data)
            if self._request_bytes > REQUEST_MAX_BYTES:
                self.transport.abort()

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= PIPELINED_MAX:
            self._ends_after_answers = True
            raise ConnectionAbortedError  # the parser stops
        self._began_here = True
        self._past_headers = False
        self._list_bytes = 0
        if self._headers_due is None:
            self._expect_headers()
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        # Trailers, which nobody here reads, come after the body; uvicorn would add them to the headers for ever.
        if self._past_headers:
            return
        if len(self.headers) >= HEADERS_MAX:
            self._end_with("431 Request Header Fields Too Large", f"There are more than {HEADERS_MAX} headers.")
            raise ConnectionAbortedError  # the parser stops
        name = name.lower()
        self._list_bytes += len(value) if name in LISTS else 0
        if self._list_bytes > LISTS_MAX_BYTES:
            told = f"{', '.join(each.decode() for each in LISTS)} have more than {LISTS_MAX_BYTES} bytes."
            self._end_with("431 Request Header Fields Too Large", told)
            raise ConnectionAbortedError
        if name == b"transfer-encoding" and value.lower() != b"chunked":  # RFC 9112, section 6.1
            self._end_with("501 Not Implemented", "Send the body whole or in chunks, and in no other transfer coding.")
            raise ConnectionAbortedError
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if len(self.url.partition(b"?")[0]) > PATH_MAX_BYTES:
            self._end_with("414 URI Too Long", f"The path is longer than {PATH_MAX_BYTES} bytes.")
            raise ConnectionAbortedError  # the parser stops
        self._stop_expecting()
        self._past_headers = True
        self._request_bytes = 0
        self._request_due = self.loop.call_later(BODY_SECONDS + GRACE_SECONDS, self._give_up)
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._ends_after_answers and not self.pipeline and self.cycle.response_complete and not self.transport.is_closing():
            self.transport.close()

    def on_message_complete(self) -> None:
        self._ended_here = True
        self._past_headers = False
        self._stop_expecting()
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering or self.transport.get_write_buffer_size():
            # What is still to be answered, or read, would wait for a protocol that this connection has no more.
            self.transport.abort()
            return
        self._stop_expecting()
        self._stop_waiting_for_reading()
        super().handle_websocket_upgrade()

    def _unsupported_upgrade_warning(self) -> None:
        # The parser takes the body of such a request for the next one.
        said = dict(self.headers)
        if b"transfer-encoding" in said or said.get(b"content-length", b"0").strip(b"0 "):
            if self.cycle is not None:
                self.cycle.disconnected = True
            told = "Send a request that has a body without asking for another protocol."
            self.transport.write(last_answer("501 Not Implemented", told))
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        self._end_with("400 Bad Request", msg)

    def _end_with(self, status: str, message: str) -> None:
        """Tell what is wrong and end the connection; while earlier requests are answered nothing can be told."""
        self._stop_expecting()
        answering = self.cycle is not None and not self.cycle.response_complete
        if self._ends_after_answers or (answering and (self.pipeline or not self._past_headers)):
            self._ends_after_answers = True
            self.flow.pause_reading()
        elif not self.transport.is_closing():
            self.transport.write(last_answer(status, message))
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_expecting()
        super().connection_lost(exc)

    def _expect_something(self) -> None:
        """uvicorn lets a connection wait for as long as it likes after a byte that begins no request."""
        answering = self.cycle is not None and not self.cycle.response_complete
        due = self._headers_due or self._request_due or self.timeout_keep_alive_task
        over = self.parser is None or self.transport.is_closing() or self.transport.get_protocol() is not self
        if due is not None or answering or over:
            return
        if self._ended_here:  # the end of a request that was answered before
            self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)
        else:
            self._expect_headers()

    def _expect_headers(self) -> None:
        self._headers_due = self.loop.call_later(HEADER_SECONDS, self._give_up)

    def _stop_expecting(self) -> None:
        self._header_bytes = 0
        for due in (self._headers_due, self._request_due):
            if due is not None:
                due.cancel()
        self._headers_due = self._request_due = None

    def _give_up(self) -> None:
        if self.flow.read_paused:  # by us, while an earlier request is answered: nothing can come
            if self._headers_due is not None:
                self._expect_headers()
            else:
                self._request_due = self.loop.call_later(BODY_SECONDS, self._give_up)
            return
        self._stop_expecting()
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()
