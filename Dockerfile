# jaxreg with its template, for CPUs:   docker build -t jaxreg .
# and for an NVIDIA GPU:                docker build -t jaxreg:cuda --build-arg EXTRA=cuda .
#                                       docker run --rm -v "$PWD:/data" jaxreg register FIXED MOVING --out out
FROM python:3.12-slim-bookworm AS build
# "" (CPU) or cuda; the wheels of JAX bring CUDA themselves, the host needs its driver alone.
ARG EXTRA=""
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY jaxreg jaxreg
COPY packages packages
RUN python -m venv /opt/jaxreg \
 && /opt/jaxreg/bin/pip install --no-cache-dir ".${EXTRA:+[$EXTRA]}" ./packages/jaxreg-mni152

FROM python:3.12-slim-bookworm
COPY --from=build /opt/jaxreg /opt/jaxreg
# Any user may run it; compiled programs are kept where /cache is mounted.
ENV PATH=/opt/jaxreg/bin:$PATH XDG_CACHE_HOME=/cache
RUN mkdir -m 1777 /cache
WORKDIR /data
ENTRYPOINT ["jaxreg"]
CMD ["--help"]
