"""What a plugin offers, decoded from its YAML into the JSON that Dify knows.

One module per kind, each a table of fields (spec/plugin/08 section 6); :func:`decode_kinds` puts
them together.
"""

from __future__ import annotations

from tidegate.packages.declarations.documents import Documents
from tidegate.packages.declarations.kinds import CATEGORIES, KINDS, decode_kinds

__all__ = ["CATEGORIES", "KINDS", "Documents", "decode_kinds"]
