"""SVG without what a browser would run (T-S4).

Icons are shown to people who may administrate: a script in one would act as them. An icon without
active content stays as it is, byte for byte; from any other the active parts are taken out, since
published plugins have such icons (one official trigger does).
"""

from __future__ import annotations

import io
import re
from typing import final
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

from tidegate.errors import PackageRejected

_ACTIVE_ELEMENTS = {
    *("script", "foreignobject", "iframe", "embed", "object", "handler", "listener"),
    *("html", "body", "link", "meta", "base", "form"),
}
_ANIMATIONS = {"set", "animate", "animatemotion", "animatetransform", "animatecolor"}
_SAFE_LINK = re.compile(r"#|data:image/(?:png|jpe?g|gif|webp)[;,]", re.IGNORECASE)
#: Largest SVG that is looked into; those of official plugins have up to 1 MB.
MOST_BYTES = 8 << 20
#: Attributes that a DTD may declare. Each is compared with all before it in one go, and those with
#: a default are added to every element.
_MOST_DECLARED = 10
_SPACES = re.compile(r"[\x00-\x20]+")


def sanitised(name: str, content: bytes) -> bytes:
    """``content`` without scripts; the same object when there are none.

    PackageRejected when it is no well-formed XML: what a browser makes of it nobody can tell.
    """
    if len(content) > MOST_BYTES:
        raise PackageRejected(f"the icon {name[:200]} is over {MOST_BYTES} bytes")
    cleaner = _Cleaner()
    try:
        cleaner.parser.Parse(content, True)
    except (expat.ExpatError, LookupError, ValueError) as error:
        raise PackageRejected(f"the icon {name[:200]} is no well-formed SVG: {error}") from None
    return cleaner.result() if cleaner.dropped else content


@final
class _Cleaner:
    """Writes a document again, as it is parsed, without its active parts."""

    def __init__(self) -> None:
        self.dropped = 0
        self._out = io.StringIO()
        self._declared = 0
        self._skipping = 0  # depth inside an element that is dropped
        self.parser = expat.ParserCreate()
        self.parser.ordered_attributes = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text
        self.parser.ProcessingInstructionHandler = self._instruction
        self.parser.ExternalEntityRefHandler = self._external
        self.parser.AttlistDeclHandler = self._attribute_declared

    def result(self) -> bytes:
        """The document without what was dropped: no DOCTYPE, comments or instructions either."""
        return self._out.getvalue().encode()

    def _start(self, name: str, flat: list[str]) -> None:
        attributes = list(zip(flat[::2], flat[1::2], strict=True))
        if self._skipping or _is_active(name, attributes):
            self.dropped += 1
            self._skipping += 1
            return
        kept = [(key, value) for key, value in attributes if not _is_active_attribute(key, value)]
        self.dropped += len(attributes) - len(kept)
        self._out.write("<" + name)
        for key, value in kept:
            self._out.write(f" {key}={quoteattr(value)}")
        self._out.write(">")

    def _end(self, name: str) -> None:
        if self._skipping:
            self._skipping -= 1
        else:
            self._out.write(f"</{name}>")

    def _text(self, text: str) -> None:
        if not self._skipping:
            self._out.write(escape(text))

    def _instruction(self, target: str, _: str) -> None:
        # An XSLT style sheet can make scripts out of anything.
        if target.lower() == "xml-stylesheet":
            self.dropped += 1

    def _attribute_declared(self, *_: object) -> None:
        self._declared += 1
        if self._declared > _MOST_DECLARED:
            raise ValueError(f"its DTD declares more than {_MOST_DECLARED} attributes")

    def _external(self, *_: object) -> int:
        # What stands elsewhere is never fetched; the text that refers to it goes.
        self.dropped += 1
        return 1


def _is_active(name: str, attributes: list[tuple[str, str]]) -> bool:
    local = _local(name)
    if local in _ANIMATIONS:
        targets = [value for key, value in attributes if _local(key) == "attributename"]
        # An animation can set a link or a handler after the page was looked at.
        return any(_local(target).startswith(("href", "on")) for target in targets)
    return local in _ACTIVE_ELEMENTS


def _is_active_attribute(key: str, value: str) -> bool:
    local = _local(key)
    if local.startswith("on"):
        return True
    if local in ("href", "src", "action", "formaction"):
        link = _SPACES.sub("", value)
        # Only a scheme can be active: what has none is a place on the same server or in the same
        # file.
        return ":" in link.split("/")[0] and not _is_harmless_link(link)
    # Browsers skip blanks and control characters inside a scheme.
    return "javascript:" in _SPACES.sub("", value).lower()


def _is_harmless_link(link: str) -> bool:
    return bool(_SAFE_LINK.match(link)) or link.lower().startswith(("http:", "https:"))


def _local(name: str) -> str:
    return name.rpartition(":")[2].strip().lower()
