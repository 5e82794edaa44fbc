"""The plugin storage: small values by key, per tenant and plugin (spec/plugin/05 section 5).

    <PERSISTENCE_STORAGE_PATH>/<tenant>/<author>/<name>/<key>     in the blob store, as raw bytes

All versions of a plugin share it, and it survives an uninstall. Room is taken in the accounting
row before bytes are written (D-42); a count that a killed host left too large is corrected from
the store before anything is refused for it.
"""

from __future__ import annotations

import binascii
import posixpath
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, final
from weakref import WeakValueDictionary

from gevent.lock import RLock

from tidegate.backcalls.kinds import Kind
from tidegate.backcalls.target import Answer, BackCall, Session
from tidegate.errors import (
    BackCallFailed,
    BackCallInvalid,
    BlobMissing,
    StorageRefused,
    TidegateError,
)
from tidegate.ids import is_uuid, plugin_id_of
from tidegate.settings import Settings
from tidegate.storage import Database, plugin_data
from tidegate.storage.blobs import BlobStore
from tidegate.wire.inner_api import text_field

LONGEST_KEY: Final = 256
_NOT_SET: Final = "load data failed, please check if the key is correct or you have not set it"
_OVER: Final = "allocated size is greater than max storage size"
_BAD_KEY: Final = "invalid key: path traversal attempt detected"


class _Deed(Protocol):
    def __call__(self, place: _Place, value: str) -> bytes: ...


@final
@dataclass(frozen=True, slots=True)
class _Place:
    """Where one value is, and how much its plugin may store."""

    tenant: str
    plugin_id: str
    prefix: str
    key: str
    limit: int

    @property
    def blob(self) -> str:
        return f"{self.prefix}/{self.key}"


@final
class PluginStorage:
    """A :class:`tidegate.backcalls.Responder` for ``storage``, whoever answers the rest."""

    def __init__(self, settings: Settings, database: Database, blobs: BlobStore) -> None:
        self._database = database
        self._blobs = blobs
        self._root = settings.persistence_storage_path.strip("/")
        self._most = settings.persistence_storage_max_size
        self._locks: WeakValueDictionary[str, RLock] = WeakValueDictionary()
        self._deeds: dict[str, tuple[_Deed, str]] = {
            "get": (self._get, "load data failed: "),
            "set": (self._set, "save data failed: "),
            "del": (self._delete, "delete data failed: "),
            "exist": (self._exist, "exist data failed: "),
        }

    def respond(self, kind: Kind, call: BackCall, session: Session, answer: Answer) -> None:
        """See :meth:`Responder.respond`. One writer at a time per tenant and plugin."""
        fields = kind.read(call.request)
        opt, key, value = (text_field(fields, name) for name in ("opt", "key", "value"))
        if opt not in self._deeds:
            raise BackCallInvalid(f"storage has no operation {opt[:100]!r}: get, set, del, exist")
        deed, prefix = self._deeds[opt]
        place = self._place(call, session, key, prefix)
        # Of all keys together: the room is the plugin's, not the key's. Held weakly: a lock goes
        # with the last who waits for it, and the table does not grow with tenants.
        lock = self._locks.setdefault(place.prefix, RLock())
        try:
            with lock:
                answer_text = deed(place, value)
        except (StorageRefused, BackCallFailed):
            raise
        except (TidegateError, ValueError) as error:
            raise BackCallFailed(f"{prefix}{error}") from error
        answer.respond(answer_text, stream=False)

    def close(self) -> None:
        """The database goes with the process."""

    # ------------------------------------------------------------------ deeds

    def _get(self, place: _Place, value: str) -> bytes:
        try:
            data = self._blobs.load(place.blob)
        except BlobMissing as error:
            raise BackCallFailed(_NOT_SET) from error
        return b'{"data":"' + binascii.hexlify(data) + b'"}'

    def _set(self, place: _Place, value: str) -> bytes:
        if len(place.key.encode()) > LONGEST_KEY:
            raise StorageRefused(f"key length must be less than {LONGEST_KEY} characters")
        try:
            data = binascii.unhexlify(value)
        except ValueError as error:
            raise BackCallFailed(f"decode data failed: {error}") from error
        growth = len(data) - (self._size(place) or 0)
        # Room first, bytes later (D-42): killed in between, the count is too large and never too
        # small, and is put right from the store before anything is refused for it.
        self._take_room(place, growth)
        try:
            self._blobs.save(place.blob, data)
        except BaseException:
            self._give_back(place, growth)
            raise
        self._give_back(place, -growth)
        return b'{"data":"ok"}'

    def _delete(self, place: _Place, value: str) -> bytes:
        size = self._size(place)
        there = size is not None and self._blobs.delete(place.blob)
        # The other way round: room that is given back before the bytes are gone could be taken.
        if there:
            self._give_back(place, size or 0)
        return b'{"data":"ok","deleted_num":%d}' % there

    def _exist(self, place: _Place, value: str) -> bytes:
        there = self._blobs.exists(place.blob)
        return b'{"data":%s,"exist_num":%d}' % (b"true" if there else b"false", there)

    # ------------------------------------------------------------------ room

    def _size(self, place: _Place) -> int | None:
        """Bytes stored under the key; None when there is nothing."""
        try:
            return len(self._blobs.load(place.blob))
        except BlobMissing:
            return None

    def _take_room(self, place: _Place, growth: int) -> None:
        """StorageRefused when the plugin would store more than it may. Less is always taken."""
        if growth <= 0:
            return
        if self._take(place, growth):
            return
        stored = sum(blob.size for blob in self._blobs.list(place.prefix))
        with self._database.write() as conn:
            plugin_data.correct(conn, place.tenant, place.plugin_id, stored)
        if not self._take(place, growth):
            raise StorageRefused(_OVER, limit=place.limit)

    def _take(self, place: _Place, growth: int) -> bool:
        with self._database.write() as conn:
            return plugin_data.take(conn, place.tenant, place.plugin_id, growth, place.limit)

    def _give_back(self, place: _Place, size: int) -> None:
        if size > 0:
            with self._database.write() as conn:
                plugin_data.give_back(conn, place.tenant, place.plugin_id, size)

    # ------------------------------------------------------------------ place

    def _place(self, call: BackCall, session: Session, key: str, prefix: str) -> _Place:
        if not is_uuid(session.tenant):  # it becomes part of a path (D-67)
            raise StorageRefused(f"{prefix}tenant is not a UUID: {session.tenant[:100]}")
        # However the caller spelled it: rows know one form, and so must files, or a tenant has two.
        tenant = str(uuid.UUID(session.tenant))
        plugin_id = plugin_id_of(call.caller.plugin)
        return _Place(
            tenant,
            plugin_id,
            f"{self._root}/{tenant}/{plugin_id}",
            clean_key(key),
            min(self._most, _granted(call.caller.permission, self._most)),
        )


def clean_key(key: str) -> str:
    """``key`` as a relative path; StorageRefused for one that leaves the plugin's area (D-43)."""
    # Normalised, then judged: what is stored is what was checked, and one value has one name.
    clean = posixpath.normpath(key).lstrip("/") if key else ""
    if ".." in clean or "\\" in clean or clean in ("", "."):
        raise StorageRefused(_BAD_KEY)
    return clean


def _granted(permission: Mapping[str, Any], most: int) -> int:
    size = (permission.get("storage") or {}).get("size")
    return size if isinstance(size, int) and size > 0 else most  # -1: the global limit
