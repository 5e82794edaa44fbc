"""Every kind of declaration: from YAML to the JSON that Dify gets."""

import pytest

from tests.crafted_packages import LIMIT, MANIFEST, PROVIDER, TOOL, plugin, zipped
from tidegate.errors import PackageRejected
from tidegate.packages import open_package

OAUTH = {"client_schema": None, "credentials_schema": None}
CONFIG = {
    "name": "key",
    "type": "secret-input",
    "scope": None,
    "required": True,
    "default": None,
    "options": None,
    "multiple": False,
    "label": {"en_US": "Key"},
    "help": None,
    "url": None,
    "placeholder": None,
}
CONFIG_YAML = "{name: key, type: secret-input, required: true, label: {en_US: Key}}"


def declared(**changes) -> dict:
    return open_package(zipped(plugin(**changes)), limit=LIMIT).declaration(verified=False)


def offering(files: str, path: str, **changes) -> dict:
    """The declaration of a plugin that offers one other kind."""
    manifest = MANIFEST.replace("tools: [provider/weather.yaml]", f"{files}: [{path}]")
    return declared(manifest__yaml=manifest, **changes)


# --------------------------------------------------------------------------- tools


def test_tool_provider_is_whole():
    provider = PROVIDER.replace("tools:", f"credentials_schema: [{CONFIG_YAML}]\ntools:")
    tool = (
        TOOL
        + """
parameters:
  - name: city
    type: select
    form: llm
    required: true
    label: {en_US: City}
    human_description: {en_US: Which city}
    llm_description: the city
    default: 7
    min: 0
    max: 1.5
    options: [{value: 1, label: {en_US: One}}, {value: no, label: {en_US: No}, icon: a.svg}]
output_schema: {type: object, properties: {on: {type: number, default: 1.0}}}
"""
    )
    found = declared(provider___weather__yaml=provider, tools___today__yaml=tool)
    assert found["tool"] == {
        "identity": {
            "author": "acme",
            "name": "weather",
            "description": {"en_US": "Tells the weather"},
            "icon": "icon.svg",
            "icon_dark": "",
            "label": {"en_US": "Weather"},
            "tags": ["weather"],
        },
        "credentials_schema": [CONFIG],
        "oauth_schema": None,
        "tools": [
            {
                "identity": {"author": "acme", "name": "today", "label": {"en_US": "Today"}},
                "description": {
                    "human": {"en_US": "Weather of today"},
                    "llm": "weather of today",
                },
                "parameters": [
                    {
                        "name": "city",
                        "label": {"en_US": "City"},
                        "human_description": {"en_US": "Which city"},
                        "type": "select",
                        "scope": None,
                        "form": "llm",
                        "llm_description": "the city",
                        "required": True,
                        "auto_generate": None,
                        "template": None,
                        "default": 7,
                        "min": 0,
                        "max": 1.5,
                        "multiple": False,
                        "precision": None,
                        "options": [
                            {"value": "1", "label": {"en_US": "One"}, "icon": ""},
                            {"value": "no", "label": {"en_US": "No"}, "icon": "a.svg"},
                        ],
                    }
                ],
                "output_schema": {
                    "type": "object",
                    "properties": {"on": {"type": "number", "default": 1}},
                },
                "has_runtime_parameters": False,
            }
        ],
    }
    assert {key for key in found if found[key] is None} == set()
    assert not {"model", "endpoint", "trigger", "datasource", "agent_strategy"} & set(found)


def test_tool_without_parameters_has_null_and_no_output_schema():
    tool = declared()["tool"]["tools"][0]
    assert tool["parameters"] is None
    assert "output_schema" not in tool


@pytest.mark.parametrize(
    "listed",
    [
        f"credentials_schema: [{CONFIG_YAML}]",
        f"credentials_schema: {{key: {CONFIG_YAML}}}",
        f"credentials_for_provider: {{key: {CONFIG_YAML.replace('name: key, ', '')}}}",
        f"credentials_schema: []\ncredentials_for_provider: [{CONFIG_YAML}]",
        f"credentials_schema: {{}}\ncredentials_for_provider: [{CONFIG_YAML}]",
        f"credentials_schema: ~\ncredentials_for_provider: [{CONFIG_YAML}]",
    ],
)
def test_tool_credentials_may_be_written_in_several_ways(listed):
    provider = f"{PROVIDER}{listed}\n"
    assert declared(provider___weather__yaml=provider)["tool"]["credentials_schema"] == [CONFIG]


