"""Taking packages in: opened, checked, kept, declared (spec/http/01 section 3.5, 03 section 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, final

import msgspec

from tidegate.errors import BlobMissing, PackageRejected, PackageUnknown
from tidegate.ids import PluginIdentifier
from tidegate.installs.native import in_thread
from tidegate.installs.shelf import Shelf
from tidegate.packages import (
    Package,
    TrustedKeys,
    Verification,
    examine,
    open_package,
    require_author,
)
from tidegate.settings import Settings
from tidegate.storage import Database, declarations, generation, installations
from tidegate.telemetry.logs import get_log

log = get_log("installs")


@final
@dataclass(frozen=True, slots=True)
class Uploaded:
    """What an upload answers: icons of ``declaration`` are asset ids."""

    identifier: PluginIdentifier
    declaration: dict[str, Any]
    verification: Verification | None


@final
@dataclass(frozen=True, slots=True)
class _Understood:
    uploaded: Uploaded
    icons: dict[str, bytes]

    @property
    def text(self) -> str:
        return msgspec.json.encode(self.uploaded.declaration).decode()

    @property
    def is_signed(self) -> bool:
        return self.uploaded.verification is not None


@final
class Uploads:
    """The way of a package from bytes to a declared version. One per process."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        shelf: Shelf,
        changed: Callable[[int], None],
    ) -> None:
        """``changed`` gets the new generation after a commit."""
        self._settings = settings
        self._database = database
        self._shelf = shelf
        self._changed = changed
        self._said: frozenset[str] = frozenset()

    def take(self, data: bytes, *, must_be_signed: bool) -> Uploaded:
        """Keep one package and its declaration. Called for each upload.

        PackageRejected says what is wrong with it. A failure later leaves nothing behind that
        was not there before.
        """
        [uploaded] = self.take_all([data], must_be_signed=must_be_signed)
        return uploaded

    def take_all(self, packages: Sequence[bytes], *, must_be_signed: bool) -> list[Uploaded]:
        """Keep all of these or none: nothing is kept before every one was understood."""
        # All of them first: a bundle is taken whole or not at all.
        understood = [self._understand(data, must_be_signed=must_be_signed) for data in packages]
        with ExitStack() as undo:
            for one, data in zip(understood, packages, strict=True):
                self._keep(one, data, undo)
            undo.pop_all()
        for one in understood:
            log.info("package uploaded", plugin=str(one.uploaded.identifier), signed=one.is_signed)
        return [one.uploaded for one in understood]

    def _keep(self, understood: _Understood, data: bytes, undo: ExitStack) -> None:
        """``undo`` gets what takes away again what was not there before."""
        identifier = str(understood.uploaded.identifier)
        # What is missing is looked at before anything is written: only what this upload brings
        # goes with it (D-63).
        undo.callback(self._shelf.drop_icons, self._shelf.missing_icons(understood.icons))
        if not self._shelf.has_package(identifier):
            undo.callback(self._shelf.drop_package, identifier)
        self._shelf.put_icons(understood.icons)
        self._shelf.put_package(identifier, data)
        if self._declare(identifier, understood.text):
            undo.callback(self._undeclare, identifier)

    def declared(self, identifier: str) -> str:
        """The declaration of an uploaded version, as JSON text.

        It goes with the last installation of the version although the package stays; then it is
        made again. PackageUnknown when nobody ever uploaded that version.
        """
        with self._database.read() as conn:
            found = declarations.get(conn, identifier)
        return found.text if found is not None else self._declare_again(identifier)

    def _declare_again(self, identifier: str) -> str:
        try:
            data = self._shelf.package(identifier)
        except BlobMissing:
            raise PackageUnknown(
                "plugin not found\nfailed to get plugin declaration", plugin=identifier
            ) from None
        # It was taken under the rules of its day: a stricter setting must not uninstall what runs.
        understood = self._understand(data, must_be_signed=False)
        check_kept_as(identifier, understood.uploaded.identifier)
        self._shelf.put_icons(understood.icons)
        self._declare(identifier, understood.text)
        return understood.text

    def _declare(self, identifier: str, text: str) -> bool:
        """Whether it was not declared yet."""
        with self._database.write() as conn:
            made = declarations.put_if_absent(conn, identifier, text)
            now = generation.current(conn)
        if made:
            self._changed(now)
        return made

    def _undeclare(self, identifier: str) -> None:
        with self._database.write() as conn:
            # Somebody may have installed it between our commit and the failure that we undo for.
            if not installations.is_installed_anywhere(conn, identifier):
                declarations.delete(conn, identifier)
            now = generation.current(conn)
        self._changed(now)

    def _understand(self, data: bytes, *, must_be_signed: bool) -> _Understood:
        keys = TrustedKeys.load(self._settings)
        self._say_refused(keys)
        signed = must_be_signed or self._settings.force_verifying_signature
        return in_thread(_understand, self._settings, data, keys, signed)

    def _say_refused(self, keys: TrustedKeys) -> None:
        """Once per file and reason: the files are read at each upload, and stay as they are."""
        for refused in keys.refused:
            if refused not in self._said:
                log.warning("trusted key not usable", key=refused)
        # exactly what holds now: a key that was mended and broke again is said again
        self._said = frozenset(keys.refused)


def _understand(
    settings: Settings, data: bytes, keys: TrustedKeys, must_be_signed: bool
) -> _Understood:
    package = open_package(data, limit=settings.max_plugin_package_size)
    examined = examine(package, keys)
    _check_signature(settings, package, examined, must_be_signed)
    verification = examined if isinstance(examined, Verification) else None
    declaration, icons = package.declaration_with_assets(verification is not None)
    return _Understood(Uploaded(package.identifier, declaration, verification), icons)


def _check_signature(
    settings: Settings, package: Package, examined: Verification | str, must_be_signed: bool
) -> None:
    if must_be_signed and isinstance(examined, str):
        raise PackageRejected(
            "plugin verification has been enabled, and the plugin you want to install has a bad "
            f"signature: {examined}. Sign it and trust the key (tidegate trust add), or set "
            "FORCE_VERIFYING_SIGNATURE=false"
        )
    if must_be_signed and settings.enforce_langgenius_plugin_signatures:
        # Where the operator has switched verification off, no author is reserved either.
        require_author(package, examined if isinstance(examined, Verification) else None)


def check_kept_as(identifier: str, found: PluginIdentifier) -> None:
    """PackageRejected when the package that is kept as ``identifier`` is another one.

    An identifier holds a checksum of the contents: what was changed in the store is neither what
    was installed nor what that name was given for (T-S8).
    """
    if str(found) != identifier:
        raise PackageRejected(
            f"the package kept as {identifier} is {found}: it was changed in the store; "
            "upload it again"
        )
