"""What systems of others send, that is more work than bytes: it is given up, and holds nobody up."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from gateway import outbound
from gateway.access.jwks import Fetcher, KeysAway
from gateway.coalition.connector import PartnerSilent
from gateway.lookups import Loop
from gateway.outbound import PIECE_BYTES
from partners.protocols.rest_json import RestJson

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
ENDLESS = {
    "interim answers": (b"", b"HTTP/1.1 103 E\r\n\r\n"),
    "chunks of a byte": (CHUNKED, b"1\r\n \r\n"),
    "chunks with words beside them": (CHUNKED, b"1;a=" + b"x" * 200 + b"\r\n \r\n"),
    "headers": (OK, b"X: y\r\n"),
    "a body without an end": (OK + b"\r\n", b" " * 1_000),
}


@asynccontextmanager
async def sending(begin: bytes, again: bytes) -> AsyncIterator[tuple[str, list[int]]]:
    """A system that answers so, for as long as anybody reads; and how many bytes it got rid of each time."""
    sent: list[int] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(begin)
        sent.append(0)
        try:
            while True:
                writer.write(again * (16_384 // len(again)))
                await writer.drain()
                sent[-1] += 16_384
        except ConnectionError:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1")
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", sent


@pytest.mark.parametrize("kind", ENDLESS)
async def test_an_answer_without_an_end_is_given_up_whatever_it_is_made_of(kind: str) -> None:
    why = r"more than \d+ bytes, or \d+ chunks" if kind == "chunks of a byte" else None
    async with sending(*ENDLESS[kind]) as (host, sent):
        fetcher, partner = Fetcher([host]), RestJson(f"http://{host}")
        async with asyncio.timeout(20):
            with pytest.raises(KeysAway, match=why):
                await fetcher.json(f"http://{host}/keys")
        async with asyncio.timeout(20):
            with pytest.raises(PartnerSilent, match=why):
                await partner.balance("ann")
        await fetcher.close()
        await partner.close()
    assert len(sent) == 2


@pytest.mark.parametrize("kind", ["interim answers", "chunks of a byte"])
async def test_while_such_an_answer_is_read_others_have_their_turns(kind: str) -> None:
    """On the gateway's own loop: between two pieces everybody who is ready comes first."""
    rounds = 0

    async def work() -> None:
        async def count() -> None:
            nonlocal rounds
            while True:
                rounds += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        async with sending(*ENDLESS[kind]) as (host, _):
            partner = RestJson(f"http://{host}")
            with pytest.raises(PartnerSilent):
                await partner.balance("ann")
            await partner.close()
        counting.cancel()

    await asyncio.to_thread(uvloop.run, work(), loop_factory=Loop)
    read = 6 * 2_000 if kind == "chunks of a byte" else 64 * 1024
    assert rounds > read // PIECE_BYTES


async def test_a_whole_answer_of_the_size_that_is_allowed_is_read() -> None:
    keys = b'{"keys": [' + b" " * (200 * 1024) + b"]}"
    async with sending(OK + b"Content-Length: %d\r\n\r\n" % len(keys) + keys, b" ") as (host, _):
        fetcher = Fetcher([host])
        assert await fetcher.json(f"http://{host}/keys") == {"keys": []}
        await fetcher.close()


async def test_what_is_below_tls_is_counted_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Session tickets are no data, and a server can send as many as it likes."""
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    self_signed(certificate, key)
    ours = ssl.create_default_context(cafile=certificate)
    monkeypatch.setattr(outbound, "trusted", lambda: ours)
    for tickets, told in ((2, None), (3_000, "ReadError|ConnectError")):
        theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        theirs.load_cert_chain(certificate, key)
        theirs.num_tickets = tickets

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(OK + b'Content-Length: 13\r\n\r\n{"balance":5}')
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", ssl=theirs)
        async with server:
            partner = RestJson(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            if told is None:
                assert await partner.balance("ann") == 5
            else:
                with pytest.raises(PartnerSilent, match=told):
                    await partner.balance("ann")
            await partner.close()


def self_signed(certificate: Path, key: Path) -> None:
    """A certificate of the loopback's own, for an hour."""
    made = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")]), datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, made.public_key(), x509.random_serial_number(), now, now + timedelta(hours=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
    certificate.write_bytes(builder.sign(made, SHA256()).public_bytes(Encoding.PEM))
    key.write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


async def test_an_answer_that_nobody_asked_for_is_not_the_next_ones() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            said = b'{"reference":"own","balance":5}'
            writer.write(OK + b"Content-Length: %d\r\n\r\n" % len(said) + said + b"HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\n{}")

    server = await asyncio.start_server(answer, "127.0.0.1")
    async with server:
        partner = RestJson(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        assert [(await partner.credit("ann", 5, f"r{n}")).reference for n in range(3)] == ["own"] * 3
        await partner.close()
