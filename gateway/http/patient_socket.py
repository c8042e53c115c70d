"""How many frames a WebSocket may bring, and that somebody reads what it is told.

uvicorn answers pings without end, whether or not anybody reads the answers, and parses whatever comes in one piece before
anything else has a turn.
"""

from asyncio import Lock
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.http11 import Request

from gateway.http.patience import ExpectsReading, last_answer

PIECE_BYTES = 2 * 1024
CONTROL_FRAMES_A_SECOND = 20
# Of messages, which may come in parts; the most that one message can have, too.
FRAMES_A_SECOND = 500


class PatientSocket(ExpectsReading, WebSocketsSansIOProtocol):
    """uvicorn's protocol of WebSockets; who sends more frames than anybody needs, or reads no answers, goes."""

    _second = _controls = _frames = 0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._sending = Lock()

    async def send(self, message: Any) -> None:
        """One after the other, each until it has left: what is not read counts for whoever asked for it."""
        async with self._sending:
            await super().send(message)
            await self.writable.wait()

    def data_received(self, data: bytes) -> None:
        """In pieces: the parser reads all that it is given, and frames can be tiny."""
        for start in range(0, len(data), PIECE_BYTES):
            super().data_received(data[start : start + PIECE_BYTES])
            if self.transport.is_closing():
                return
        if not self.handshake_initiated:  # the head was there as a whole, and websockets would wait for another one
            self._refuse("400 Bad Request", "The request for a WebSocket cannot be read: it has a body, or too large headers.")

    def handle_connect(self, event: Request) -> None:
        answer = self.conn.accept(event)
        if answer.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
            super().handle_connect(event)
        else:
            self._refuse(f"{answer.status_code} {answer.reason_phrase}", answer.body.decode().strip())

    def _refuse(self, status: str, told: str) -> None:
        self.handshake_initiated = self.handshake_complete = self.close_sent = True
        self.transport.write(last_answer(status, told))
        self.transport.close()

    def shutdown(self) -> None:
        try:
            super().shutdown()
        except Exception:  # in whatever state this one is, the server goes on with the others
            self.transport.abort()

    def handle_text(self, event: Frame) -> None:
        if self._counts_frame():
            super().handle_text(event)

    def handle_bytes(self, event: Frame) -> None:
        if self._counts_frame():
            super().handle_bytes(event)

    def handle_cont(self, event: Frame) -> None:
        if self._counts_frame() and len(self.frames) < FRAMES_A_SECOND:
            super().handle_cont(event)
        else:
            self.transport.abort()

    def send_receive_event_to_app(self) -> None:
        if self.curr_msg_data_type == "text":
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                self.conn.fail(1007)
                self.handle_parser_exception()
                return
        super().send_receive_event_to_app()

    def handle_ping(self) -> None:
        if not self._counts():
            self.transport.abort()
        elif self.writable.is_set():  # else the answer waits, and goes with what is written next
            super().handle_ping()

    def handle_pong(self, event: Frame) -> None:
        if not self._counts():
            self.transport.abort()
        else:
            super().handle_pong(event)

    def _counts(self) -> bool:
        """Whether another control frame is within what one second allows."""
        self._begin_second()
        self._controls += 1
        return self._controls <= CONTROL_FRAMES_A_SECOND

    def _counts_frame(self) -> bool:
        """Whether another frame is within what one second allows; else the connection goes."""
        self._begin_second()
        self._frames += 1
        if self._frames > FRAMES_A_SECOND:
            self.transport.abort()
        return self._frames <= FRAMES_A_SECOND

    def _begin_second(self) -> None:
        second = int(self.loop.time())
        if second != self._second:
            self._second, self._controls, self._frames = second, 0, 0
