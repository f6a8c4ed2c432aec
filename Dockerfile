# syntax=docker/dockerfile:1.7
# The `flower-nats` command for superlinks and gateways: no servers, no Flower, no compiler.
#   docker build -t flower-nats .
ARG PYTHON=python:3.11.15-slim-bookworm

FROM ${PYTHON} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv --without-pip /opt/flower-nats
COPY locks/runtime.txt locks/build.txt /locks/
# Each with its version and the hashes of its files. Wheels only: what would have to be compiled fails here,
# at once and with its name.
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/flower-nats/bin/python install --require-hashes --only-binary :all: \
    --requirement /locks/runtime.txt \
    && pip install --require-hashes --only-binary :all: --requirement /locks/build.txt
WORKDIR /source
COPY pyproject.toml README.md ./
COPY flower_nats flower_nats
COPY gateway gateway
COPY console console
COPY cli cli
COPY examples/digits examples/digits
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && pip --python /opt/flower-nats/bin/python install --no-deps /wheels/*.whl

FROM ${PYTHON}
RUN useradd --system --no-create-home --uid 10001 --user-group flower
COPY --from=build /opt/flower-nats /opt/flower-nats
ENV PATH=/opt/flower-nats/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
# A gateway's APIs: all over HTTP; ServerAppIo, Fleet and Control over gRPC. The health of both.
EXPOSE 8000 9091 9092 9093 8080
ENTRYPOINT ["flower-nats"]
