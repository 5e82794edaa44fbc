from collections.abc import Generator

from dify_plugin.entities.datasource import (
    DatasourceMessage,
    OnlineDriveBrowseFilesRequest,
    OnlineDriveBrowseFilesResponse,
    OnlineDriveDownloadFileRequest,
    OnlineDriveFile,
    OnlineDriveFileBucket,
)
from dify_plugin.interfaces.datasource.online_drive import OnlineDriveDatasource


class Drive(OnlineDriveDatasource):
    """A bucket with a file of 20,000 bytes."""

    def _browse_files(
        self, request: OnlineDriveBrowseFilesRequest
    ) -> OnlineDriveBrowseFilesResponse:
        file = OnlineDriveFile(id="1", name=f"{request.prefix}a", size=20_000, type="file")
        bucket = OnlineDriveFileBucket(bucket=request.bucket, files=[file], is_truncated=False)
        return OnlineDriveBrowseFilesResponse(result=[bucket])

    def _download_file(
        self, request: OnlineDriveDownloadFileRequest
    ) -> Generator[DatasourceMessage, None, None]:
        yield self.create_blob_message(b"x" * 20_000, meta={"file_name": request.id})
