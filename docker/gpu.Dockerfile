# xsample for NVIDIA GPUs: vLLM's own image, which brings torch, CUDA and vLLM, and what xsample needs beside them.
#
#   docker build -f docker/gpu.Dockerfile -t xsample:gpu .

ARG VLLM=vllm/vllm-openai:v0.32.0
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

FROM ${VLLM}
LABEL org.opencontainers.image.title="xsample" \
      org.opencontainers.image.description="Cross-sampling of model pairs in lock-step on vLLM, NVIDIA GPUs" \
      org.opencontainers.image.version="0.2.0" \
      org.opencontainers.image.licenses="Apache-2.0"

# What the base image has stays at its version; what it lacks comes at that of the lock. pip stops where these cannot be
# reconciled with pyproject.toml.
ARG PIP_INDEX_URL
ARG PIP_BREAK_SYSTEM_PACKAGES=1
COPY requirements/cpu.txt /opt/xsample/cpu.txt
WORKDIR /opt/xsample
RUN python3 -m pip list --format=freeze >base.txt \
    && awk -F '==' 'function name(n) { n = tolower(n); gsub(/[-_.]+/, "-", n); return n } \
        FNR == NR { has[name($1)] = 1; next } /^[^#]/ && !(name($1) in has)' base.txt cpu.txt >new.txt
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    python3 -m pip install --no-cache-dir --constraint base.txt --constraint new.txt /wheels/*.whl

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
