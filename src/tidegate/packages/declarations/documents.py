"""The YAML files that a declaration is spread over, read with one budget for all of them."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import final

from tidegate.errors import PackageRejected
from tidegate.packages.archive import Files
from tidegate.packages.shapes import Json, Misfit, Shape, inside
from tidegate.packages.yaml_nodes import (
    MOST_BYTES,
    TEXT_PER_NODE,
    Node,
    Scalar,
    Sequence,
    compose,
)

#: Most nodes of all YAML files of a package, aliases written out (T-S4), and one for each
#: TEXT_PER_NODE bytes of what is read for them; real ones: up to 63,128.
MOST_NODES = 250_000


@final
class Documents:
    """Reads and decodes the YAML files of one archive. Made for one decoding, then dropped."""

    def __init__(self, archive: Files) -> None:
        self._archive = archive
        self._nodes = 0

    @property
    def names(self) -> tuple[str, ...]:
        """All files of the package in archive order."""
        return self._archive.names

    def node(self, name: str) -> Node | None:
        """The composed document; PackageRejected when the file is missing or no YAML."""
        # As names in the archive are: `./tools/a.yaml` is the same file.
        path = posixpath.normpath(name)
        if path not in self._archive:
            raise PackageRejected(f"{name[:200]} is named in the package but not in it")
        if self._archive.size(path) > MOST_BYTES:
            raise PackageRejected(f"{name} is too large: at most {MOST_BYTES} bytes are taken")
        content = self._archive.read(path)
        node = compose(content, path)
        # The text counts as well: a file of 2 MB of comments may be named ten thousand times.
        self._nodes += (node.size if node else 0) + len(content) // TEXT_PER_NODE
        if self._nodes > MOST_NODES:
            raise PackageRejected("the YAML files of the package have too many values")
        return node

    def decode(self, name: str, shape: Shape) -> Json:
        """The file as ``shape`` reads it; PackageRejected names file, field and line."""
        node = self.node(name)
        try:
            return shape(node)
        except Misfit as misfit:
            raise PackageRejected(f"{name}: {misfit}") from None


def with_files(
    documents: Documents, fields: Mapping[str, Node], name: str, shape: Shape
) -> list[Json]:
    """The list ``fields[name]``, which holds whole items and paths of files with one item each.

    Items written inline come first. Anything but a list counts as empty, as in the reference.
    """
    listed = fields.get(name)
    items = listed.items if isinstance(listed, Sequence) else []
    inline = [
        inside(f".{name}[{index}]", shape, item)
        for index, item in enumerate(items)
        if not isinstance(item, Scalar | Sequence)
    ]
    paths = [item.text for item in items if isinstance(item, Scalar)]
    return inline + [documents.decode(path, shape) for path in paths]
