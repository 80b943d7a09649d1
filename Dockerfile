# The containers of compose.yaml, each a target: `service` is what you build on, with the bridge and nothing of yours.
# Bases are the official images; `make images` names others where none can be pulled (docs/compose.md).

ARG NATS=nats:2.15.1-alpine
ARG PYTHON=python:3.12-slim

# --- nats: the server as it comes, and a store that a volume takes its owner from -----------------------
FROM ${NATS} AS nats
RUN mkdir /store && chown 10001:10001 /store
USER 10001:10001
ENTRYPOINT ["/usr/local/bin/nats-server"]
CMD ["-c", "/etc/bunny/server.conf"]

# --- build: every file is checked against its locked hash, and nothing of this stage is kept but the result ---
FROM ${PYTHON} AS build
# Both are empty unless the files were fetched before: `make images` does that, and the build needs no network.
ARG PIP_NO_INDEX
ARG PIP_FIND_LINKS
ARG PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY requirements.lock requirements-all.lock
COPY deploy/images/requirements.lock deploy/images/sbom.py .cach[e]/wheels/* ./
# What builds our own package, and nkeys, which comes as source only; locked like the rest.
RUN python3 -m venv /build && python3 -m venv --without-pip /opt/bunny \
    && sed -n '/^setuptools==/,/^    #/p' requirements-all.lock > setuptools.lock \
    && /build/bin/pip install --quiet --require-hashes --only-binary :all: -r setuptools.lock \
    && /build/bin/pip wheel --quiet --require-hashes --no-deps --no-build-isolation --only-binary :all: --no-binary nkeys \
        --wheel-dir /wheels -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY nats nats
COPY bridge bridge
COPY producers producers
COPY consumers consumers
ARG VERSION=0.1.0
ARG SBOM_SHA256
# The digest in the label is that of the file in the image, and the file says what is installed: or there is no image.
RUN /build/bin/pip wheel --quiet --no-index --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /build/bin/pip --python /opt/bunny/bin/python install --quiet --no-index --no-deps /wheels/*.whl \
    && mkdir -p /opt/bunny/share/sbom \
    && python3 sbom.py requirements.lock "$VERSION" /opt/bunny/lib/python3*/site-packages > /opt/bunny/share/sbom/bunny-bridge.cdx.json \
    && { [ -z "$SBOM_SHA256" ] || echo "$SBOM_SHA256  /opt/bunny/share/sbom/bunny-bridge.cdx.json" | sha256sum --check --quiet; }

# --- service --------------------------------------------------------------------------------------------
FROM ${PYTHON} AS service
ARG VERSION=0.1.0
ARG SBOM_SHA256
LABEL org.opencontainers.image.title="bunny-bridge" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.bunny-bridge.sbom="/opt/bunny/share/sbom/bunny-bridge.cdx.json" \
      org.bunny-bridge.sbom.sha256="${SBOM_SHA256}"
COPY --from=build /opt/bunny /opt/bunny
ENV PATH=/opt/bunny/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /srv
USER 10001:10001
ENTRYPOINT ["bunny"]

# --- demo: the examples on top, as a team would put its own code ------------------------------------------
FROM service AS demo
COPY examples examples
COPY deploy/compose/attack.py attack.py
