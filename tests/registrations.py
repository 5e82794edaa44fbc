"""What the SDK declares of a small plugin when it is debugged."""

MANIFEST = {
    "version": "0.0.1",
    "type": "plugin",
    "author": "acme",
    "name": "kitchen",
    "repo": None,
    "description": {"en_US": "A kitchen"},
    "icon": "icon.svg",
    "icon_dark": None,
    "label": {"en_US": "Kitchen"},
    "created_at": "2025-03-30T14:38:08.927240Z",
    "resource": {"memory": 268435456, "permission": {"tool": {"enabled": True}}},
    "plugins": {"tools": ["provider/kitchen.yaml"], "models": [], "endpoints": []},
    "meta": {
        "version": "0.0.1",
        "arch": ["amd64", "arm64"],
        "runner": {"language": "python", "version": "3.12", "entrypoint": "main"},
        "minimum_dify_version": None,
    },
}
TOOL = {
    "identity": {
        "author": "acme",
        "name": "kitchen",
        "description": {"en_US": ""},
        "icon": "icon.svg",
        "label": {"en_US": "Kitchen"},
        "tags": [],
    },
    "credentials_schema": [],
    "oauth_schema": None,
    "tools": [
        {
            "identity": {"author": "acme", "name": "cook", "label": {"en_US": "Cook"}},
            "description": {"human": {"en_US": "Cooks"}, "llm": "cooks"},
            "parameters": [],
            "extra": {"python": {"source": "tools/cook.py"}},
            "has_runtime_parameters": False,
            "output_schema": None,
        }
    ],
}
ICON = b'<svg xmlns="http://www.w3.org/2000/svg"/>'
