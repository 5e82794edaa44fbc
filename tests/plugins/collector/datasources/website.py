from collections.abc import Generator, Mapping
from typing import Any

from dify_plugin.entities.datasource import WebsiteCrawlMessage, WebSiteInfo, WebSiteInfoDetail
from dify_plugin.interfaces.datasource.website import WebsiteCrawlDatasource


class Website(WebsiteCrawlDatasource):
    """Two steps of a crawl."""

    def _get_website_crawl(
        self, datasource_parameters: Mapping[str, Any]
    ) -> Generator[WebsiteCrawlMessage, None, None]:
        found = WebSiteInfo(status="processing", web_info_list=[], total=1, completed=0)
        yield self.create_crawl_message(found)
        page = WebSiteInfoDetail(
            source_url=datasource_parameters["url"], content="c", title="t", description="d"
        )
        done = WebSiteInfo(status="completed", web_info_list=[page], total=1, completed=1)
        yield self.create_crawl_message(done)
