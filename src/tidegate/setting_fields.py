"""How a setting is written down and read: its kinds, its checks, the secret among them.

``settings`` lists the settings themselves; nobody else needs this module.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from tidegate.errors import SettingInvalid

_TRUE = {"1", "t", "true", "yes", "on"}
_FALSE = {"0", "f", "false", "no", "off"}
#: What may differ between plugins (TIDEGATE_PER_PLUGIN).
_PER_PLUGIN = {
    "burn_limit", "idle_stop", "instance_sessions", "instances_max", "instances_min",
    "plugin_backlog", "plugin_cpus", "plugin_memory", "plugin_open_files", "plugin_processes",
    "plugin_sessions", "quarantine", "recycle_age", "recycle_memory", "scale_idle", "scale_wait",
    "stall_limit", "start_limit", "stop_grace", "stopped_limit",
}  # fmt: skip


class Secret(str):
    """Text that prints as ``***``; ``reveal()`` gives it. Never put one into a log field."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'" if self.reveal() else "''"

    def __str__(self) -> str:
        return "***" if self.reveal() else ""

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    def reveal(self) -> str:
        """The text itself, for the one place that needs it."""
        # Not str(self), which is what hides it.
        return str.__add__("", self)


def _bool(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ValueError("takes true or false")


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


# By the name of the type: fields are read with annotations that are text.
_READERS: dict[str, tuple[Callable[[str], Any], str]] = {
    "str": (str, "takes text"),
    "int": (int, "takes a whole number"),
    "float": (float, "takes a number"),
    "bool": (_bool, "takes true or false"),
    "Secret": (Secret, "takes text"),
    "tuple[str, ...]": (_list, "takes a comma-separated list"),
}


def setting(
    default: Any,
    doc: str,
    *,
    choices: tuple[str, ...] = (),
    least: float | None = None,
    name: str = "",
) -> Any:
    """One setting. Its variable is the field's name in capitals, unless ``name`` says other."""
    return field(
        default=default,
        metadata={"doc": doc, "choices": choices, "least": least, "name": name},
    )


@final
@dataclass(frozen=True, slots=True)
class Home:
    """The data folder (``TIDEGATE_HOME``) and the fixed places in it."""

    root: Path

    @property
    def run(self) -> Path:
        """Sockets, pid files, fingerprints: valid while the roles run."""
        return self.root / "run"

    @property
    def logs(self) -> Path:
        """Logs of the roles; ``plugins/<author>/<name>.log`` below it."""
        return self.root / "logs"

    @property
    def keys(self) -> Path:
        """Generated keys, readable by the owner only."""
        return self.root / "keys"

    @property
    def broker(self) -> Path:
        """Queue of the embedded broker."""
        return self.root / "broker.db"

    @property
    def database(self) -> Path:
        """Rows, when DB_TYPE is sqlite."""
        return self.root / "tidegate.db"

    def below(self, path: str) -> Path:
        """``path`` itself when absolute, else below the data folder."""
        return self.root / path


def variable_of(item: dataclasses.Field[Any]) -> str:
    """Name of the environment variable that a field is read from."""
    return str(item.metadata["name"] or item.name.upper())


def read(name: str, item: dataclasses.Field[Any], text: str) -> Any:
    """The value of one variable; SettingInvalid says what it takes. Called by Settings.load."""
    reader, takes = _READERS[str(item.type)]
    # A key that does not fit would else stand in the log of every restart.
    shown = "***" if reader is Secret else repr(text)
    try:
        # Variables come from files with line ends and from YAML with blanks.
        value = reader(text.strip())
    except ValueError:
        raise SettingInvalid(f"{name} {takes}, not {shown}") from None
    choices = item.metadata["choices"]
    if choices and value not in choices:
        raise SettingInvalid(f"{name} takes one of {', '.join(filter(None, choices))}, not {shown}")
    least = item.metadata["least"]
    if least is not None and value < least:
        raise SettingInvalid(f"{name} must be at least {least:g}, not {shown}")
    return value


def override(entry: str, items: Iterable[dataclasses.Field[Any]]) -> tuple[str, dict[str, Any]]:
    """One entry of TIDEGATE_PER_PLUGIN as (plugin id, values by field). SettingInvalid."""
    fields = {item.name: item for item in items}
    plugin, *pairs = entry.split(":")
    values = {}
    for pair in pairs:
        name, _, text = pair.partition("=")
        name = name.strip().lower().removeprefix("tidegate_")
        # Named, not ignored: an operator who mistypes a limit must not believe that it holds.
        if name not in _PER_PLUGIN:
            raise SettingInvalid(
                f"TIDEGATE_PER_PLUGIN: {name.upper()!r} of {plugin} is not one of "
                + ", ".join(sorted(_PER_PLUGIN)).upper()
            )
        field_name = f"tidegate_{name}"
        shown = f"TIDEGATE_PER_PLUGIN: {name.upper()} of {plugin}"
        values[field_name] = read(shown, fields[field_name], text)
    return plugin, values