def test_oauth_of_a_tool_provider():
    provider = f"{PROVIDER}oauth_schema: {{client_schema: [{CONFIG_YAML}]}}\n"
    oauth = declared(provider___weather__yaml=provider)["tool"]["oauth_schema"]
    assert oauth == OAUTH | {"client_schema": [CONFIG]}


def test_inline_tools_come_before_those_in_files():
    inline = "{identity: {author: a, name: inline, label: {en_US: I}}, description: {llm: x}}"
    provider = PROVIDER.replace("[tools/today.yaml]", f"[tools/today.yaml, {inline}]")
    tools = declared(provider___weather__yaml=provider)["tool"]["tools"]
    assert [tool["identity"]["name"] for tool in tools] == ["inline", "today"]


def test_last_provider_file_wins():
    manifest = MANIFEST.replace("[provider/weather.yaml]", "[provider/weather.yaml, other.yaml]")
    other = PROVIDER.replace("name: weather", "name: other")
    found = declared(manifest__yaml=manifest, other__yaml=other)
    assert found["tool"]["identity"]["name"] == "other"


def test_provider_may_stand_in_the_manifest_itself():
    manifest = MANIFEST.replace("  tools: [provider/weather.yaml]", "  tools: ~")
    manifest += (
        "tool:\n  identity: {author: acme, name: inline, label: {en_US: I}, icon: icon.svg}\n"
    )
    found = declared(manifest__yaml=manifest)
    assert found["tool"]["identity"]["name"] == "inline"
    assert found["tool"]["tools"] == []


def test_own_description_and_tags_of_a_provider_stay():
    provider = PROVIDER.replace(
        "icon: icon.svg", "icon: icon.svg, description: {en_US: Own}, tags: [finance]"
    )
    identity = declared(provider___weather__yaml=provider)["tool"]["identity"]
    assert identity["description"] == {"en_US": "Own"}
    assert identity["tags"] == ["finance"]


# --------------------------------------------------------------------------- models

MODEL_PROVIDER = """
provider: acme
label: {en_US: Acme}
icon_small: {en_US: icon.svg, zh_Hans: icon.svg}
help: {title: {en_US: Key}, url: {en_US: "https://acme.example"}}
supported_model_types: [llm, rerank]
configurate_methods: [predefined-model, customizable-model]
provider_credential_schema:
  credential_form_schemas:
    - variable: key
      label: {en_US: Key}
      type: select
      default: 1.10
      options: [{value: no, label: {en_US: No}, show_on: [{variable: a, value: 1}]}]
model_credential_schema:
  model: {label: {en_US: Name}}
models:
  llm: {position: models/llm/_position.yaml, predefined: ["models/llm/*.yaml", "models/llm/b*"]}
  unknown: {position: nowhere.yaml}
"""
MODELS = {
    "models/llm/b.yaml": b"model: b-1\nmodel_type: llm\n",
    "models/llm/_position.yaml": b"[b-1, a-1]",
    "models/llm/a.yaml": b"""
model: a-1
model_type: llm
label: {zh_Hans: "\xe7\x94\xb2"}
features: [vision]
model_properties: {mode: chat, context_size: 4096, 1: on}
parameter_rules:
  - {name: temperature, use_template: temperature, max: 2}
  - {name: style, type: string, options: [a, 1], label: {en_US: Style}, default: off}
pricing: {input: "0.0010", unit: 0.001, currency: USD}
""",
}


def model(provider: str = MODEL_PROVIDER, **changes) -> dict:
    files = plugin(
        manifest__yaml=MANIFEST.replace("tools: [provider/weather.yaml]", "models: [p.yaml]"),
        p__yaml=provider,
    )
    data = zipped(files | MODELS | changes)
    return open_package(data, limit=LIMIT).declaration(verified=False)["model"]


