"""Ignore files of a plugin folder: gitignore patterns of which only exclusion is honoured.

The reference never re-includes what a ``!`` line names (spec/plugin/08 section 11); a person who
wrote one expects otherwise, so such a line is refused.
"""

from __future__ import annotations

import re
from typing import final

from tidegate.errors import PackageRejected


@final
class IgnoreRules:
    """The patterns of one ignore file."""

    def __init__(self, content: str = "") -> None:
        """Read the file's lines; PackageRejected on a re-inclusion."""
        self._rules: list[tuple[re.Pattern[str], bool]] = []
        for line in content.splitlines():
            pattern = line.rstrip()
            if not pattern or pattern.startswith("#"):
                continue
            if pattern.startswith("!"):
                raise PackageRejected(
                    f"the ignore file re-includes with {pattern!r}, which packing cannot honour: "
                    "remove the line and narrow the pattern before it"
                )
            self._rules.append(_compile(pattern))

    def excludes(self, path: str, *, folder: bool) -> bool:
        """Whether a file or a whole folder (relative, ``/`` between parts) stays out."""
        return any(
            (folder or not folders_only) and rule.fullmatch(path)
            for rule, folders_only in self._rules
        )


def _compile(pattern: str) -> tuple[re.Pattern[str], bool]:
    folders_only = pattern.endswith("/")
    body = pattern.rstrip("/")
    anchored = "/" in body
    # Translated by hand and not by fnmatch, whose `*` matches slashes.
    parts = re.split(r"(\*\*)", body.lstrip("/"))
    expression = "".join(_translate(part) for part in parts)
    # `a/**/b` also means `a/b`, `**/b` also means `b`.
    expression = expression.replace("/\0/", "/(?:.*/)?").replace("\0/", "(?:.*/)?")
    expression = expression.replace("\0", ".*")
    return re.compile(("" if anchored else "(?:.*/)?") + expression, re.DOTALL), folders_only


def _translate(part: str) -> str:
    if part == "**":
        return "\0"
    out, at = "", 0
    while at < len(part):
        character = part[at]
        end = part.find("]", at + 2) if character == "[" else -1
        if end > 0:
            body = part[at + 1 : end].replace("\\", "\\\\")
            out += "[" + ("^" + body[1:] if body[0] in "!^" else body) + "]"
            at = end
        elif character == "\\" and at + 1 < len(part):
            at += 1
            out += re.escape(part[at])
        else:
            out += {"*": "[^/]*", "?": "[^/]"}.get(character) or re.escape(character)
        at += 1
    return out
