"""The YAML files that a declaration is spread over, read with one budget for all of them."""

from __future__ import annotations

import posixpath
from typing import final

from tidegate.errors import PackageRejected
from tidegate.packages.archive import Archive
from tidegate.packages.shapes import Json, Misfit, Shape
from tidegate.packages.yaml_nodes import MOST_BYTES, Node, Scalar, Sequence, compose

#: Most nodes of all YAML files of one package together, aliases written out (T-S4).
MOST_NODES = 500_000


@final
class Documents:
    """Reads and decodes the YAML files of one archive. Made for one decoding, then dropped."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._nodes = 0

    @property
    def names(self) -> tuple[str, ...]:
        """All files of the package in archive order."""
        return self._archive.names

    def node(self, name: str) -> Node | None:
        """The composed document; PackageRejected when the file is missing or no YAML."""
        path = posixpath.normpath(name)
        if path not in self._archive:
            raise PackageRejected(f"{name[:200]} is named in the package but not in it")
        if self._archive.size(path) > MOST_BYTES:
            raise PackageRejected(f"{name} is too large: at most {MOST_BYTES} bytes are taken")
        node = compose(self._archive.read(path), path)
        self._nodes += node.size if node else 0
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


def split_items(node: Node | None, shape: Shape) -> tuple[list[str], list[Json]]:
    """A list that holds paths of files and whole items: (paths, items as ``shape`` reads them).

    Anything but a list counts as empty, as in the reference.
    """
    paths: list[str] = []
    inline: list[Json] = []
    if isinstance(node, Sequence):
        for item in node.items:
            if isinstance(item, Scalar):
                paths.append(item.text)
            elif not isinstance(item, Sequence):
                inline.append(shape(item))
    return paths, inline


def with_files(documents: Documents, node: Node | None, shape: Shape) -> list[Json]:
    """All items of such a list: those written inline, then those in files of their own."""
    paths, inline = split_items(node, shape)
    return inline + [documents.decode(path, shape) for path in paths]
