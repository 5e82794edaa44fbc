"""Settings of endpoints: checked against what the plugin declares, masked where they are shown.

Rules and words are those of spec/http/01 section 3.15.1. Unknown settings are kept, defaults are
not filled in. A model selector with a combined scope (``llm&vision``) is checked for what every
model needs; the reference refuses it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from tidegate.errors import BadRequest

MOST_SETTINGS: Final = 64
#: Secrets up to this length are masked whole.
_SHORT: Final = 6
_SHOWN: Final = 2
#: Shown in the place of a secret that could not be read.
_HIDDEN: Final = "*" * _SHORT

type Values = Mapping[str, Any]
type Config = Iterable[Mapping[str, Any]]


def check_settings(settings: Values, config: Config) -> None:
    """BadRequest names the first setting that does not fit, in the words that Dify shows."""
    try:
        _check(settings, config)
    except BadRequest as refused:
        raise BadRequest(f"failed to validate settings: {refused}") from None


def _check(settings: Values, config: Config) -> None:
    if len(settings) > MOST_SETTINGS:
        raise BadRequest(f"too many setting fields: {len(settings)}, at most {MOST_SETTINGS}")
    for declared in config:
        name = str(declared.get("name"))
        value = settings.get(name)
        if value is not None:
            # A type that newer manifests have is passed on unchecked: the plugin knows it.
            check = _CHECKS.get(str(declared.get("type")))
            if check is not None:
                check(name, value, declared)
        elif declared.get("required"):
            raise BadRequest(f"missing required setting: {name}")


def masked(settings: Values, config: Config) -> dict[str, Any]:
    """The settings as they may be shown: of a secret its ends at most."""
    secrets = _secrets(config)
    return {
        # By the declaration, not by what looks like a secret: only the plugin's author knows.
        name: mask(value) if name in secrets and isinstance(value, str) else value
        for name, value in settings.items()
    }


def hidden(settings: Values, config: Config) -> dict[str, Any]:
    """The settings when the secrets could not be read: nothing of them."""
    secrets = _secrets(config)
    return {name: _HIDDEN if name in secrets else value for name, value in settings.items()}


def unmasked(settings: Values, before: Values, config: Config) -> dict[str, Any]:
    """``settings`` where a mask that came back stands for the secret that it was made of."""
    secrets = _secrets(config)
    return {
        # Dify's form sends back what it was shown. Only the exact mask counts: a user may well
        # type stars.
        name: before[name] if name in secrets and _is_mask_of(value, before.get(name)) else value
        for name, value in settings.items()
    }


def mask(secret: str) -> str:
    """``se********en``."""
    if len(secret) <= _SHORT:
        return "*" * len(secret)
    return secret[:_SHOWN] + "*" * (len(secret) - 2 * _SHOWN) + secret[-_SHOWN:]


def _is_mask_of(value: Any, secret: Any) -> bool:
    # Of one that could not be read stars were shown; saved as they come back they would be it.
    return isinstance(secret, str) and value in (mask(secret), _HIDDEN)


def _secrets(config: Config) -> set[str]:
    return {str(one.get("name")) for one in config if one.get("type") == "secret-input"}


# --------------------------------------------------------------------------- checks


type _Check = Callable[[str, Any, Mapping[str, Any]], None]


def _text(name: str, value: Any, declared: Mapping[str, Any]) -> None:
    if not isinstance(value, str):
        raise BadRequest(f"setting {name} is not a string")


def _select(name: str, value: Any, declared: Mapping[str, Any]) -> None:
    _text(name, value, declared)
    options = [one.get("value") for one in declared.get("options") or ()]
    if value not in options:
        raise BadRequest(f"setting {name} is not a valid option")


def _boolean(name: str, value: Any, declared: Mapping[str, Any]) -> None:
    if not isinstance(value, bool):
        raise BadRequest(f"setting {name} is not a boolean")


def _app(name: str, value: Any, declared: Mapping[str, Any]) -> None:
    _object(name, value, ("app_id",))


def _model(name: str, value: Any, declared: Mapping[str, Any]) -> None:
    needed = _SCOPES.get(str(declared.get("scope")), ())
    _object(name, value, ("provider", "model", "model_type", *needed))


def _object(name: str, value: Any, needed: tuple[str, ...]) -> None:
    if not isinstance(value, dict):
        raise BadRequest(f"setting {name} is not an object")
    for key in needed:
        if value.get(key) is None:
            raise BadRequest(f"setting {name} is missing {key}")


_SCOPES: Final[dict[str, tuple[str, ...]]] = {
    "rerank": ("score_threshold", "top_n"),
    "tts": ("voice",),
    "vision": ("completion_params",),
}
_CHECKS: Final[dict[str, _Check]] = {
    "text-input": _text,
    "secret-input": _text,
    "select": _select,
    "boolean": _boolean,
    "app-selector": _app,
    "model-selector": _model,
}
