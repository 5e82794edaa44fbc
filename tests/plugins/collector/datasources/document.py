from collections.abc import Generator, Mapping
from typing import Any

from dify_plugin.entities.datasource import (
    DatasourceGetPagesResponse,
    DatasourceMessage,
    GetOnlineDocumentPageContentRequest,
    OnlineDocumentInfo,
    OnlineDocumentPage,
)
from dify_plugin.interfaces.datasource.online_document import OnlineDocumentDatasource


class Document(OnlineDocumentDatasource):
    """A workspace with a page."""

    def _get_pages(self, datasource_parameters: Mapping[str, Any]) -> DatasourceGetPagesResponse:
        page = OnlineDocumentPage(page_id="p", page_name="P", type="page", last_edited_time="now")
        workspace = OnlineDocumentInfo(
            workspace_id="w", workspace_name="W", workspace_icon="", total=1, pages=[page]
        )
        return DatasourceGetPagesResponse(result=[workspace])

    def _get_content(
        self, page: GetOnlineDocumentPageContentRequest
    ) -> Generator[DatasourceMessage, None, None]:
        yield self.create_variable_message("content", f"what stands on {page.page_id}")
