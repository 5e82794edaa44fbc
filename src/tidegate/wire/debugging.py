"""How a plugin that is being debugged introduces itself over TCP (spec/plugin/02 section 3).

    AWAITING_KEY --handshake--> KEY_GIVEN --admit()--> REGISTERING --end--> COMPLETE
         \\______________________ any mistake: RegistrationRefused ______________/

One JSON object ``{"type", "data"}`` per line, blank lines between them:

| type                 | data | how often |
|----------------------|------|-----------|
| handshake            | ``{"key"}`` | once, first |
| manifest_declaration | the manifest | once |
| tool_declaration, …  | list of providers, the first one counts | once each |
| asset_chunk          | ``{"filename", "data": base64}`` | any number |
| end                  | ignored | last; what follows are the lines of wire/session |

Nothing but the handshake is looked at before the key was admitted (D-33), and what is held is
bounded at every moment.
"""

from __future__ import annotations

import base64
import binascii
import enum
import re
from typing import Final, final

import msgspec

from tidegate.errors import RegistrationRefused

#: Longest handshake line: nobody has shown a key yet.
MOST_BEFORE_KEY: Final = 4096
#: Longest line of a declaration in bytes; those of real plugins have up to 3 MB.
MOST_LINE: Final = 16 << 20
#: Most bytes of all declarations together.
MOST_DECLARED: Final = 64 << 20
#: Most bytes of all assets together.
MOST_ASSETS: Final = 50 << 20
_MOST_FILES: Final = 2000
#: A file directly in ``_assets/``: no folders, nothing that moves a cursor.
_NAME: Final = re.compile(r"[^/\\\x00-\x1f\x7f]{1,255}")

#: Message type -> kind of provider, and the words for it in errors.
KINDS: Final[dict[str, tuple[str, str]]] = {
    "tool_declaration": ("tool", "tools"),
    "model_declaration": ("model", "models"),
    "endpoint_declaration": ("endpoint", "endpoints"),
    "agent_strategy_declaration": ("agent_strategy", "agent strategy"),
    "datasource_declaration": ("datasource", "datasource"),
    "trigger_declaration": ("trigger", "triggers"),
}


class Stage(enum.Enum):
    """How far a registration is."""

    AWAITING_KEY = "awaiting key"
    KEY_GIVEN = "key given"
    REGISTERING = "registering"
    COMPLETE = "complete"


class _Message(msgspec.Struct):
    type: str
    data: msgspec.Raw


class _Key(msgspec.Struct):
    key: str


class _Chunk(msgspec.Struct):
    filename: str
    data: str


_decode_message: Final = msgspec.json.Decoder(_Message).decode
_decode_key: Final = msgspec.json.Decoder(_Key).decode
_decode_chunk: Final = msgspec.json.Decoder(_Chunk).decode
_decode_list: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


