import json
from collections.abc import Mapping

from dify_plugin import Endpoint
from werkzeug import Request, Response

import asking


class AskEndpoint(Endpoint):
    """The results of one back-call as JSON lines."""

    def _invoke(self, r: Request, values: Mapping, settings: Mapping) -> Response:
        results = asking.ask(self.session, r.get_json())
        return Response("\n".join(map(json.dumps, results)), content_type="application/jsonl")
