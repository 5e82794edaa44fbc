"""Blobs in a bucket of S3, or of a store that speaks like it.

boto3 is loaded at first use, and so is the bucket looked for: a store that is late does not keep a
role from starting. It works in gevent because urllib3 below it does; nothing here starts a thread.

"Not found" has two meanings there, a missing object and a missing bucket, and only the first one
is a missing blob (D-59). Where the answer does not say which, the bucket is asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, final

from tidegate.errors import BlobMissing, BlobUnavailable, StartRefused
from tidegate.settings import Settings
from tidegate.storage.blobs.contract import Blob, checked_key
from tidegate.telemetry.logs import get_log

log = get_log("storage")

CONNECTIONS: Final = 16
"""Requests at once per process; more wait for a connection."""

CONNECT_SECONDS: Final = 5
READ_SECONDS: Final = 60
"""Silence on a connection after which a try is over."""

_TRIES: Final = 3
_NO_OBJECT: Final = {"NoSuchKey", "NotFound", "404"}
_NO_BUCKET: Final = {"NoSuchBucket", "NotFound", "404"}
_MADE_BY_OTHERS: Final = {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}
_FULL: Final = {"QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded"}


@final
class S3Blobs:
    """A :class:`tidegate.storage.blobs.BlobStore` in one bucket. One per process."""

    def __init__(self, settings: Settings) -> None:
        """StartRefused when the settings cannot lead to a bucket; nothing is asked yet."""
        if not settings.plugin_storage_oss_bucket:
            raise StartRefused("PLUGIN_STORAGE_OSS_BUCKET is needed for PLUGIN_STORAGE_TYPE=s3")
        if not settings.s3_use_aws and not settings.s3_endpoint:
            raise StartRefused("S3_ENDPOINT is needed when S3_USE_AWS=false")
        if settings.s3_use_aws and not (settings.aws_region or settings.s3_endpoint):
            raise StartRefused("AWS_REGION is needed for PLUGIN_STORAGE_TYPE=s3")
        self._settings = settings
        self._bucket = settings.plugin_storage_oss_bucket
        self._lock = threading.Lock()
        self._made: Any = None
        self._bucket_seen = False

    def save(self, key: str, data: bytes) -> None:
        """See :meth:`BlobStore.save`: one PUT, so whole or not at all."""
        checked_key(key)
        self._ask("put_object", Key=key, Body=data)

    def load(self, key: str) -> bytes:
        """See :meth:`BlobStore.load`."""
        checked_key(key)
        with self._named_errors(key):
            body = self._client().get_object(Bucket=self._bucket, Key=key)["Body"]
            with body:
                data: bytes = body.read()
        return data

    def exists(self, key: str) -> bool:
        """See :meth:`BlobStore.exists`."""
        checked_key(key)
        try:
            self._ask("head_object", Key=key)
        except BlobMissing:
            return False
        return True

    def list(self, prefix: str) -> list[Blob]:
        """See :meth:`BlobStore.list`."""
        checked_key(prefix)
        found: list[Blob] = []
        with self._named_errors(prefix):
            pages = self._client().get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=f"{prefix}/"):
                found += [_blob(entry) for entry in page.get("Contents", ())]
        return sorted(found, key=lambda blob: blob.key)

    def delete(self, key: str) -> bool:
        """See :meth:`BlobStore.delete`."""
        there = self.exists(key)  # S3 answers the same whether there was one
        if there:
            self._ask("delete_object", Key=key)
        return there

    # ------------------------------------------------------------------ asking

    def _ask(self, operation: str, **arguments: Any) -> Any:
        with self._named_errors(arguments["Key"]):
            return getattr(self._client(), operation)(Bucket=self._bucket, **arguments)

    def _client(self) -> Any:
        with self._lock:
            if self._made is None:
                self._made = _connect(self._settings)
            # Once per process. A bucket that is deleted later is noticed by what fails then.
            if not self._bucket_seen:
                self._bucket_seen = self._find_bucket()
            return self._made

    def _find_bucket(self) -> bool:
        """Look for the bucket, make it when it is missing (as the reference does at its start)."""
        from botocore.exceptions import ClientError

        try:
            self._made.head_bucket(Bucket=self._bucket)
        except ClientError as error:
            if _code(error) in _NO_BUCKET:
                self._make_bucket()
            else:  # a key that may use objects only is enough
                log.warning("bucket cannot be looked at", bucket=self._bucket, code=_code(error))
        return True

    def _make_bucket(self) -> None:
        from botocore.exceptions import ClientError

        arguments: dict[str, Any] = {"Bucket": self._bucket}
        region = self._settings.aws_region
        if region and region != _FIRST_REGION:
            arguments["CreateBucketConfiguration"] = {"LocationConstraint": region}
        try:
            self._made.create_bucket(**arguments)
        except ClientError as error:
            # Two roles start at once and both make it.
            if _code(error) not in _MADE_BY_OTHERS:
                raise
        else:
            log.info("bucket created", bucket=self._bucket)

    @contextmanager
    def _named_errors(self, key: str) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except ClientError as error:
            # A HEAD has no body, so its 404 does not say which of the two is missing.
            if _code(error) in _NO_OBJECT and self._bucket_is_there():
                raise BlobMissing(f"nothing is stored as {key}", key=key) from error
            raise self._unavailable(_code(error), str(error)) from error
        except BotoCoreError as error:
            raise self._unavailable("", str(error)) from error

    def _bucket_is_there(self) -> bool:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            self._made.head_bucket(Bucket=self._bucket)
        except ClientError as error:
            return _code(error) not in _NO_BUCKET
        except BotoCoreError:
            return False
        return True

    def _unavailable(self, code: str, text: str) -> BlobUnavailable:
        reason = "full" if code in _FULL else "error"
        return BlobUnavailable(f"blob store, bucket {self._bucket}: {text}", reason=reason)


_FIRST_REGION: Final = "us-east-1"
"""The region that must not be named when a bucket is made."""


def _connect(settings: Settings) -> Any:
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        max_pool_connections=CONNECTIONS,
        retries={"mode": "standard", "total_max_attempts": _TRIES},
        s3={"addressing_style": "path" if settings.s3_use_path_style else "virtual"},
        # checksums that boto3 adds by itself are refused by many compatible stores
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    return boto3.session.Session(**_login(settings)).client(
        "s3",
        region_name=settings.aws_region or _FIRST_REGION,
        endpoint_url=settings.s3_endpoint or None,
        config=config,
    )


def _login(settings: Settings) -> dict[str, Any]:
    """Blank, or S3_USE_AWS_MANAGED_IAM: boto3 looks where AWS's own tools look."""
    key, secret = settings.aws_access_key.reveal(), settings.aws_secret_key.reveal()
    if settings.s3_use_aws_managed_iam or not (key and secret):
        return {}
    return {"aws_access_key_id": key, "aws_secret_access_key": secret}


def _blob(entry: dict[str, Any]) -> Blob:
    return Blob(entry["Key"], entry["Size"], entry["LastModified"])


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
