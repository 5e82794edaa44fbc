# One image for every role; MODE chooses (docker/entrypoint.sh).
FROM python:3.12-slim-bookworm AS build
WORKDIR /app
RUN pip install --no-cache-dir "uv>=0.9"
COPY pyproject.toml uv.lock README.md ./
COPY src ./src
RUN uv sync --frozen --no-dev --no-editable --compile-bytecode --python /usr/local/bin/python3

FROM python:3.12-slim-bookworm
# tini is PID 1: Dify's SDK ends every plugin whose parent is PID 1, and somebody must reap.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1001 --create-home tidegate \
    && install --directory --owner tidegate --group tidegate /app/storage
WORKDIR /app
COPY --from=build /app/.venv /app/.venv
COPY docker/entrypoint.sh /app/docker/entrypoint.sh
ENV PATH=/app/.venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    TIDEGATE_HOME=/app/storage \
    MODE=up
USER tidegate
VOLUME /app/storage
EXPOSE 5002 5003
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ.get('SERVER_PORT', '5002') + '/health/check', timeout=2)"]
ENTRYPOINT ["tini", "--", "/app/docker/entrypoint.sh"]
