# The image of the server. Also holds the scripted upstream: `--entrypoint warmline … simulate`.
#
#   docker build -t warmline .
#   docker run --read-only -v ./warmline.toml:/etc/warmline/warmline.toml:ro warmline --config /etc/warmline/warmline.toml
#
# BASE needs python3 (3.11 or later) with its venv module; give it by digest where builds shall be repeatable. Both
# stages use it, so that the environment finds the same interpreter at the same path.
ARG BASE=docker.io/library/python:3.11-slim-bookworm
ARG BUILD_BASE=${BASE}

FROM ${BUILD_BASE} AS build
ARG UV_VERSION=0.13.8
ENV UV_PROJECT_ENVIRONMENT=/opt/warmline \
    UV_PYTHON_DOWNLOADS=never \
    UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python3 -m venv /opt/uv && /opt/uv/bin/pip install --no-cache-dir --quiet "uv==${UV_VERSION}"
WORKDIR /src
# The dependencies are a layer of their own: they change less often than the code.
COPY pyproject.toml uv.lock README.md ./
RUN /opt/uv/bin/uv sync --frozen --no-dev --all-extras --no-install-workspace --python "$(command -v python3)"
COPY server server
COPY client_stubs/python client_stubs/python
RUN /opt/uv/bin/uv sync --frozen --no-dev --all-extras --no-editable --python "$(command -v python3)"

FROM ${BASE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="warmline" \
      org.opencontainers.image.description="Holds an agent's line to its model: warm connections, streamed turns, traces with both ids." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/warmline /opt/warmline
ENV PATH=/opt/warmline/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    PYTHONFAULTHANDLER=1 \
    PYTHONDONTWRITEBYTECODE=1
# A number, so that runAsNonRoot can be checked; the root file system may be read-only, for nothing is written.
USER 65532:65532
WORKDIR /
EXPOSE 50051
# The server is process 1: it handles SIGTERM itself. Its arguments follow: `--config FILE`, `--listen ADDRESS`; every
# setting is also a WARMLINE_* variable.
ENTRYPOINT ["warmline", "serve"]
