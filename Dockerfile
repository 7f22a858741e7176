# Two ways to one image: a static binary in an empty file system, run by a user without rights.
#
#   docker compose up                 builds from source, in a Rust image that your registry serves
#   scripts/image                     builds the binary with the cargo at hand and packs it; asks no registry
#
# `prebuilt` stands first because the classic builder builds every stage that precedes its target.

FROM scratch AS prebuilt
COPY dist/holdfast /holdfast
# An empty folder owned by the user below: a new named volume takes its owner from it.
COPY --chown=65532:65532 dist/data /data
USER 65532:65532
VOLUME /data
EXPOSE 2379 2380
ENTRYPOINT ["/holdfast"]

# Not the slim one: it has no make, which the allocator is built with.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# An explicit target keeps the static flag away from build scripts and derive macros, which cannot be static.
RUN triple="$(uname -m)-unknown-linux-gnu" \
 && RUSTFLAGS="-C target-feature=+crt-static" \
    cargo build --release --locked --package holdfast-server --bin holdfast --target "$triple" \
 && mkdir -p /out/data \
 && cp "target/$triple/release/holdfast" /out/holdfast \
 && strip --strip-debug /out/holdfast

FROM scratch AS runtime
COPY --from=build /out/holdfast /holdfast
COPY --from=build --chown=65532:65532 /out/data /data
USER 65532:65532
VOLUME /data
EXPOSE 2379 2380
ENTRYPOINT ["/holdfast"]
