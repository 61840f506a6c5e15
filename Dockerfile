# syntax=docker/dockerfile:1
#
# The image of albatross, for linux/amd64 and linux/arm64:
#
#     docker buildx build --platform linux/amd64,linux/arm64 --tag REPOSITORY:TAG .
#
# Needs BuildKit (the cache mounts), about 8 GB of memory (aws-sdk-ec2 is one large crate) and, for the architecture that
# is not the machine's own, a builder node of that architecture or QEMU. The build image brings the toolchain, so
# rust-toolchain.toml is left out of the context, and the C compiler that aws-lc needs. Both stages are Debian 12, so that
# the C library is the same.
#
# The base images are named by tag. To pin them, put their digests behind the tags (`docker buildx imagetools inspect IMAGE`
# shows them), as rust:1.95.0-bookworm@sha256:….

FROM rust:1.95.0-bookworm AS build
WORKDIR /src
COPY . .
# One cache per architecture: the builds of several run at the same time.
ARG TARGETARCH
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target,id=target-${TARGETARCH} \
    cargo build --release --locked --package albatross --bin albatross \
    && cp target/release/albatross /albatross

# glibc, libgcc and CA certificates; no shell, no package manager.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /albatross /usr/local/bin/albatross
# A number, so that Kubernetes can see that it is not root.
USER 65532:65532
# /metrics; /healthz and /readyz; and webhooks, where they are on.
EXPOSE 8080 61779 9443
ENTRYPOINT ["/usr/local/bin/albatross"]