def test_model_provider_is_whole():
    found = model()
    del found["models"]
    assert found == {
        "provider": "acme",
        "label": {"en_US": "Acme"},
        "description": {"en_US": "Tells the weather"},
        "icon_small": {"en_US": "icon.svg", "zh_Hans": "icon.svg"},
        "icon_large": None,
        "icon_small_dark": None,
        "icon_large_dark": None,
        "background": None,
        "help": {"title": {"en_US": "Key"}, "url": {"en_US": "https://acme.example"}},
        "supported_model_types": ["llm", "rerank"],
        "configurate_methods": ["predefined-model", "customizable-model"],
        "provider_credential_schema": {
            "credential_form_schemas": [
                {
                    "variable": "key",
                    "label": {"en_US": "Key"},
                    "type": "select",
                    "required": False,
                    "default": "1.10",
                    "options": [
                        {
                            "label": {"en_US": "No"},
                            "value": "no",
                            "show_on": [{"variable": "a", "value": "1"}],
                        }
                    ],
                    "help": None,
                    "url": None,
                    "placeholder": None,
                    "max_length": 0,
                    "show_on": [],
                }
            ]
        },
        "model_credential_schema": {
            "model": {"label": {"en_US": "Name"}, "placeholder": None},
            "credential_form_schemas": None,
        },
        "position": {"llm": ["b-1", "a-1"]},
    }


def test_model_files_come_in_archive_order_once_per_pattern():
    assert [found["model"] for found in model()["models"]] == ["b-1", "b-1", "a-1"]


def test_model_is_whole():
    found = model()["models"][2]
    rules = found.pop("parameter_rules")
    assert found == {
        "model": "a-1",
        "label": {"en_US": "a-1", "zh_Hans": "甲"},
        "model_type": "llm",
        "features": ["vision"],
        "fetch_from": "predefined-model",
        "model_properties": {"mode": "chat", "context_size": 4096, "1": "on"},
        "deprecated": False,
        "pricing": {"input": "0.001", "output": None, "unit": "0.001", "currency": "USD"},
    }
    help_text = rules[0].pop("help")
    assert help_text["en_US"]
    assert rules == [
        {
            "name": "temperature",
            "use_template": "temperature",
            "label": {"en_US": "temperature"},
            "type": "float",
            "required": False,
            "default": 0,
            "min": 0,
            "max": 2,
            "precision": 2,
            "options": [],
        },
        {
            "name": "style",
            "use_template": None,
            "label": {"en_US": "Style"},
            "type": "string",
            "help": None,
            "required": False,
            "default": "off",
            "min": None,
            "max": None,
            "precision": None,
            "options": ["a", "1"],
        },
    ]


