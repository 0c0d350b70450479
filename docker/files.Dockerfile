# syntax=docker/dockerfile:1
# The file service of examples/file-service: one static binary and nothing else. From the root: docker build -f docker/files.Dockerfile .

FROM golang:1.25-bookworm AS build
WORKDIR /src
COPY examples/file-service ./
RUN CGO_ENABLED=0 go build -trimpath -ldflags=-s -o /out/file-service . && mkdir /out/storage

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/file-service /file-service
# A new volume takes the owner of the folder that it is mounted on: Hookline's user, which writes beside the documents.
COPY --from=build --chown=10001:10001 /out/storage /storage
ENV STORAGE=/storage
USER 10001:10001
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=6s --start-period=10s --retries=3 CMD ["/file-service", "-health", "-listen", ":8080"]
ENTRYPOINT ["/file-service"]
CMD ["-listen", ":8080"]
