# productrec with CUDA; docs/container.md says how to build and run it.
# The machine needs an NVIDIA driver and its container toolkit; the CUDA libraries come with torch.

# Another base must have apt, Python 3.11 to 3.13 with its headers (triton compiles against them) and venv.
ARG BASE_IMAGE=python:3.12-slim-bookworm
FROM ${BASE_IMAGE}

# torch.compile needs a C compiler for the GPU and a C++ compiler for what stays on the CPU.
# No versions: the base decides which there are, and a pinned one is gone at the next security update.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ gcc libc6-dev \
    && apt-get clean \
    && rm -rf /var/lib/apt/lists/*

# Build settings, and a Python of our own: Debian's own refuses packages from outside Debian.
ENV UV_CACHE_DIR=/var/cache/uv \
    UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_PYTHON_DOWNLOADS=never \
    VIRTUAL_ENV=/opt/productrec \
    PATH=/opt/productrec/bin:$PATH
RUN python3 -m venv /opt/uv \
    && /opt/uv/bin/pip install --no-cache-dir "uv>=0.9,<1" \
    && /opt/uv/bin/uv venv --no-cache --python "$(command -v python3)" "$VIRTUAL_ENV"

# What productrec needs, torch among it: gigabytes, in a layer that a change of the code leaves alone.
# The cache lives on the building machine, not in the image.
WORKDIR /opt/source
COPY pyproject.toml constraints.txt ./
RUN --mount=type=cache,target=/var/cache/uv \
    /opt/uv/bin/uv pip install --constraints constraints.txt --requirements pyproject.toml --extra text

# An unprivileged user. Its home and the workspace are open to all, so that `--user` may name any other.
# Everything that is downloaded or compiled at run time lands in ~/.cache: mount that to keep it.
ENV HOME=/home/productrec \
    USER=productrec \
    XDG_CACHE_HOME=/home/productrec/.cache \
    TORCHINDUCTOR_CACHE_DIR=/home/productrec/.cache/torchinductor \
    TRITON_CACHE_DIR=/home/productrec/.cache/triton \
    NO_ALBUMENTATIONS_UPDATE=1 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    NVIDIA_VISIBLE_DEVICES=all \
    PYTHONUNBUFFERED=1
RUN groupadd --gid 1000 productrec \
    && useradd --uid 1000 --gid 1000 --home-dir "$HOME" --shell /bin/bash productrec \
    && mkdir -p "$XDG_CACHE_HOME" /workspace/data /workspace/runs /workspace/submissions \
    && chown -R productrec:productrec "$HOME" /workspace \
    && chmod 1777 "$HOME" "$XDG_CACHE_HOME" /workspace /workspace/data /workspace/runs /workspace/submissions

# The code.
COPY README.md LICENSE ./
COPY productrec productrec
RUN --mount=type=cache,target=/var/cache/uv /opt/uv/bin/uv pip install --no-deps .

WORKDIR /workspace
COPY pipelines pipelines
USER 1000:1000
ENTRYPOINT ["productrec"]
CMD ["--help"]
