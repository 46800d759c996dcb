"""What can go wrong on a channel, and whose fault it is.

::

    IpcError
    ├── ProtocolError    bytes or messages that break the rules; the text says which rule
    ├── ChannelClosed    we closed it, and then used it
    └── ChannelBroken    the peer is gone: end of stream, reset, or a pipe without a reader

A clean end of stream is not an error for a reader; it is an ordinary value.
"""

from __future__ import annotations


class IpcError(Exception):
    """Base of everything that a channel raises."""


class ProtocolError(IpcError):
    """The bytes or the message break the protocol.

    Raised for what a peer sent, and for what we would send: the sender refuses
    what the receiver would refuse.
    """


class PayloadTooLarge(ProtocolError):
    """A payload is over the limit.

    Args:
        what: what was to be sent, for the message.
        size: its length in bytes.
        limit: the limit in bytes.
        remedy: what the user can do about it.
    """

    def __init__(self, what: str, size: int, limit: int, remedy: str = "") -> None:
        self.what = what
        self.size = size
        self.limit = limit
        self.remedy = remedy
        super().__init__(what, size, limit, remedy)

    def __str__(self) -> str:
        text = f"{self.what} has {self.size} bytes, the limit is {self.limit}"
        return f"{text}; {self.remedy}" if self.remedy else text


class NotEncodable(ProtocolError, ValueError):
    """A message holds what cannot travel. Also a ``ValueError``, as of any encoder."""


class ChannelClosed(IpcError):
    """This side closed the channel and then used it."""


class ChannelBroken(IpcError):
    """The peer is gone."""
