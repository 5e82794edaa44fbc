"""Codecs without I/O: everything that is said on a pipe, a link or an HTTP stream.

| module   | between | what |
|----------|---------|------|
| lines    | plugin, host | cutting standard output into bounded lines |
| session  | plugin, host | one line: events and messages, requests, answers of back-calls |
| sessions | plugin, host | the open sessions of a process, and what each line means for them |
| frames   | host, api | frames of the link |
| heads    | host, api | what an OPEN frame asks for |
| sse      | api, caller | server-sent events |

Nothing here imports a socket, a process or a room of ours above the ground floor.
"""

__all__ = ["frames", "heads", "lines", "session", "sessions", "sse"]
