# The BitNet server's image: docker compose up --build.
# What is installed, and how, is what the Makefile does; a compiler is only in the first stage.

FROM python:3.11-slim-bookworm AS builder
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends cmake g++ \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /plait
COPY requirements/build.txt requirements/serve.txt requirements/
RUN python -m venv /opt/build \
    && /opt/build/bin/pip install --no-cache-dir --require-hashes -r requirements/build.txt
# llama.cpp is compiled for the machine that builds the image; for other machines, too: -DGGML_NATIVE=OFF
ARG CMAKE_ARGS=""
RUN /opt/build/bin/pip wheel --no-cache-dir --no-build-isolation --require-hashes \
    --wheel-dir /wheels -r requirements/serve.txt
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN /opt/build/bin/pip wheel --no-cache-dir --no-build-isolation --no-deps --wheel-dir /wheels . \
    && python -m venv /opt/plait \
    && /opt/plait/bin/pip install --no-cache-dir --no-index --find-links /wheels plait

FROM python:3.11-slim-bookworm
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 plait
COPY --from=builder /opt/plait /opt/plait
ENV PATH=/opt/plait/bin:$PATH
WORKDIR /app
USER 10001
EXPOSE 8000
CMD ["plait", "as", "bitnet"]
