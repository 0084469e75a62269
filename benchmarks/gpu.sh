#!/usr/bin/env bash
# jaxreg on one GPU: `bash benchmarks/gpu.sh [OUT]` prints tables and writes them to OUT; it ends
# within eight minutes by its time limits, and has been tried on a CPU only. The first table is of XLA as it is, the second of deterministic operations.
set -euo pipefail
cd "$(dirname "$0")/.."
out="${1:-.}"
mkdir -p "$out"
export XLA_PYTHON_CLIENT_PREALLOCATE=false PYTHONPATH="$PWD"
python3 benchmarks/gpu.py --seconds "${SECONDS_FIRST:-330}" --out "$out/gpu.json"
XLA_FLAGS="${XLA_FLAGS:-} --xla_gpu_deterministic_ops=true" \
  python3 benchmarks/gpu.py --seconds "${SECONDS_SECOND:-60}" --out "$out/gpu_deterministic.json"