@final
class Registration:
    """The registration of one connection. Fed by its reader, which asks :meth:`advance`."""

    def __init__(self) -> None:
        self.stage = Stage.AWAITING_KEY
        self.key = ""
        self.manifest: bytes | None = None
        #: Kind -> JSON of its provider.
        self.providers: dict[str, bytes] = {}
        self.assets: dict[str, bytes] = {}
        # Buffers: a chunk of one byte kept by itself would take fifty.
        self._chunks: dict[str, bytearray] = {}
        self._asset_bytes = 0
        self._declared_bytes = 0
        self._held = bytearray()
        self._looked = 0
        self._fed = 0

    def feed(self, data: bytes) -> None:
        """What the connection brought."""
        self._held += data
        self._fed += len(data)

    def advance(self) -> Stage:
        """Read the lines that are there, up to the one where the caller has something to do.

        That is KEY_GIVEN (look the key up, then :meth:`admit`) and COMPLETE; any other stage
        wants more bytes. RegistrationRefused carries the line for the developer's terminal.
        """
        while self.stage in (Stage.AWAITING_KEY, Stage.REGISTERING):
            line = self._next_line()
            if line is None:
                break
            if line.strip():
                self._take(line)
        if self.stage is Stage.AWAITING_KEY and self._fed > MOST_BEFORE_KEY:
            # Blank lines are none, and a stranger may not send those for ever either.
            raise RegistrationRefused(
                f"handshake failed, no key in the first {MOST_BEFORE_KEY} bytes"
            )
        return self.stage

    def admit(self) -> None:
        """The key is good: declarations may follow."""
        self.stage = Stage.REGISTERING

    @property
    def rest(self) -> bytes:
        """What came behind the end of the registration."""
        return bytes(self._held)

    def _next_line(self) -> bytes | None:
        if self._held[:1].isspace():
            # All at once: one by one, blank lines cost twenty times what receiving them does.
            self._held = self._held.lstrip()
            self._looked = 0
        limit = MOST_LINE if self.stage is Stage.REGISTERING else MOST_BEFORE_KEY
        # From where the last look ended: a line of 16 MiB in small pieces would be searched a
        # thousand times.
        end = self._held.find(b"\n", self._looked)
        if (len(self._held) if end < 0 else end) > limit:
            raise RegistrationRefused(f"registration failed: a line is over {limit} bytes")
        if end < 0:
            self._looked = len(self._held)
            return None
        line = bytes(self._held[:end])
        del self._held[: end + 1]
        self._looked = 0
        return line

    def _take(self, line: bytes) -> None:
        try:
            message = _decode_message(line)
        except _UNREADABLE as error:
            raise RegistrationRefused(
                f"handshake failed, invalid handshake message: {error}"
            ) from None
        if self.stage is Stage.AWAITING_KEY:
            self._handshake(message)
        elif message.type == "handshake":
            raise RegistrationRefused("handshake already completed")
        elif message.type == "asset_chunk":
            self._asset(message.data)
        else:
            self._declaration(message, len(line))

    def _handshake(self, message: _Message) -> None:
        if message.type != "handshake":
            raise RegistrationRefused(
                "handshake failed, invalid handshake message: the key comes first, "
                f"not {message.type[:64]}"
            )
        try:
            self.key = _decode_key(message.data).key
        except _UNREADABLE as error:
            raise RegistrationRefused(
                f"handshake failed, invalid handshake message: {error}"
            ) from None
        self.stage = Stage.KEY_GIVEN

    def _declaration(self, message: _Message, size: int) -> None:
        self._declared_bytes += size
        if self._declared_bytes > MOST_DECLARED:
            raise RegistrationRefused(f"declarations too large, at most {MOST_DECLARED} bytes")
        if message.type == "manifest_declaration":
            if self.manifest is not None:
                raise RegistrationRefused("declaration already registered")
            self.manifest = bytes(message.data)
        elif message.type in KINDS:
            self._provider(*KINDS[message.type], message.data)
        elif message.type == "end":
            self._complete()

    def _provider(self, kind: str, words: str, data: msgspec.Raw) -> None:
        if kind in self.providers:
            raise RegistrationRefused(f"{words} declaration already registered")
        try:
            listed = _decode_list(data)
        except _UNREADABLE as error:
            raise RegistrationRefused(
                f"{words} register failed, invalid {words} declaration: {error}"
            ) from None
        if listed:
            # A copy of its own: a view would keep the whole line.
            self.providers[kind] = bytes(listed[0])

    def _asset(self, data: msgspec.Raw) -> None:
        try:
            chunk = _decode_chunk(data)
        except _UNREADABLE as error:
            raise RegistrationRefused(f"transfer assets failed, error: {error}") from None
        if _NAME.fullmatch(chunk.filename) is None or not chunk.data:
            raise RegistrationRefused(
                "transfer assets failed, error: a chunk needs a plain filename and data"
            )
        # Before it is decoded. By the length of the text, a third more: close enough for a limit.
        if self._asset_bytes + len(chunk.data) > MOST_ASSETS:
            raise RegistrationRefused("assets too large, at most 50MB")
        self._keep(chunk.filename, _decoded(chunk.data))

    def _keep(self, name: str, content: bytes) -> None:
        self._asset_bytes += len(content)
        self._chunks.setdefault(name, bytearray()).extend(content)
        if len(self._chunks) > _MOST_FILES:
            raise RegistrationRefused(f"too many assets, at most {_MOST_FILES} files")

    def _complete(self) -> None:
        if self.manifest is None or not self.providers:
            raise RegistrationRefused("no registration transferred, cannot initialize")
        self.assets = {name: bytes(content) for name, content in self._chunks.items()}
        self._chunks.clear()
        self.stage = Stage.COMPLETE


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RegistrationRefused(f"assets decode failed, error: {error}") from None


def refusal_line(error: RegistrationRefused) -> bytes:
    """The one line of text that reaches the developer's terminal."""
    # Its newlines as blanks: one line is all that the SDK reads.
    text = " ".join(error.message.split())
    return text.encode("utf-8", "replace")[:2000] + b"\n"
