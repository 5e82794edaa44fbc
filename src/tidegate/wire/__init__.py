"""Codecs without I/O: everything that is said on a pipe, a link or an HTTP stream.

| module     | between | what |
|------------|---------|------|
| lines      | plugin, host | cutting standard output into bounded lines |
| session    | plugin, host | one line: events and messages, requests, answers of back-calls |
| recovery   | plugin, host | what can be saved of a line that is no message |
| sessions   | plugin, host | the open sessions of a process, and what each line means for them |
| ports      | plugin, host | who gets what a plugin says: its callers, its log |
| debugging  | developer, host | how a plugin introduces itself over TCP |
| serverless | function, host | the same over HTTP |
| connector  | connector, host | who builds functions: launches and what comes of them |
| embeddings | function, host | requests that are too large for one call, split and merged |
| inner_api  | host, Dify | what a back-call asks, and frames of the answer |
| frames     | host, api | frames of the link |
| heads      | host, api | what an OPEN frame asks for |
| pieces     | all of them | long texts that are not copied to be put together |
| sse        | api, caller | server-sent events |
| raw_http   | api, plugin | a webhook's request as bytes, and the headers of its answer |

Nothing here imports a socket, a process or a room of ours above the ground floor.
"""

__all__ = [
    "connector",
    "debugging",
    "embeddings",
    "frames",
    "heads",
    "inner_api",
    "lines",
    "pieces",
    "ports",
    "raw_http",
    "recovery",
    "serverless",
    "session",
    "sessions",
    "sse",
]
