# One image with all programs: leasehold-broker, its entrypoint, leasehold-operator, which the chart
# runs by naming it as the command, and kubectl-leasehold, to be copied out. It runs as a plain user and never writes to its root.
#
#   docker build -t leasehold .
#
# tests/kubernetes/image builds it from this same file where no registry is in reach.

FROM rust:1.95-bookworm AS build
# Cargo knows a file by its path and time. Whoever mounts the target folder of a checkout here, so
# as not to compile twice, says where both of them lie; anyone else gets a cache of the builder's.
ARG SOURCE=/leasehold
ARG TARGET=/cache/target
WORKDIR ${SOURCE}
COPY . .
RUN --mount=type=cache,target=/cache --mount=type=cache,target=/usr/local/cargo/registry \
    cargo build --release --locked --target-dir "${TARGET}" -p leasehold-broker -p leasehold-operator \
 && install -D -t /programs "${TARGET}/release/leasehold-broker" \
    "${TARGET}/release/leasehold-operator" "${TARGET}/release/kubectl-leasehold"

FROM debian:bookworm-slim
COPY --from=build /programs/ /usr/local/bin/
COPY LICENSE /usr/share/doc/leasehold/copyright
# By number, so that Kubernetes can see that it is not root.
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/leasehold-broker"]
