from collections.abc import Generator, Mapping

from dify_plugin import Endpoint
from werkzeug import Request, Response


class EchoEndpoint(Endpoint):
    """Its path, query, settings and body, a line each, each a chunk of its own."""

    def _invoke(self, r: Request, values: Mapping, settings: Mapping) -> Response:
        def lines() -> Generator[str, None, None]:
            yield f"{values['rest']}\n"
            yield f"{r.query_string.decode()}\n"
            yield f"{settings['token']}\n"
            yield r.get_data().decode()

        return Response(lines(), status=201, content_type="text/plain", headers={"X-Hook": "yes"})
