# The image of pgquorum: any Postgres image, with one static binary as PID 1.
#
#   docker build -t pgquorum:18 .                                  on the official image (or the local one, see images/)
#   docker build -t pgquorum:17 --build-arg BASE=postgres:17 .
#
# Nothing here needs BuildKit.
ARG BASE=postgres:18
ARG GO_IMAGE=golang:1.26-bookworm

FROM ${GO_IMAGE} AS build
ARG GOPROXY
WORKDIR /src
# The modules alone first: they change seldom, and are kept in their own layer.
COPY go.mod go.sum ./
COPY images/deps ./images/deps
RUN CGO_ENABLED=0 GOFLAGS=-buildvcs=false go build -trimpath -tags grpcnotrace -ldflags "-s -w" -o /dev/null ./images/deps
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 GOFLAGS=-buildvcs=false go build -trimpath -tags grpcnotrace \
        -ldflags "-s -w -X main.version=${VERSION}" -o /out/pgquorum ./entrypoint

FROM ${BASE}
COPY --from=build /out/pgquorum /usr/local/bin/pgquorum
# The layout of the 18 images for every major: one volume that holds PGDATA and, beside it, the cluster's state.
ENV PGDATA=/var/lib/postgresql/${PG_MAJOR}/docker
VOLUME /var/lib/postgresql
EXPOSE 5432 7432 8008
# SIGINT is a fast, clean shutdown; a SIGTERM to an official image waits for clients for ever.
STOPSIGNAL SIGINT
ENTRYPOINT ["pgquorum", "run"]
CMD ["postgres"]
