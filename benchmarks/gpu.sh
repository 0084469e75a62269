#!/usr/bin/env bash
# jaxreg on one GPU: `bash benchmarks/gpu.sh [OUT]` prints two tables and writes them to OUT. The
# first is of XLA as it is, the second of deterministic operations. No job begins after the seconds
# of a table, and `timeout` ends what has begun, so that all of it takes at most eight minutes. A
# first run on an H200 was cut off by the end of the machine's lease.
set -euo pipefail
cd "$(dirname "$0")/.."
out="${1:-.}"
mkdir -p "$out"
export XLA_PYTHON_CLIENT_PREALLOCATE=false PYTHONPATH="$PWD"
first="${SECONDS_FIRST:-310}" second="${SECONDS_SECOND:-60}"
timeout $((first + 50)) python3 benchmarks/gpu.py --seconds "$first" --out "$out/gpu.json" ||
  echo "the first table ended early, with exit code $?"
XLA_FLAGS="${XLA_FLAGS:-} --xla_gpu_deterministic_ops=true" timeout $((second + 50)) \
  python3 benchmarks/gpu.py --seconds "$second" --only jaxreg --out "$out/gpu_deterministic.json"
