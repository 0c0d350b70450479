# syntax=docker/dockerfile:1
# The analysis service of examples/analysis-service, both variants (compose.yaml starts the second by an entrypoint of its own).
# From the repository's root: docker build -f docker/analysis.Dockerfile .

FROM python:3.11-slim-bookworm AS build
RUN python -m venv /opt/analysis
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/analysis/bin/pip install --disable-pip-version-check "aiohttp>=3.13,<4" "standardwebhooks>=1.0.1,<2"

FROM python:3.11-slim-bookworm
COPY --from=build /opt/analysis /opt/analysis
COPY examples/analysis-service docker/healthcheck.py /srv/analysis/
ENV PATH=/opt/analysis/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /srv/analysis
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=6s --start-period=20s --retries=3 CMD ["python", "healthcheck.py", "/received", "8000"]
ENTRYPOINT ["python", "app.py"]
CMD ["--host", "0.0.0.0", "--port", "8000"]
