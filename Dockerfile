# strop in a container, of the pins of `make setup` (TORCH in the Makefile, pyproject.toml):
#   docker build -t strop .                                            (CPU)
#   docker build -t strop:cuda --build-arg VARIANT=cuda .              (CUDA)
ARG VARIANT=cpu
FROM python:3.12-slim-bookworm AS base
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/*

# torch's own index has a build without CUDA; the ordinary index has the one with its libraries
FROM base AS cpu
ENV PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
ENV LOCAL_VERSION=+cpu

FROM base AS cuda
ENV LOCAL_VERSION=
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

FROM ${VARIANT} AS final
WORKDIR /opt/strop
COPY Makefile pyproject.toml README.md LICENSE ./
COPY src ./src
# torch first, as `make setup` installs it: its version decides what the rest is installed for
RUN torch="$(sed -n 's/^TORCH := //p' Makefile)" \
    && python -m pip install --no-cache-dir "${torch}${LOCAL_VERSION}" \
    && python -m pip install --no-cache-dir .
RUN useradd --create-home strop
USER strop
WORKDIR /work
ENTRYPOINT ["strop"]
CMD ["--help"]
