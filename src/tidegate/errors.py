"""Every error that Tidegate raises on purpose, in one tree.

Two families matter to callers:

* :class:`RequestRefused` - the request itself is answered with an envelope; carries HTTP status,
  envelope code and the ``error_type`` that Dify's client maps (spec/http/01 section 1.2).
* :class:`CallFailed` - something ended a running call; travels over the link as JSON and reaches
  the caller inside ``PluginInvokeError`` (docs/reference/errors.md lists each).

A message says what went wrong, with what, and what to do about it.
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec


class TidegateError(Exception):
    """Root of the tree. ``args`` of Exception stays the message; details are in ``details``."""

    error_type: ClassVar[str] = "TidegateError"

    # Positional only: the details of a plugin's own error may have any name, `message` too.
    def __init__(self, message: str, /, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details

    def as_dict(self) -> dict[str, Any]:
        """The JSON shape ``{error_type, message, args}`` that plugins and Dify know."""
        return {
            "error_type": self.error_type,
            "message": self.message,
            # None and not {}: what the SDK and the reference send.
            "args": self.details or None,
        }

    def as_json(self) -> bytes:
        """:meth:`as_dict` as compact JSON."""
        return msgspec.json.encode(self.as_dict())


class StartRefused(TidegateError):
    """A role will not start. Raised before it serves; the launcher prints the one line and exits.

    ``exit_code`` is what the process ends with; never 0.
    """

    error_type = "StartRefused"
    exit_code = 78  # EX_CONFIG of sysexits.h: init systems do not restart on it


class SettingInvalid(StartRefused):
    """A setting cannot be read or does not fit; the message names it and what it takes."""

    error_type = "SettingInvalid"


class PatchRefused(StartRefused):
    """gevent's patch is missing, partial or came too late; the message says what to type."""

    error_type = "PatchRefused"


# --------------------------------------------------------------------------- requests


# Codes and names are what Dify's client maps to its own exceptions: none is ours to choose.
class RequestRefused(TidegateError):
    """A request that is answered with an error envelope. Raised by doors and rooms below them."""

    error_type = "PluginDaemonInternalServerError"
    code: ClassVar[int] = -500
    status: ClassVar[int] = 500


class InternalFailure(RequestRefused):
    """Something of ours failed: database, storage, host."""


class BadRequest(RequestRefused):
    """The request does not fit the route: a missing field, a broken package, a bad page number."""

    error_type = "PluginDaemonBadRequestError"
    code = -400
    status = 400


class BodyTooLarge(BadRequest):
    """The body is over TIDEGATE_MAX_BODY."""

    status = 413


class BodyTooSlow(BadRequest):
    """The body did not arrive within TIDEGATE_BODY_TIMEOUT."""

    status = 408


# Status and code disagree on purpose: browsers see 404, Dify sees -400.
class HookUnknown(BadRequest):
    """No endpoint has this hook, or its plugin is not installed. Code -400, as Dify knows it."""

    status = 404


class InvalidIdentifier(RequestRefused):
    """A plugin unique identifier is missing or malformed."""

    error_type = "PluginUniqueIdentifierError"
    code = -400
    status = 400


class Unauthorized(RequestRefused):
    """X-Api-Key is missing or wrong."""

    error_type = "PluginDaemonUnauthorizedError"
    code = -401
    status = 401


# Still an Unauthorized: Dify knows no other error for a key.
class TooManyGuesses(Unauthorized):
    """Many wrong keys came from this address. Details: retry_after (seconds)."""

    status = 429


class PermissionRefused(RequestRefused):
    """The manifest does not grant what the request asks for."""

    error_type = "PluginPermissionDeniedError"
    code = -403
    status = 403


class NotFound(RequestRefused):
    """A resource of ours (task, readme, endpoint) does not exist."""

    error_type = "PluginDaemonNotFoundError"
    code = -404
    status = 404


class PluginNotFound(RequestRefused):
    """The plugin is not installed for this tenant."""

    error_type = "PluginNotFoundError"
    code = -404
    status = 404


# The status is for people and proxies; in the envelope it is the reference's -500.
class RuntimeNotFound(InternalFailure):
    """Nothing runs, or could be started, that would answer for this plugin identifier."""

    status = 404


class PluginAnswerInvalid(InternalFailure):
    """A plugin answered a webhook with what is no HTTP answer."""

    status = 502


class Stopping(InternalFailure):
    """This process drains: it takes no new request. Details: retry_after (seconds)."""

    status = 503


# Dify has no type for it: as an internal error (-500) it is shown with its message.
class TooManyRequests(RequestRefused):
    """Admission: no slot came free in time. Code -500, so that Dify types it."""

    status = 429


# --------------------------------------------------------------------------- storage


class StorageUnavailable(InternalFailure):
    """Rows or blobs cannot be reached, or there is no room for more. Details: reason."""


class DatabaseUnavailable(StorageUnavailable):
    """The database does not answer, stays locked or is full; nothing of the transaction stays."""


class RedisUnavailable(StorageUnavailable):
    """Redis does not answer. What the database can serve is served all the same (D-62)."""


class BlobUnavailable(StorageUnavailable):
    """The blob store does not answer or is full. Says nothing about whether the blob exists."""


# Apart from BlobUnavailable, and never guessed: who hears that there is none cleans up after it,
# and an outage must not bring that about.
class BlobMissing(NotFound):
    """The store works and holds no blob of that key (D-59: never raised for an outage)."""


class SecretsUnavailable(InternalFailure):
    """Secrets could not be encrypted or decrypted: by Dify, or with the local key."""


