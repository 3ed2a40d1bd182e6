# syntax=docker/dockerfile:1
# One image for the demo, the server, Jupyter and TensorBoard, which compose.yaml runs. For NVIDIA GPUs:
# docker build --build-arg TORCH_BUILD=cu130 --build-arg EXTRAS=all,cuda --tag small-doge:cuda .
ARG PYTHON_VERSION=3.12
FROM python:${PYTHON_VERSION}-slim

# The part of PyTorch's index: cpu, or a version of CUDA such as cu130.
ARG TORCH_BUILD=cpu
ARG EXTRAS=all
ENV PYTHONUNBUFFERED=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

RUN useradd --create-home --uid 1000 doge && install --directory --owner doge --group doge /work
WORKDIR /opt/small-doge
COPY constraints.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip install --index-url "https://download.pytorch.org/whl/${TORCH_BUILD}" "$(grep '^torch==' constraints.txt)"
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY recipes recipes
COPY src src
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip install --constraint constraints.txt ".[${EXTRAS}]" jupyterlab==4.6.6

USER 1000:1000
WORKDIR /work
VOLUME /work
EXPOSE 8000 8888 6006
HEALTHCHECK --interval=30s --timeout=5s --start-period=5m \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
CMD ["small-doge", "serve", "--host", "0.0.0.0", "--port", "8000", "--chats", "/work/chats.db"]
