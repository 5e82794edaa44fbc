"""Packages: uploads, and what is in what was uploaded (spec/http/01 sections 3.5, 3.6, 3.10-3.17).

Nothing here belongs to a tenant: packages are shared, and only whoever has the key may ask.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, Final, final

from tidegate.doors.binding import bind
from tidegate.doors.dify import forms
from tidegate.doors.dify.multipart import FORM_LIMIT, MultipartReader, boundary_of
from tidegate.doors.envelope import failure, success, success_bytes
from tidegate.doors.routes import BodyLimit, Request, Response
from tidegate.doors.services import Services
from tidegate.errors import BadRequest, NotFound, PackageUnknown
from tidegate.ids import PluginIdentifier
from tidegate.installs import Bundled, Uploaded
from tidegate.storage import declarations, installations, readmes
from tidegate.storage.blobs import Layout
from tidegate.storage.readmes import Readme

_ASSET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_BYTES: Final = "application/octet-stream"
#: Bytes of icons, and of assets, that are kept in memory.
_MOST_KEPT: Final = 64 << 20


@final
class Packages:
    """Handlers about packages. One per process."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._settings = services.settings
        self._layout = Layout(services.settings)
        self._icons = _Kept(services.settings.plugin_media_cache_size)
        self._files = _Kept(services.settings.plugin_asset_cache_size)

    @property
    def limits(self) -> dict[str, BodyLimit]:
        """Uploads may be larger than other bodies, where the settings of their files say so.

        What is over a file's limit but within that of all bodies is told in Dify's own way:
        HTTP 200 and the reason, of which its client shows nothing where the status is 413.
        """
        every = BodyLimit(self._settings.tidegate_max_body, "TIDEGATE_MAX_BODY")
        package = _with_form(self._settings.max_plugin_package_size, "MAX_PLUGIN_PACKAGE_SIZE")
        bundle = _with_form(self._settings.max_bundle_package_size, "MAX_BUNDLE_PACKAGE_SIZE")
        return {
            "/install/upload/package": max(package, every, key=lambda one: one.size),
            "/install/upload/bundle": max(bundle, every, key=lambda one: one.size),
        }

    # ------------------------------------------------------------------ uploads

    def upload_package(self, request: Request) -> Response:
        """Take a .difypkg. The package is read whole, bounded by MAX_PLUGIN_PACKAGE_SIZE."""
        limit = self._settings.max_plugin_package_size
        data, verify = _uploaded_file(request, "dify_pkg", limit)
        uploaded = self._services.installer.upload(request.params["tenant_id"], data, verify)
        return success(_decoded(uploaded))

    def upload_bundle(self, request: Request) -> Response:
        """Take a .difybndl: every package in it, or none."""
        limit = self._settings.max_bundle_package_size
        data, verify = _uploaded_file(request, "dify_bundle", limit)
        taken = self._services.installer.upload_bundle(request.params["tenant_id"], data, verify)
        return success([_bundled(one) for one in taken])

    # ------------------------------------------------------------------ declarations

    def fetch_manifest(self, request: Request) -> Response:
        """The declaration of an uploaded package, icons as asset ids."""
        form = bind(request, forms.IdentifierForm)
        with self._services.database.read() as conn:
            declaration = declarations.get(conn, form.plugin_unique_identifier)
        if declaration is None:
            raise BadRequest("plugin not found")
        return success_bytes(declaration.text.encode())

    def fetch_identifier(self, request: Request) -> Response:
        """Whether anybody installed this version."""
        form = bind(request, forms.IdentifierForm)
        with self._services.database.read() as conn:
            found = installations.is_installed_anywhere(conn, form.plugin_unique_identifier)
        return success(found)

    def decode(self, request: Request) -> Response:
        """What is in an uploaded package, icons as the names that they have in it."""
        return self._decode(bind(request, forms.IdentifierForm).plugin_unique_identifier)

    def extract(self, request: Request) -> Response:
        """:meth:`decode` for callers that name the version in a header."""
        text = request.header("x-plugin-unique-identifier")
        if not text:
            raise BadRequest("the header X-Plugin-Unique-Identifier is required")
        identifier = str(PluginIdentifier.parse(text))
        try:
            return self._decode(identifier)
        except BadRequest as error:
            return failure(error, status=200)

    def _decode(self, identifier: str) -> Response:
        try:
            return success(_decoded(self._services.stored.decode(identifier)))
        except PackageUnknown as error:
            raise BadRequest(error.message) from None

    def readme(self, request: Request) -> Response:
        """The readme in that language, else in English, else in any."""
        form = bind(request, forms.ReadmeForm)
        found = self._readme(form.plugin_unique_identifier, form.language)
        if found is None:
            # the number is what Dify's client looks for in the text
            raise NotFound("readme not found (404): the package has none")
        return success({"content": found.content, "language": found.language})

    def _readme(self, identifier: str, language: str) -> Readme | None:
        with self._services.database.read() as conn:
            found = readmes.get(conn, identifier, language)
        if found is not None:
            return found
        try:
            contents = self._services.stored.readmes(identifier)
        except PackageUnknown as error:
            raise NotFound(f"readme not found (404): {error.message}") from None
        with self._services.database.write() as conn:
            readmes.put(conn, identifier, contents)
        with self._services.database.read() as conn:
            return readmes.get(conn, identifier, language)

    # ------------------------------------------------------------------ files

    def asset(self, request: Request) -> Response:
        """An icon, by the id that stands in declarations."""
        name = request.params["id"]
        # It becomes a key of the blob store, and the store would refuse a malformed one as a
        # defect.
        if _ASSET.fullmatch(name) is None:
            raise NotFound("no such asset")
        data = self._icons.get(name)
        if data is None:
            # Missing is 404 here, while the reference sends an empty file (D-18); a store that is
            # away is 500, never 404 (D-59).
            data = self._services.blobs.load(self._layout.asset(name))
            self._icons.put(name, data)
        return Response(200, data, content_type=_BYTES)

    def extract_asset(self, request: Request) -> Response:
        """A file of a package, as it was packed."""
        form = bind(request, forms.PackageFileForm)
        key = form.plugin_unique_identifier, form.file_path
        data = self._files.get(key)
        if data is None:
            data = self._services.stored.asset(*key)
            if data is None:
                raise NotFound("the package has no such asset")
            self._files.put(key, data)
        return Response(200, data, content_type=_BYTES)


