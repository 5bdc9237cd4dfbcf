# The `trading` command as an image.
#
#   docker build -t paper-trading-bot:0.1.0 .
#   docker build -t paper-trading-bot:0.1.0-cuda --build-arg VARIANT=cuda .
#   docker run --rm -p 127.0.0.1:8000:8000 --shm-size 1g -v trading-state:/var/lib/trading paper-trading-bot:0.1.0
#
# BASE is any Debian image with Python 3.11 and venv. A build secret `pip` is a pip.conf and `ca` a
# bundle of certificates, for networks that need them; neither stays in the image. KERNELS=no leaves
# machine code out: each container then compiles at its first start, for a minute of one core or more.

ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS listed
COPY pyproject.toml .
RUN python3 -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' \
    > dependencies.txt

# By their list alone: another change of pyproject.toml leaves this layer, by far the largest, as it is.
FROM ${BASE} AS dependencies
ARG VARIANT=cpu
# Torch's builds for the CPU; PyPI's own are for CUDA.
ARG TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
WORKDIR /src
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python3 -m venv /opt/venv
COPY constraints.txt ./
COPY --from=listed dependencies.txt ./
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=ca,target=/run/ca.pem \
    case "$VARIANT" in \
      cpu) export PIP_EXTRA_INDEX_URL="$TORCH_CPU_INDEX" ;; \
      cuda) ;; \
      *) echo "VARIANT is $VARIANT; it must be cpu or cuda" >&2; exit 1 ;; \
    esac; \
    if [ -s /run/ca.pem ]; then export PIP_CERT=/run/ca.pem; fi; \
    /opt/venv/bin/pip install -c constraints.txt -r dependencies.txt; \
    cd /opt/venv/lib/python3*/site-packages; \
    rm -rf torch/include torch/test torch/bin/protoc* ray/jars; \
    find . -type d -name tests -prune -exec rm -rf {} +

FROM dependencies AS application
COPY pyproject.toml README.md LICENSE ./
COPY trading trading
# Below a root of its own: what changes often is then a layer of its own, and a small one.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=ca,target=/run/ca.pem \
    if [ -s /run/ca.pem ]; then export PIP_CERT=/run/ca.pem; fi; \
    /opt/venv/bin/pip install --no-deps --root /application .

FROM ${BASE} AS runtime
# tini: an init that reaps the processes Ray leaves behind, and passes SIGTERM on.
# wget, openssl: KubeRay runs them in here, beside bash and what every Debian has. Its probe of a
# RayService's workers is a pipe of wget and grep; with tlsOptions it looks into certificates.
RUN apt-get update -q \
 && apt-get install -y -q --no-install-recommends tini wget openssl \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --user-group --create-home trading \
 && install -d -o trading -g trading /var/lib/trading \
 && ln -s /var/lib/trading/checkpoints /checkpoints \
 && ln -s /tmp/ray /logs \
 # A login shell, which KubeRay can be told to use, begins with a PATH of its own.
 && echo 'PATH=/opt/venv/bin:$PATH' >/etc/profile.d/trading.sh
COPY --from=dependencies /opt/venv /opt/venv
COPY --from=application /application/ /
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    RAY_USAGE_STATS_ENABLED=0
USER 10001:10001
WORKDIR /home/trading

FROM runtime AS kernels
ARG KERNELS=yes
USER 0
RUN mkdir /kernels && case "$KERNELS" in \
      yes) trading compile-kernels /kernels ;; \
      no) ;; \
      *) echo "KERNELS is $KERNELS; it must be yes or no" >&2; exit 1 ;; \
    esac

FROM runtime
COPY --from=kernels /kernels /opt/venv/share/trading/kernels
EXPOSE 8000
# Long enough at the start for a short pre-training, and for compiling kernels where none fit.
HEALTHCHECK --interval=15s --timeout=10s --start-period=10m --retries=6 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=5)"]
ENTRYPOINT ["tini", "--", "trading"]
CMD ["up", "--set", "serving.host=0.0.0.0", "--set", "paths.state_dir=/var/lib/trading"]
