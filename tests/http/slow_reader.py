"""Who asks and hardly reads: a connection with as little room for answers as the kernel gives."""

import asyncio
import socket
from urllib.parse import urlsplit


async def slow_reader(url: str) -> socket.socket:
    """Connected, and read by nobody until somebody does."""
    address, made = urlsplit(url), socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    made.setblocking(False)
    await asyncio.get_running_loop().sock_connect(made, (address.hostname, address.port))
    return made
