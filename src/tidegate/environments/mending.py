"""Runs in a plugin's own Python: mends the SDK as its modules are imported.

``sdks`` copies this file into each environment, with a ``.pth`` file that imports it when Python
starts. Nothing of the SDK is replaced as a whole: a function is wrapped where it is, and left
alone where it is not.

| module of the SDK | what it does | here |
|---|---|---|
| core.server.stdio.response_writer | a session that only writes keeps all others out | in turns |

And in SDKs older than 0.1.1 (spec/plugin/07 section 6):

| core.server.stdio.request_reader | reads 512 bytes, then splits all it has | reads 64 KiB |
| entities.model.llm | sends the whole prompt back with each chunk | none of it |
| interfaces.model.ai_model | counts tokens of any text | estimates those of long ones |
"""

from __future__ import annotations

import sys
import time
from importlib.machinery import PathFinder

# Every Python of the environment imports this file first: what is only for the type checker
# would double the time that it takes to start.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

#: Seconds after which a session that has not stopped writing lets the others in, once.
TURN = 0.005
#: Not 0, with which gevent would not look at sockets and timers.
_GIVE_WAY = 1e-6
READ = 65536
LONG_TEXT = 100_000


def _write_in_turns(module: Any) -> None:
    """All sessions share one thread, and a write to a pipe that is read at once never waits."""
    writer = getattr(module, "StdioResponseWriter", None)
    write = getattr(writer, "write", None)
    monkey = sys.modules.get("gevent.monkey")
    if write is None or monkey is None or not monkey.is_module_patched("threading"):
        return  # sessions are threads: they take turns by themselves
    module.StdioResponseWriter.write = _in_turns(write, sys.modules["gevent"], monkey)


def _in_turns(write: Callable[[Any, str], None], gevent: Any, monkey: Any) -> Callable[..., None]:
    thread_id = monkey.get_original("_thread", "get_ident")
    home, hub = thread_id(), gevent.get_hub()
    turn, began = None, time.perf_counter()

    def written(self: Any, data: str) -> None:
        nonlocal turn, began
        write(self, data)
        # Only where a message ends: with another's in its midst, neither could be read.
        if not data.endswith("\n") or thread_id() != home or gevent.getcurrent() is hub:
            return
        # While the loop went round the others had their turn, and this one owes nobody.
        now, round_ = time.perf_counter(), getattr(hub.loop, "iteration", None)
        if round_ != turn:
            turn, began = round_, now
        elif now - began > TURN:
            gevent.sleep(_GIVE_WAY)

    return written


def _read_more(module: Any) -> None:
    read = getattr(module, "tp_read", None)
    if read is not None:
        module.tp_read = lambda descriptor, size: read(descriptor, max(size, READ))


def _send_no_prompts(module: Any) -> None:
    for name in ("LLMResultChunk", "LLMResult"):
        model = getattr(module, name, None)
        if model is not None:
            model.__init__ = _without_prompts(model.__init__)


def _without_prompts(make: Callable[..., None]) -> Callable[..., None]:
    def made(self: Any, **data: Any) -> None:
        make(self, **{**data, "prompt_messages": []})

    return made


def _estimate_long_texts(module: Any) -> None:
    model = getattr(module, "AIModel", None)
    count = getattr(model, "_get_num_tokens_by_gpt2", None)
    if model is None or count is None:
        return

    def estimated(self: Any, text: str) -> int:
        # Counting a long text stops the plugin, and all its calls; too many tokens is the safe
        # error.
        return len(text) if len(text) >= LONG_TEXT else int(count(self, text))

    model._get_num_tokens_by_gpt2 = estimated


_MENDS: dict[str, Callable[[Any], None]] = {
    "dify_plugin.core.server.stdio.response_writer": _write_in_turns
}
_OLD: dict[str, Callable[[Any], None]] = {
    "dify_plugin.core.server.stdio.request_reader": _read_more,
    "dify_plugin.entities.model.llm": _send_no_prompts,
    "dify_plugin.interfaces.model.ai_model": _estimate_long_texts,
}


class _Finder:
    """Finds those modules as everybody does, and mends what they became."""

    def __init__(self, mends: dict[str, Callable[[Any], None]]) -> None:
        self._mends = mends

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        mend = self._mends.get(fullname)
        spec = PathFinder.find_spec(fullname, path, target) if mend is not None else None
        if spec is not None and spec.loader is not None and mend is not None:
            # Around its own loader: what the SDK does at import is done, whatever its version.
            mender: Any = _Mender(spec.loader, mend)
            spec.loader = mender
        return spec


class _Mender:
    def __init__(self, loader: Any, mend: Callable[[Any], None]) -> None:
        self._loader = loader
        self._mend = mend

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        made: ModuleType | None = self._loader.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        self._mend(module)


def install(*, old: bool) -> None:
    """Mend what is imported from now on. Called by the ``.pth`` file, before any of the SDK."""
    sys.meta_path.insert(0, _Finder(_MENDS | _OLD if old else _MENDS))
