"""One WebSocket to LiveKit: how it is opened, and what goes over it. No protocol.

Pings are ours, not aiohttp's, where something depends on their pongs: they carry
a number. aiohttp's own heartbeat, which carries nothing, ends a connection whose
other side has gone silent.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import ssl
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Final, Union

import aiohttp

from supervisor.dispatch.livekit.access import Access
from supervisor.within import within

logger = logging.getLogger("greenroom.dispatch.livekit")

CONNECT_TIMEOUT: Final = 10.0
# A silent server is left after one and a half of it. LiveKit pings every 10 s.
HEARTBEAT: Final = 20.0
# For the closing handshake. A server that goes down has half a second in all.
CLOSE_TIMEOUT: Final = 0.1
# LiveKit's own limit for what we send it; an offer has the room's metadata in it.
MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024

REFUSED: Final = frozenset({401, 403})


class CannotConnect(Exception):
    """There is no connection. The text is for the operator and holds no secret.

    Args:
        what: a sentence.
        is_final: trying again cannot help.
    """

    def __init__(self, what: str, *, is_final: bool = False) -> None:
        self.is_final = is_final
        super().__init__(what)


@dataclass(frozen=True)
class Pong:
    """The answer to :meth:`Connection.ping`."""

    serial: int


class Connection:
    """An open connection. Runs on: the server's loop, every method."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse[Any]) -> None:
        self._socket = socket
        # What waits to be written. Its length is bounded by what the other side
        # asks, and by the heartbeat: one that does not read does not answer.
        self._outbox: asyncio.Queue[Union[bytes, int]] = asyncio.Queue()
        self._writer = asyncio.ensure_future(self._write())

    def send(self, data: bytes) -> None:
        """Send *data*, after everything that was sent before. Does not wait."""
        self._outbox.put_nowait(data)

    def ping(self, serial: int) -> None:
        """Send a ping, after everything that was sent before. Does not wait."""
        self._outbox.put_nowait(serial)

    async def _write(self) -> None:
        try:
            while True:
                item = await self._outbox.get()
                if isinstance(item, int):
                    await self._socket.ping(str(item).encode())
                else:
                    await self._socket.send_bytes(item)
        except (OSError, aiohttp.ClientError) as exc:
            # The reader learns of it too, and ends the connection.
            logger.debug("the connection to LiveKit broke while writing: %r", exc)

    async def incoming(self) -> AsyncGenerator[Union[bytes, Pong], None]:
        """Yield messages and pongs until the connection ends, for whatever reason."""
        while True:
            message = await self._socket.receive()
            if message.type is aiohttp.WSMsgType.BINARY:
                yield message.data
            elif message.type is aiohttp.WSMsgType.PING:
                with contextlib.suppress(OSError, aiohttp.ClientError):  # the next read tells
                    await self._socket.pong(message.data)
            elif message.type is aiohttp.WSMsgType.PONG:
                if message.data.isdigit():  # else it answers aiohttp's heartbeat
                    yield Pong(int(message.data))
            elif message.type is aiohttp.WSMsgType.TEXT:
                logger.warning("LiveKit sent text, which is ignored")
            else:
                logger.debug("the connection to LiveKit ended: %s", message.type.name)
                return

    @property
    def ended(self) -> str:
        """How it ended, for the log."""
        error = self._socket.exception()
        if error is not None:
            return type(error).__name__
        code = self._socket.close_code
        return "without a word" if code in (None, 1006) else f"closed with code {code}"

    async def close(self) -> None:
        """End it. What was not written yet is not."""
        self._writer.cancel()
        await asyncio.gather(self._writer, return_exceptions=True)
        await self._socket.close()


def make_tls_context(access: Access) -> ssl.SSLContext | None:
    """Return what checks the server's certificate; None for an open connection.

    Authorities are the system's, or those that ``SSL_CERT_FILE`` or ``SSL_CERT_DIR`` name.
    """
    return ssl.create_default_context() if access.is_encrypted else None


async def connect(
    session: aiohttp.ClientSession,
    access: Access,
    tls: ssl.SSLContext | None,
) -> Connection:
    """Open a connection.

    Raises:
        CannotConnect: there is none.
    """
    try:
        socket = await within(
            CONNECT_TIMEOUT,
            session.ws_connect(
                access.agent_url,
                headers={"Authorization": f"Bearer {access.token()}"},
                ssl=True if tls is None else tls,
                proxy=access.proxy,
                autoping=False,
                heartbeat=HEARTBEAT,
                max_msg_size=MAX_MESSAGE_BYTES,
                timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_TIMEOUT),
            ),
        )
    except (OSError, aiohttp.ClientError, asyncio.TimeoutError) as exc:
        # Not "from": aiohttp's exceptions hold the request with its headers.
        raise explained(exc, access) from None
    return Connection(socket)


def explained(error: BaseException, access: Access) -> CannotConnect:
    """Return *error* as a sentence, made from what holds no secret."""
    where = f"LiveKit at {access.place}"
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return CannotConnect(f"the proxy does not let us through to {where}: HTTP {error.status}")
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return CannotConnect(f"the proxy on the way to {where} is out of reach")
    if isinstance(error, aiohttp.ClientResponseError):
        if error.status in REFUSED:
            what = f"{where} refuses the API key or its secret: HTTP {error.status}"
            return CannotConnect(what, is_final=True)
        return CannotConnect(f"{where} does not take agents at this address: HTTP {error.status}")
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        reason = getattr(error.certificate_error, "verify_message", "") or "not valid"
        hint = "SSL_CERT_FILE may name the authorities to trust"
        return CannotConnect(f"{where} has a certificate that is not trusted: {reason}; {hint}")
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.os_error.errno
        reason = os.strerror(number) if number else type(error.os_error).__name__
        return CannotConnect(f"{where} is out of reach: {reason}")
    if isinstance(error, asyncio.TimeoutError):
        return CannotConnect(f"{where} did not answer within {CONNECT_TIMEOUT:g} s")
    return CannotConnect(f"{where} is out of reach: {type(error).__name__}")