TEMPLATES = {
    "temperature": ("float", 0, 0, 1, 2, []),
    "top_p": ("float", 1, 0, 1, 2, []),
    "top_k": ("int", 50, 1, 100, 0, []),
    "presence_penalty": ("float", 0, 0, 1, 2, []),
    "frequency_penalty": ("float", 0, 0, 1, 2, []),
    "max_tokens": ("int", 64, 1, 2048, 0, []),
    "response_format": ("string", None, None, None, None, ["JSON", "XML"]),
    "json_schema": ("string", None, None, None, None, []),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_template_fills_what_a_rule_does_not_say(name):
    content = f"model: m\nmodel_type: llm\nparameter_rules: [{{name: x, use_template: {name}}}]"
    rule = model(**{"models/llm/a.yaml": content.encode()})["models"][2]["parameter_rules"][0]
    fields = ("type", "default", "min", "max", "precision", "options")
    assert tuple(rule[field] for field in fields) == TEMPLATES[name]
    assert rule["label"] == {"en_US": "x"}
    assert {"en_US", "zh_Hans"} <= set(rule["help"])


def test_unknown_template_is_rejected_with_its_place():
    content = b"model: m\nparameter_rules:\n- {name: x, use_template: nothing}"
    expected = r"models/llm/a.yaml: parameter_rules\[0\] use_template nothing not found \(line 3\)"
    with pytest.raises(PackageRejected, match=expected):
        model(**{"models/llm/a.yaml": content})


def test_models_may_be_written_inline():
    provider = MODEL_PROVIDER.split("models:\n")[0]
    assert model(provider)["models"] == []
    assert "position" not in model(provider)
    found = model(provider + "models: [{model: inline, model_type: llm}]\n")
    assert [one["model"] for one in found["models"]] == ["inline"]


def test_too_many_patterns_are_rejected():
    listed = ", ".join(f"m{n}.yaml" for n in range(257))
    provider = MODEL_PROVIDER.split("models:\n")[0] + f"models: {{llm: {{predefined: [{listed}]}}}}"
    with pytest.raises(PackageRejected, match="more than 256 patterns"):
        model(provider)


# --------------------------------------------------------------------------- endpoints


def test_endpoint_group_is_whole():
    group = (
        f"settings: [{CONFIG_YAML}]\nendpoints: [e.yaml, {{path: /x, method: POST, hidden: yes}}]"
    )
    found = offering("endpoints", "g.yaml", g__yaml=group, e__yaml="path: /y\nmethod: GET\n")
    assert found["endpoint"] == {
        "settings": [CONFIG],
        "endpoints": [
            {"path": "/x", "method": "POST", "hidden": True},
            {"path": "/y", "method": "GET", "hidden": False},
        ],
    }


def test_empty_endpoint_group_has_nulls():
    found = offering("endpoints", "g.yaml", g__yaml="other: 1\n")
    assert found["endpoint"] == {"settings": None, "endpoints": None}


def test_broken_inline_endpoint_ends_the_list():
    group = "endpoints: [{path: /a, method: GET}, {path: [b]}, {path: /c, method: GET}]"
    found = offering("endpoints", "g.yaml", g__yaml=group)
    assert [one["path"] for one in found["endpoint"]["endpoints"]] == ["/a"]


# --------------------------------------------------------------------------- the other kinds

IDENTITY = "identity: {author: acme, name: x, label: {en_US: X}, icon: icon.svg}"
FULL_IDENTITY = {
    "author": "acme",
    "name": "x",
    "description": {"en_US": ""},
    "icon": "icon.svg",
    "icon_dark": "",
    "label": {"en_US": "X"},
    "tags": [],
}


def test_agent_strategy_is_whole():
    strategy = """
identity: {author: acme, name: s, label: {en_US: S}}
description: {en_US: Thinks}
features: [history-messages]
parameters:
  - {name: model, type: model-selector, scope: tool-call&llm, required: true, label: {en_US: M}}
"""
    provider = f"{IDENTITY}\nstrategies: [s.yaml]\n"
    found = offering("agent_strategies", "p.yaml", p__yaml=provider, s__yaml=strategy)
    assert found["agent_strategy"] == {
        "identity": FULL_IDENTITY,
        "strategies": [
            {
                "identity": {"author": "acme", "name": "s", "label": {"en_US": "S"}},
                "description": {"en_US": "Thinks"},
                "parameters": [
                    {
                        "name": "model",
                        "label": {"en_US": "M"},
                        "help": {"en_US": ""},
                        "type": "model-selector",
                        "auto_generate": None,
                        "template": None,
                        "scope": "tool-call&llm",
                        "required": True,
                        "default": None,
                        "min": None,
                        "max": None,
                        "precision": None,
                        "options": None,
                    }
                ],
                "output_schema": None,
                "features": ["history-messages"],
            }
        ],
    }


def test_datasource_is_whole():
    source = """
identity: {author: acme, name: d, label: {en_US: D}}
description: {en_US: Reads}
parameters: [{name: url, type: string, label: {en_US: U}, description: {en_US: Where}}]
"""
    provider = (
        f"{IDENTITY}\nprovider_type: website_crawl\ncredentials_schema: {{key: {CONFIG_YAML}}}\n"
        "datasources: [d.yaml]\n"
    )
    found = offering("datasources", "p.yaml", p__yaml=provider, d__yaml=source)["datasource"]
    identity = dict(FULL_IDENTITY)
    del identity["icon_dark"]
    parameter = found["datasources"][0]["parameters"][0]
    assert parameter["description"] == {"en_US": "Where"}
    assert "output_schema" not in found["datasources"][0]
    assert found["datasources"][0]["identity"] == {
        "author": "acme",
        "name": "d",
        "label": {"en_US": "D"},
        "icon": "",
    }
    del found["datasources"]
    assert found == {
        "identity": identity,
        "credentials_schema": [CONFIG],
        "oauth_schema": None,
        "provider_type": "website_crawl",
    }


def test_trigger_is_whole():
    event = """
identity: {author: acme, name: e, label: {en_US: E}}
description: {en_US: Something happened}
parameters:
  - {name: a, type: select, label: {en_US: A}, default: false, min: 0,
     options: [{value: 1, label: {en_US: O}}]}
  - {name: b, type: string, label: {en_US: B}, multiple: false, required: true}
output_schema: {type: object}
"""
    provider = f"""
{IDENTITY}
subscription_schema: {{key: {CONFIG_YAML}}}
subscription_constructor:
  credentials_schema: [{CONFIG_YAML}]
events: [e.yaml]
"""
    found = offering("triggers", "p.yaml", p__yaml=provider, e__yaml=event)["trigger"]
    assert found == {
        "identity": FULL_IDENTITY
        | {"description": {"en_US": "Tells the weather"}, "tags": ["weather"]},
        "subscription_schema": [CONFIG],
        "subscription_constructor": {"parameters": [], "credentials_schema": [CONFIG]},
        "events": [
            {
                "identity": {"author": "acme", "name": "e", "label": {"en_US": "E"}},
                "parameters": [
                    {
                        "name": "a",
                        "label": {"en_US": "A"},
                        "type": "select",
                        "required": False,
                        "default": False,
                        "min": 0,
                        "options": [{"label": {"en_US": "O"}, "value": 1}],
                    },
                    {"name": "b", "label": {"en_US": "B"}, "type": "string", "required": True},
                ],
                "description": {"en_US": "Something happened"},
                "output_schema": {"type": "object"},
            }
        ],
    }


def test_trigger_without_constructor_has_null():
    found = offering("triggers", "p.yaml", p__yaml=f"{IDENTITY}\nsubscription_constructor: no\n")
    assert found["trigger"]["subscription_constructor"] is None
    assert found["trigger"]["subscription_schema"] == []
    assert found["trigger"]["events"] == []


# --------------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"provider___weather__yaml": None}, "provider/weather.yaml is named in the package"),
        ({"tools___today__yaml": None}, "tools/today.yaml is named in the package but not in it"),
        ({"tools___today__yaml": "a: ["}, "tools/today.yaml is not valid YAML"),
        ({"tools___today__yaml": "[]"}, "tools/today.yaml: the file takes a mapping"),
        ({"tools___today__yaml": "identity: {name: [x]}"}, "tools/today.yaml: identity.name takes"),
        (
            {"provider___weather__yaml": "credentials_schema: {a: b}"},
            "_schema takes a mapping below 'a'",
        ),
        ({"provider___weather__yaml": "oauth_schema: text"}, "oauth_schema takes a mapping"),
        ({"provider___weather__yaml": "tools: [a.yaml, {identity: a}]"}, r"tools\[1\].identity"),
        (
            {"provider___weather__yaml": PROVIDER.replace("tools/today.yaml", "../../etc/passwd")},
            "not in it",
        ),
    ],
)
def test_broken_declaration_says_which_file_and_field(changes, match):
    with pytest.raises(PackageRejected, match=match):
        declared(**changes)


def test_path_of_a_file_may_be_written_with_a_dot():
    provider = PROVIDER.replace("tools/today.yaml", "./tools/today.yaml")
    assert len(declared(provider___weather__yaml=provider)["tool"]["tools"]) == 1


def test_declaration_is_the_callers_own_copy():
    package = open_package(zipped(plugin()), limit=LIMIT)
    package.declaration(verified=True)["tool"]["tools"].clear()
    again = package.declaration(verified=False)
    assert len(again["tool"]["tools"]) == 1
    assert again["verified"] is False
    assert package.declaration(verified=True)["verified"] is True


def test_verified_in_the_manifest_does_not_count():
    assert declared(manifest__yaml=MANIFEST + "verified: true\n")["verified"] is False