# Apart from the others: it is raised to be fixed, and nobody may catch it as an outage.
class SwitchedInTransaction(TidegateError):
    """A greenlet waited inside a SQLite write transaction: a bug of ours. Rolled back."""

    error_type = "SwitchedInTransaction"


# --------------------------------------------------------------------------- calls


class CallFailed(TidegateError):
    """Ended a running call. Sent over the link; stands inside ``PluginInvokeError`` for Dify."""

    error_type = "CallFailed"


class PluginDied(CallFailed):
    """The plugin's process ended under the call. Details: exit_code or signal, stderr, oom.

    Where it was stopped at a limit also: limit (``plugin_oom``, ``plugin_limit``), setting,
    allowed, used.
    """

    error_type = "PluginDied"


class PluginStartFailed(CallFailed):
    """The plugin never became ready. Details as for PluginDied, and the limit in seconds."""

    error_type = "PluginStartFailed"


class PluginQuarantined(CallFailed):
    """Too many deaths in a row; the plugin starts again at ``until`` (unix seconds)."""

    error_type = "PluginQuarantined"


class DeadlineExceeded(CallFailed):
    """The total time of the call is over. Details: seconds, owner (who set it)."""

    error_type = "DeadlineExceeded"


class IdleTimeout(CallFailed):
    """Nothing arrived for too long. Details: seconds, owner."""

    error_type = "IdleTimeout"


class MessageTooLarge(CallFailed):
    """A line or body is over its limit. Details: limit, size, setting."""

    error_type = "MessageTooLarge"


class SlowConsumer(CallFailed):
    """The caller read slower than its memory and spool budget allow. Details: bytes."""

    error_type = "SlowConsumer"


class ProtocolError(CallFailed):
    """A line of this session cannot be read or typed. Details: first bytes."""

    error_type = "ProtocolError"


class OutputSchemaViolation(CallFailed):
    """Mode ``enforce``: the collected variables do not fit. Details: path (JSON path)."""

    error_type = "OutputSchemaViolation"


class PermissionDenied(CallFailed):
    """A back-call that the manifest does not allow. Details: permission."""

    error_type = "PermissionDenied"


class NeedsDify(CallFailed):
    """A back-call that only Dify can answer while no Dify is configured. Details: call."""

    error_type = "NeedsDify"


class BackCallInvalid(CallFailed):
    """A back-call that cannot be read, of an unknown type, or without a field that it needs."""

    error_type = "BackCallInvalid"


class BackCallFailed(CallFailed):
    """Whoever answers back-calls could not. Details: status (HTTP) where there was an answer."""

    error_type = "BackCallFailed"


class StorageRefused(CallFailed):
    """The plugin storage does not take it: over its quota, a key that is none. Details: limit."""

    error_type = "StorageRefused"


class SessionOver(CallFailed):
    """The session of a back-call ended, or was never one of this plugin."""

    error_type = "SessionOver"


class Overloaded(CallFailed):
    """Admission: the plugin has too many sessions. Details: retry_after (seconds)."""

    error_type = "Overloaded"


class ServerStopping(CallFailed):
    """This process was told to stop and the grace for running calls is over. Details: seconds."""

    error_type = "ServerStopping"


# The reference's name: Dify's client goes by names.
class ConnectionClosed(CallFailed):
    """The connection of the debugged plugin that served the call is gone. Details: plugin."""

    error_type = "ConnectionClosedError"


# The reference's name, as that of the next one.
class FunctionFailed(CallFailed):
    """A serverless function answered with an error, or not to the end. Details: status_code,
    request_id where there were any."""

    error_type = "PluginRuntimeError"


class FunctionUnreachable(CallFailed):
    """A serverless function could not be asked. Details: attempts."""

    error_type = "PluginDaemonInnerError"


class HostLost(CallFailed):
    """The host ended, or could not be reached, under the call."""

    error_type = "HostLost"


# --------------------------------------------------------------------------- packages, installs


class PackageRejected(TidegateError):
    """A .difypkg that is not taken: what is broken, in which file. Doors answer code -400."""

    error_type = "PackageRejected"


class PackageUnknown(InternalFailure):
    """A version is to be installed that was never uploaded. The reference answers -500."""


class RegistrationRefused(TidegateError):
    """A debugged plugin is not taken. The message is the line that its developer gets to see."""

    error_type = "RegistrationRefused"


class ConnectorFailed(TidegateError):
    """The serverless connector does not do what it is asked for. Details: status."""

    error_type = "ConnectorFailed"


class EnvironmentFailed(TidegateError):
    """A plugin's environment could not be built: the step and the tool's own words."""

    error_type = "EnvironmentFailed"


class InstallFailed(TidegateError):
    """An installation ended as failed; the message is what the install task shows."""

    error_type = "InstallFailed"


class InstallCancelled(TidegateError):
    """The task that an installation was made for was deleted: nobody wants it any more."""

    error_type = "InstallCancelled"


class IllegalTransition(TidegateError):
    """A state machine was asked for a step that it does not have: a mistake of ours."""

    error_type = "IllegalTransition"


# No failure of the job: it goes on elsewhere, and this one must write nothing more.
class JobTaken(TidegateError):
    """The job is somebody else's now: its fence is stale. Whoever gets this stops at once."""

    error_type = "JobTaken"


class JobGivenBack(TidegateError):
    """This worker stops; the job was given back and goes on elsewhere, or after a restart."""

    error_type = "JobGivenBack"


class BrokerUnavailable(TidegateError):
    """The broker of jobs does not take a message. The job's row stays: the schedule resumes it."""

    error_type = "BrokerUnavailable"
