# SPDX-License-Identifier: Apache-2.0
# Two stages: build with the compiler, ship the binary, the demos and five shared libraries.
# The load generator, fathom bench, would bring libcurl and what that needs: --build-arg BENCH=enabled has it.
ARG BENCH=disabled

FROM debian:bookworm-slim AS build
ARG BENCH
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
      gcc libc6-dev meson ninja-build pkg-config python3 python3-yaml \
      libmicrohttpd-dev libjansson-dev libuv1-dev libpcre2-dev libopenblas-dev \
      $([ "$BENCH" != enabled ] || echo libcurl4-openssl-dev)
COPY . /src
RUN meson setup /build /src --prefix=/usr --buildtype=release -Dtests=false -Dbench=$BENCH \
 && ninja -C /build \
 && DESTDIR=/image meson install -C /build --no-rebuild \
 && strip /image/usr/bin/fathom

FROM debian:bookworm-slim
ARG BENCH
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
      libmicrohttpd12 libjansson4 libuv1 libpcre2-8-0 libopenblas0-pthread \
      $([ "$BENCH" != enabled ] || echo libcurl4) \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*
COPY --from=build /image/usr/ /usr/
LABEL org.opencontainers.image.title="fathom" \
      org.opencontainers.image.description="Serves LayerDrop-trained transformers at the depth or within the latency each request asks for" \
      org.opencontainers.image.licenses="Apache-2.0"
# OpenBLAS would start its own threads at load; fathom slices the work itself.
ENV FATHOM_HOST=0.0.0.0 FATHOM_PORT=8080 OPENBLAS_NUM_THREADS=1
USER 65532:65532
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s --retries=3 CMD ["fathom", "health"]
ENTRYPOINT ["fathom"]
CMD ["serve"]
