"""The table of all routes: finds the row for a method and a path.

| pattern segment | matches |
|-----------------|---------|
| ``text``        | exactly that segment; wins over the others |
| ``{name}``      | one segment that is not empty |
| ``{name...}``   | the rest of the path, slashes included; only as the last segment |
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, final

from tidegate.doors.routes import Kind, Route

#: Paths of streaming routes that a table remembers.
_KNOWN: Final = 4096


class _Node:
    __slots__ = ("parameter", "routes", "static", "tails")

    def __init__(self) -> None:
        self.static: dict[str, _Node] = {}
        self.parameter: _Node | None = None
        self.routes: dict[str, tuple[Route, list[str]]] = {}
        self.tails: dict[str, tuple[Route, list[str]]] = {}


@final
class RouteTable:
    """Finds the row for a method and a path. Built once; read by every request."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        self._root = _Node()
        self._exact: dict[tuple[str, str], Route] = {}
        self._known: dict[tuple[str, str], tuple[Route, dict[str, str]]] = {}
        for route in self.routes:
            self._add(route)

    def _add(self, route: Route) -> None:
        if "{" not in route.pattern:
            self._claim(self._exact, (route.method, route.pattern), route)
            return
        # A tree: else every pattern would be tried in turn for each request.
        node, names = self._root, list[str]()
        for segment in route.pattern[1:].split("/"):
            if segment.endswith("...}"):
                names.append(segment[1:-4])
                self._claim(node.tails, route.method, (route, names))
                return
            if segment.startswith("{"):
                names.append(segment[1:-1])
                node.parameter = node.parameter or _Node()
                node = node.parameter
            else:
                node = node.static.setdefault(segment, _Node())
        self._claim(node.routes, route.method, (route, names))

    @staticmethod
    def _claim[K, V](table: dict[K, V], key: K, value: V) -> None:
        if key in table:
            raise ValueError(f"two routes for {key}")
        table[key] = value

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]] | None:
        """(row, path parameters), or None: the path is unknown or the method is not served.

        The parameters may be shared with other requests of the same path: read them only.
        """
        known = self._known.get((method, path))
        if known is None:
            known = self._search(method, path)
            if known is not None and known[0].kind is Kind.STREAM:
                # The hot paths are few: a tenant's dispatch routes. Others may hold anything.
                if len(self._known) >= _KNOWN:
                    self._known.clear()
                self._known[method, path] = known
        return known

    def _search(self, method: str, path: str) -> tuple[Route, dict[str, str]] | None:
        route = self._exact.get((method, path))
        if route is not None:
            return route, {}
        values: list[str] = []
        found = self._walk(self._root, path.split("/"), 1, method, values)
        if found is None:
            return None
        route, names = found
        return route, dict(zip(names, values, strict=True))

    def _walk(
        self, node: _Node, segments: list[str], index: int, method: str, values: list[str]
    ) -> tuple[Route, list[str]] | None:
        if index == len(segments):
            return node.routes.get(method)
        segment = segments[index]
        known = node.static.get(segment)
        if known is not None:
            # May find nothing although it fits so far (another method, a longer path): then the
            # parameter is tried.
            found = self._walk(known, segments, index + 1, method, values)
            if found is not None:
                return found
        if node.parameter is not None and segment:
            values.append(segment)
            found = self._walk(node.parameter, segments, index + 1, method, values)
            if found is not None:
                return found
            # That way led nowhere: its value must not stand among those of the next.
            values.pop()
        tail = node.tails.get(method)
        if tail is not None:
            values.append("/".join(segments[index:]))
        return tail
