"""Server-sent events out of bytes, wherever the network cut them (WHATWG HTML, section 9.2.6)."""

from __future__ import annotations

from dataclasses import dataclass

MAX_EVENT_BYTES = 4 * 1024 * 1024


class EventTooLarge(ValueError):
    """An event is larger than any piece of an answer can be."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event: what it is called, if anything, and its data."""

    name: str
    data: bytes

    @property
    def encoded(self) -> bytes:
        """It as it is sent."""
        name = f"event: {self.name}\n".encode() if self.name else b""
        return b"%sdata: %s\n\n" % (name, self.data.replace(b"\n", b"\ndata: "))


class EventDecoder:
    """Bytes in, by ``feed``; whole events out. ``flush`` gives what stands at the end without its empty line."""

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max_event_bytes
        self._rest = b""
        self._parts: list[bytes] = []
        self._name = ""
        self._data: list[bytes] = []
        self._size = 0
        self._unread = 0

    def feed(self, piece: bytes) -> list[Event]:
        """The events that *piece* completes. Raises ``EventTooLarge``."""
        if b"\n" not in piece and b"\r" not in piece and not self._rest.endswith(b"\r"):
            self._parts.append(piece)  # a long line, which is looked at when it is whole
            self._unread += len(piece)
            self._check(self._unread + len(self._rest))
            return []
        text = b"".join((self._rest, *self._parts, piece))
        self._parts, self._unread = [], 0
        if b"\r" in text:
            held = text.endswith(b"\r")  # the other half of the line's end may be still to come
            text = text[: len(text) - held].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            tail = b"\r" if held else b""
        else:
            tail = b""
        *lines, rest = text.split(b"\n")
        self._rest = rest + tail
        events = [event for line in lines if (event := self._line(line)) is not None]
        self._check(len(self._rest))
        return events

    def _check(self, unread: int) -> None:
        if self._size + unread > self._max_event_bytes:
            raise EventTooLarge(f"an event of more than {self._max_event_bytes} bytes")

    def flush(self) -> list[Event]:
        """What is left when the bytes have ended: an event whose end did not come."""
        text = b"".join((self._rest, *self._parts))
        last = [event for line in (text.rstrip(b"\r"), b"") if (event := self._line(line)) is not None]
        self._rest, self._parts, self._unread = b"", [], 0
        return last

    def _line(self, line: bytes) -> Event | None:
        if not line:
            return self._dispatch()
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field in (b"data", b"\xef\xbb\xbfdata"):  # the mark of UTF-8 may stand at the very beginning
            self._data.append(value)
            self._size += len(value) + 1
        elif field.startswith(b"data"):  # a colon is lost, and text with it: passed over, nobody would miss it
            self._data.append(line)
            self._size += len(line) + 1
        elif field == b"event":
            self._name = value.decode("utf-8", "replace")
        return None  # comments, ids and retry times say nothing about an answer

    def _dispatch(self) -> Event | None:
        name, data = self._name, self._data
        self._name, self._data, self._size = "", [], 0
        return Event(name, b"\n".join(data)) if data else None
