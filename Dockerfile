# The image of a node, built from source where `make image` hasn't put it into the
# engine already: docker-compose.yml does that by itself.
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=0.1.0-dev
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /out/skep ./cmd/skep

# cmd/lab/image.go makes the same image out of a local binary, cmd/pack/image.go one for releases: keep them alike.
FROM scratch
COPY --from=build /out/skep /usr/bin/skep
ENTRYPOINT ["/usr/bin/skep"]
CMD ["daemon"]
