"""Lists of what a tenant has installed (spec/http/01 section 3.13).

Dify asks for half a megabyte of them several times in one agent message, so each answer is kept
as ready bytes until anything changes (:meth:`tidegate.installs.Catalogue.remember`). A row that
cannot be shown is left out and logged, never the whole list (D-13).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, final

import msgspec
from msgspec import Raw

from tidegate.doors.binding import PageForm, bind
from tidegate.doors.dify import forms
from tidegate.doors.dify.times import Times
from tidegate.doors.envelope import encode, success, success_bytes
from tidegate.doors.routes import Request, Response
from tidegate.doors.services import Services
from tidegate.errors import BadRequest, InvalidIdentifier
from tidegate.ids import PluginIdentifier, plugin_id_of
from tidegate.storage import declarations, installations
from tidegate.storage.declared import CATEGORIES, EXTENSION, DeclarationBroken, parts_of
from tidegate.storage.installations import Installation
from tidegate.telemetry.logs import get_log

log = get_log("doors")

_CATEGORIES: Final = frozenset((*CATEGORIES.values(), EXTENSION))


class _Shown(msgspec.Struct):
    """What a person may look for in a declaration."""

    label: dict[str, str] | None = None
    description: dict[str, str] | None = None
    tags: list[str] | None = None


_decode_shown: Final = msgspec.json.Decoder(_Shown).decode


@final
class Lists:
    """Handlers of the lists. One per process."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._ready = services.catalogue.remember
        self._times = Times(services.settings)

    def page(self, request: Request) -> Response:
        """A page of the tenant's installations with their declarations, newest first."""
        form = bind(request, PageForm)
        tenant = request.params["tenant_id"]

        def make() -> bytes:
            with self._services.database.read() as conn:
                rows, total = installations.page(conn, tenant, form.offset, form.page_size)
                shown = [self._plugin(*one) for one in self._with_declarations(conn, rows)]
            return encode({"list": shown, "total": total})

        return success_bytes(self._ready(("list", tenant, form.page, form.page_size), make))

    def of_category(self, request: Request) -> Response:
        """A page of one category, narrowed down by words and tags; ``has_more`` for the next."""
        form = bind(request, forms.CategoryListForm)
        category = _category(form.category)
        tags = set(form.tags or ())
        words = form.query.strip().casefold()
        last = form.offset + form.page_size

        def make() -> bytes:
            shown: list[dict[str, Any]] = []
            for row, identifier, text in self._all(request.params["tenant_id"], category):
                if _fits(row, text, tags, words, form.language):
                    shown.append(self._plugin(row, identifier, text))
                    # One more than the page: that is `has_more`, without counting all.
                    if len(shown) > last:
                        break
            return encode({"list": shown[form.offset : last], "has_more": len(shown) > last})

        tenant = request.params["tenant_id"]
        key: list[str | int] = ["category", tenant, category, form.page, form.page_size]
        key += [words, form.language, *sorted(tags)]
        return success_bytes(self._ready(tuple(key), make))

    def ids(self, request: Request) -> Response:
        """The plugin ids of one category, newest first."""
        category = _category(bind(request, forms.CategoryForm).category)
        tenant = request.params["tenant_id"]

        def make() -> bytes:
            found = dict.fromkeys(row.plugin_id for row, _, _ in self._all(tenant, category))
            return encode({"plugin_ids": list(found)})

        return success_bytes(self._ready(("ids", tenant, category), make))

    def batch(self, request: Request) -> Response:
        """The installations of these plugins; those that are not installed are left out."""
        wanted = bind(request, forms.PluginIdsForm).plugin_ids or []
        with self._services.database.read() as conn:
            rows = installations.find_many(conn, request.params["tenant_id"], wanted)
            shown = [self._installation(*one) for one in self._with_declarations(conn, rows)]
        return success(shown)

    def missing(self, request: Request) -> Response:
        """Those versions that are not installed, with the one that is there instead."""
        wanted = bind(request, forms.IdentifiersForm).plugin_unique_identifiers or []
        plugins = {plugin_id_of(identifier) for identifier in wanted}
        with self._services.database.read() as conn:
            rows = installations.find_many(conn, request.params["tenant_id"], plugins)
        current = {row.plugin_id: row.identifier for row in rows}
        return success(
            [
                {"plugin_unique_identifier": identifier, "current_identifier": instead}
                for identifier in wanted
                if (instead := current.get(plugin_id_of(identifier), "")) != identifier
            ]
        )

    # ------------------------------------------------------------------ rows

    def _all(
        self, tenant: str, category: str
    ) -> Iterator[tuple[Installation, PluginIdentifier, str]]:
        with self._services.database.read() as conn:
            rows = installations.all_of_tenant(conn, tenant)
            found = list(self._with_declarations(conn, rows))
        # Outside the transaction: nobody holds a connection while declarations are parsed.
        return (one for one in found if _category_of(one[2]) == category)

    def _with_declarations(
        self, conn: Any, rows: list[Installation]
    ) -> Iterator[tuple[Installation, PluginIdentifier, str]]:
        found = declarations.get_many(conn, [row.identifier for row in rows])
        for row in rows:
            declaration = found.get(row.identifier)
            try:
                identifier = PluginIdentifier.parse(row.identifier)
            except InvalidIdentifier:
                declaration = None
            if declaration is None:
                log.error("installation without a usable declaration", identifier=row.identifier)
                continue
            yield row, identifier, declaration.text

    def _plugin(self, row: Installation, identifier: PluginIdentifier, text: str) -> dict[str, Any]:
        return {
            **self._installation(row, identifier, text),
            "name": identifier.name,
            "installation_id": row.id,
        }

    def _installation(
        self, row: Installation, identifier: PluginIdentifier, text: str
    ) -> dict[str, Any]:
        return {
            "id": row.id,
            **self._times.of(row),
            "tenant_id": row.tenant,
            "plugin_id": row.plugin_id,
            "plugin_unique_identifier": row.identifier,
            "runtime_type": row.runtime_type,
            "endpoints_setups": row.endpoints_setups,
            "endpoints_active": row.endpoints_active,
            "source": row.source,
            "meta": row.meta,
            "version": identifier.version,
            "checksum": identifier.checksum,
            "declaration": Raw(text.encode()),
        }


def _category(text: str) -> str:
    if text not in _CATEGORIES:
        raise BadRequest(f"category must be one of {', '.join(sorted(_CATEGORIES))}")
    return text


def _category_of(text: str) -> str:
    try:
        return parts_of(text).category
    except DeclarationBroken:
        return ""


def _fits(row: Installation, text: str, tags: set[str], words: str, language: str) -> bool:
    if not tags and not words:
        return True
    try:
        shown = _decode_shown(text)
    except msgspec.DecodeError:
        return False
    if tags and not tags.intersection(shown.tags or ()):
        return False
    places = [row.plugin_id, row.plugin_id.rpartition("/")[2]]
    for texts in (shown.label or {}, shown.description or {}):
        places.append(texts.get(language) or texts.get("en_US", ""))
    return any(words in place.casefold() for place in places)
