# The image of the agents: both programs, gpgme and gnupg (which gpgme runs), and nothing else of ours.
#
#   podman build -t nodetrust .
#
# Base and builder may be any Debian or RHEL alike; the builder's glibc must not be newer than the base's.
ARG BUILDER=registry.access.redhat.com/ubi9/go-toolset:latest
ARG BASE=registry.access.redhat.com/ubi9/ubi-minimal:latest

FROM ${BUILDER} AS build
USER 0
ARG VERSION=devel
ARG GOPROXY=
ARG GOFLAGS=
# The seconds since 1970 that every file of ours gets as its time: two builds give the same layer.
ARG SOURCE_DATE_EPOCH=0
WORKDIR /src
COPY . .
# What gpgme is built with; does nothing where it is there.
RUN hack/deps.sh build
RUN make build VERSION="$VERSION" \
 && mkdir -p /out/usr/bin /out/usr/share/licenses/nodetrust \
 && install -m 0755 bin/nodetrust bin/nodetrust-agent /out/usr/bin/ \
 && install -m 0644 LICENSE /out/usr/share/licenses/nodetrust/ \
 && find /out -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

FROM ${BASE}
# Does nothing where gpg and libgpgme are there, as in ubi-minimal, whose package manager needs them itself.
RUN if ! command -v gpg >/dev/null || ! ldconfig -p | grep -q 'libgpgme\.so\.11 '; then \
      if command -v microdnf >/dev/null; then microdnf install -y --setopt=install_weak_deps=0 gpgme gnupg2 && microdnf clean all; \
      elif command -v dnf >/dev/null; then dnf install -y --setopt=install_weak_deps=0 gpgme gnupg2 && dnf clean all; \
      else apt-get update && apt-get install -y --no-install-recommends ca-certificates gnupg libgpgme11 && rm -rf /var/lib/apt/lists/*; fi; \
    fi
COPY --from=build /out/ /
# Fails the build where a library is missing or is not the one that the program was built for.
RUN nodetrust version && nodetrust-agent --help >/dev/null
USER 0
ENTRYPOINT ["/usr/bin/nodetrust-agent"]
LABEL org.opencontainers.image.title="nodetrust" \
      org.opencontainers.image.description="Keeps image signature enforcement on for every node, and proves that it is on" \
      org.opencontainers.image.licenses="Apache-2.0"