def _with_form(size: int, owner: str) -> BodyLimit:
    return BodyLimit(size + FORM_LIMIT, owner)


def _uploaded_file(request: Request, name: str, limit: int) -> tuple[bytes, bool]:
    """(the file, whether it must be signed) of a form as Dify sends it."""
    reader = MultipartReader(boundary_of(request.header("content-type")), {name: limit})
    # Cut while it arrives: the parser's limits hold before the whole body is in memory.
    for piece in request.body.pieces():
        reader.feed(piece)
    parts = reader.finish()
    if name not in parts:
        raise BadRequest(f"the form has no file {name}")
    return parts[name], parts.get("verify_signature") == b"true"


def _decoded(uploaded: Uploaded) -> dict[str, Any]:
    verification = uploaded.verification
    return {
        "unique_identifier": str(uploaded.identifier),
        "manifest": uploaded.declaration,
        "verification": None if verification is None else verification.as_dict(),
    }


def _bundled(one: Bundled) -> dict[str, Any]:
    value: dict[str, Any] = dict(one.value)
    if one.uploaded is not None:
        value = {
            "unique_identifier": str(one.uploaded.identifier),
            "manifest": one.uploaded.declaration,
        }
    return {"type": one.type, "value": value}


@final
class _Kept:
    """The files asked for last. Their names hold hashes, so none can become stale."""

    def __init__(self, size: int) -> None:
        """``size``: how many, as far as there is room for their bytes."""
        self._size = size
        self._bytes = 0
        self._entries: OrderedDict[Hashable, bytes] = OrderedDict()

    def get(self, name: Hashable) -> bytes | None:
        data = self._entries.get(name)
        if data is not None:
            self._entries.move_to_end(name)
        return data

    def put(self, name: Hashable, data: bytes) -> None:
        if name in self._entries or len(data) > _MOST_KEPT // 4:
            return
        self._entries[name] = data
        self._bytes += len(data)
        # A package may bring files of 50 MB: by number alone they would take gigabytes.
        while len(self._entries) > self._size or self._bytes > _MOST_KEPT:
            self._bytes -= len(self._entries.popitem(last=False)[1])
