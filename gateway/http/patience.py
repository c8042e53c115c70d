"""How long a client may take, and how much it may say, until it is known what it wants, and to read its answer.

A connection that dribbles is closed, so that it holds nothing up; httptools itself reads headers without end.
"""

from asyncio import TimerHandle
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEADER_SECONDS = 10
BODY_SECONDS = 30
QUERY_SECONDS = 120
UNREAD_SECONDS = 60
HEADER_MAX_BYTES = 64 * 1024


def _last_answer(status: str, message: str) -> bytes:
    """What a connection is told before it is closed, in JSON as all errors are."""
    body = orjson.dumps({"error": message})
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


class PatientHttp(HttpToolsProtocol):
    """uvicorn's protocol, with a time by which the headers of a request must be there, the first one's and all others', and
    one in which somebody must read on of an answer that piles up here."""

    _headers_due: TimerHandle | None = None
    _reading_due: TimerHandle | None = None
    _header_bytes = 0
    _began_here = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect_headers()

    def data_received(self, data: bytes) -> None:
        self._began_here = False
        super().data_received(data)
        # What came before the headers in the same piece of data is not told apart from them, so a message counts from its second.
        if self._headers_due is not None and not self._began_here:
            self._header_bytes += len(data)
            if self._header_bytes > HEADER_MAX_BYTES and not self.transport.is_closing():
                told = f"The headers are larger than {HEADER_MAX_BYTES} bytes."
                self.transport.write(_last_answer("431 Request Header Fields Too Large", told))
                self.transport.close()

    def on_message_begin(self) -> None:
        self._began_here = True
        if self._headers_due is None:
            self._expect_headers()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._stop_expecting()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        self.transport.write(_last_answer("400 Bad Request", msg))
        self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._expect_reading()

    def resume_writing(self) -> None:
        self._stop_waiting_for_reading()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_expecting()
        self._stop_waiting_for_reading()
        super().connection_lost(exc)

    def _expect_headers(self) -> None:
        self._headers_due = self.loop.call_later(HEADER_SECONDS, self._give_up)

    def _stop_expecting(self) -> None:
        self._header_bytes = 0
        if self._headers_due is not None:
            self._headers_due.cancel()
            self._headers_due = None

    def _expect_reading(self) -> None:
        self._reading_due = self.loop.call_later(UNREAD_SECONDS, self._check_reading, self.transport.get_write_buffer_size())

    def _check_reading(self, unread: int) -> None:
        """Whoever read on, however slowly, has as much time again."""
        if self.transport.get_write_buffer_size() < unread:
            self._expect_reading()
        else:
            self.transport.abort()

    def _stop_waiting_for_reading(self) -> None:
        if self._reading_due is not None:
            self._reading_due.cancel()
            self._reading_due = None

    def _give_up(self) -> None:
        self._headers_due = None
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()
