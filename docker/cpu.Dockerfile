# xsample without a GPU: the environment of requirements/cpu.txt on a plain Python.
#
#   docker build -f docker/cpu.Dockerfile -t xsample:cpu .

ARG PYTHON=python:3.12.12-slim-bookworm

FROM ${PYTHON} AS wheel
WORKDIR /src
ARG PIP_INDEX_URL
COPY requirements requirements
RUN grep -Eh '^(hatchling|packaging|pathspec|pluggy|trove-classifiers)==' requirements/*.txt >build.txt \
    && pip install --no-cache-dir --no-deps -r build.txt
COPY pyproject.toml README.md LICENSE ./
COPY engine engine
COPY evaluators evaluators
COPY xsample xsample
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .

FROM ${PYTHON}
LABEL org.opencontainers.image.title="xsample" \
      org.opencontainers.image.description="Cross-sampling of model pairs in lock-step on vLLM, CPU" \
      org.opencontainers.image.version="0.2.0" \
      org.opencontainers.image.licenses="Apache-2.0"

# vLLM's CPU kernels are linked with libnuma. Not pinned: Debian keeps one version of it a release.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libnuma1 \
    && rm -rf /var/lib/apt/lists/*

# A layer for torch, one for the rest of the lock, one for xsample: the first changes least.
# Everything is compiled here, for at run time nobody can write there.
ARG PIP_INDEX_URL
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY requirements/cpu.txt /opt/xsample/cpu.txt
WORKDIR /opt/xsample
RUN grep '^torch==' cpu.txt >torch.txt \
    && { pip install --no-cache-dir --no-deps -r torch.txt \
         || pip install --no-cache-dir --no-deps --index-url "${TORCH_INDEX}" -r torch.txt; }
RUN pip install --no-cache-dir --no-deps -r cpu.txt
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-deps /wheels/*.whl

# Any user may run the image (docker run --user): these folders are open to all, and nothing asks for the user's name.
RUN useradd --uid 10001 --create-home --home-dir /home/xsample xsample \
    && mkdir -p /work/runs /huggingface \
    && chmod -R 1777 /work /huggingface /home/xsample
ENV HOME=/home/xsample \
    USER=xsample \
    LOGNAME=xsample \
    HF_HOME=/huggingface
USER 10001:10001
WORKDIR /work
HEALTHCHECK --interval=5m --timeout=30s CMD ["xsample", "doctor", "--quick"]
ENTRYPOINT ["xsample"]
CMD ["--help"]
