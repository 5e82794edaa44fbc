"""Runs in a plugin's own Python: mends SDKs older than 0.1.1 as their modules are imported.

``old_sdks`` copies this file into such an environment, with a ``.pth`` file that imports it when
Python starts. Nothing of the SDK is replaced as a whole: a function is wrapped where it is, and
left alone where it is not.

| module of the SDK | what it does | here |
|---|---|---|
| core.server.stdio.request_reader | reads 512 bytes, then splits all it has | reads 64 KiB |
| entities.model.llm | sends the whole prompt back with each chunk | none of it |
| interfaces.model.ai_model | counts tokens of any text | estimates those of long ones |
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

READ = 65536
LONG_TEXT = 100_000


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
        return len(text) if len(text) >= LONG_TEXT else int(count(self, text))

    model._get_num_tokens_by_gpt2 = estimated


_MENDS = {
    "dify_plugin.core.server.stdio.request_reader": _read_more,
    "dify_plugin.entities.model.llm": _send_no_prompts,
    "dify_plugin.interfaces.model.ai_model": _estimate_long_texts,
}


class _Finder(MetaPathFinder):
    """Finds those modules as everybody does, and mends what they became."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        mend = _MENDS.get(fullname)
        spec = PathFinder.find_spec(fullname, path, target) if mend is not None else None
        if spec is not None and spec.loader is not None and mend is not None:
            spec.loader = _Mender(spec.loader, mend)
        return spec


class _Mender(Loader):
    def __init__(self, loader: Loader, mend: Callable[[Any], None]) -> None:
        self._loader = loader
        self._mend = mend

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        self._mend(module)


def install() -> None:
    """Mend what is imported from now on. Called by the ``.pth`` file, before any of the SDK."""
    sys.meta_path.insert(0, _Finder())
