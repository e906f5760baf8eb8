# The command retina-nas as an image, for CPUs or CUDA; docs/deployment.md says how it is built and run.
# Any Debian-like image with Python 3.11 or newer and pip can be its base: torch's wheels bring CUDA, of
# which a GPU needs only the driver, and that comes from the host.
ARG BASE=python:3.11-slim
FROM ${BASE}

# OpenCV loads libGL and GLib; Triton compiles its launchers on first use.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*

# pip reads both from its environment. Without them torch comes from pip's default registry, which has the
# CUDA build for Linux; the second one is for the address of torch's CPU wheels, which then come first.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL

# The dependencies are a layer of their own, which stays as it is when only the code changes.
WORKDIR /build
COPY pyproject.toml constraints.txt ./
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
        > requirements.txt \
    && pip install --no-cache-dir --constraint constraints.txt --requirement requirements.txt
COPY . .
RUN pip install --no-cache-dir --no-deps --no-build-isolation . && rm -rf /build

# Data, studies and mlflow.db live in the folder that is mounted at /work. Any user may be chosen with
# `docker run --user`, hence the open folders and the names without a look into /etc/passwd.
ENV HOME=/home/nas USER=nas
WORKDIR /work
RUN useradd --uid 1000 --create-home nas && chmod 0777 /work /home/nas
USER nas

# torch and torchvision of different builds, or a missing library, are better noticed now.
RUN python -c "import cv2, torchvision" && retina-nas cost yunet_n --no-latency

# Like Ctrl-C: a search or a retrain that is stopped can be resumed.
STOPSIGNAL SIGINT
ENTRYPOINT ["retina-nas"]
CMD ["--help"]
