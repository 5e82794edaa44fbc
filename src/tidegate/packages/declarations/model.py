"""Models and their provider."""

from __future__ import annotations

from tidegate.errors import PackageRejected
from tidegate.packages.declarations.documents import Documents
from tidegate.packages.declarations.path_patterns import matches
from tidegate.packages.declarations.templates import TEMPLATES
from tidegate.packages.shapes import (
    I18N,
    OPTIONAL_I18N,
    Json,
    Misfit,
    amount,
    anything,
    decimal,
    flag,
    free_mapping,
    list_of,
    members,
    nullable,
    number,
    optional_text,
    or_empty,
    record,
    text,
    whole,
)
from tidegate.packages.yaml_nodes import Mapping, Node, Scalar, Sequence

_KINDS = ("llm", "text_embedding", "tts", "speech2text", "moderation", "rerank")
# Each pattern is compared with each file: 256 is far above what any plugin has.
_MOST_PATTERNS = 256

_SHOW_ON = or_empty(list_of(record({"variable": text, "value": text})))
_FORM = record(
    {
        "variable": text,
        "label": I18N,
        "type": text,
        "required": flag,
        "default": optional_text,
        "options": or_empty(list_of(record({"label": I18N, "value": text, "show_on": _SHOW_ON}))),
        "help": OPTIONAL_I18N,
        "url": optional_text,
        "placeholder": OPTIONAL_I18N,
        "max_length": amount,
        "show_on": _SHOW_ON,
    }
)
_FORMS = {"credential_form_schemas": list_of(_FORM)}
_TEXTS = list_of(text)

_RULE = record(
    {
        "name": text,
        "use_template": optional_text,
        "label": OPTIONAL_I18N,
        "type": optional_text,
        "help": OPTIONAL_I18N,
        "required": flag,
        "default": anything,
        "min": number,
        "max": number,
        "precision": whole,
        "options": _TEXTS,
    }
)


def _rule(node: Node | None) -> Json:
    """One parameter rule, filled from its template."""
    rule = _RULE(node)
    # The label is set before the template is looked at: its label is never used (08 section 6).
    if not (rule["label"] and rule["label"]["en_US"]):
        rule["label"] = {"en_US": rule["name"]}
    used = rule["use_template"]
    if used:
        if used not in TEMPLATES:
            assert node is not None  # noqa: S101 - a rule without a node has no template
            raise Misfit(f"use_template {used} not found", node)
        for name, value in TEMPLATES[used].items():
            if rule[name] is None:
                rule[name] = value
    rule["options"] = rule["options"] or []
    return rule


_MODEL = record(
    {
        "model": text,
        "label": I18N,
        "model_type": text,
        "features": _TEXTS,
        "fetch_from": lambda node: text(node) or "predefined-model",
        "model_properties": free_mapping,
        "deprecated": flag,
        "parameter_rules": or_empty(list_of(_rule)),
        "pricing": nullable(
            record(
                {"input": decimal, "output": nullable(decimal), "unit": decimal, "currency": text}
            )
        ),
    }
)


def _model(node: Node | None) -> Json:
    model = _MODEL(node)
    model["label"]["en_US"] = model["label"]["en_US"] or model["model"]
    return model


_PROVIDER = record(
    {
        "provider": text,
        "label": I18N,
        "description": OPTIONAL_I18N,
        "icon_small": OPTIONAL_I18N,
        "icon_large": OPTIONAL_I18N,
        "icon_small_dark": OPTIONAL_I18N,
        "icon_large_dark": OPTIONAL_I18N,
        "background": optional_text,
        "help": nullable(record({"title": I18N, "url": I18N})),
        "supported_model_types": _TEXTS,
        "configurate_methods": _TEXTS,
        "provider_credential_schema": nullable(record(_FORMS)),
        "model_credential_schema": nullable(
            record({"model": record({"label": I18N, "placeholder": OPTIONAL_I18N})} | _FORMS)
        ),
        "position": nullable(record({kind: _TEXTS for kind in _KINDS}, omit=_KINDS)),
    },
    omit=("position",),
)


def model_provider(documents: Documents, node: Node | None) -> Json:
    """A model provider with its predefined models, wherever they are written."""
    provider = _PROVIDER(node)
    listed = members(node).get("models")
    if isinstance(listed, Mapping):
        provider["position"], patterns = _collections(documents, listed)
        provider["models"] = _predefined(documents, patterns)
    else:
        provider["models"] = list_of(_model)(listed) or [] if isinstance(listed, Sequence) else []
    return provider


def _collections(documents: Documents, listed: Mapping) -> tuple[Json, list[str]]:
    """(position by kind, patterns of model files) of a ``models:`` mapping, in its order."""
    position: dict[str, Json] = {}
    patterns: list[str] = []
    for kind, node in members(listed).items():
        if kind not in _KINDS or not isinstance(node, Mapping):
            continue
        fields = members(node)
        order = fields.get("position")
        if isinstance(order, Scalar):
            position[kind] = documents.decode(order.text, _TEXTS)
        predefined = fields.get("predefined")
        if isinstance(predefined, Sequence):
            patterns += [item.text for item in predefined.items if isinstance(item, Scalar)]
    if len(patterns) > _MOST_PATTERNS:
        raise PackageRejected(f"the model provider names more than {_MOST_PATTERNS} patterns")
    return position, patterns


def _predefined(documents: Documents, patterns: list[str]) -> list[Json]:
    """Every file that a pattern matches, in archive order, once for each pattern that does."""
    return [
        documents.decode(name, _model)
        for name in documents.names
        if not name.endswith("_position.yaml")
        for pattern in patterns
        if matches(pattern, name)
    ]
