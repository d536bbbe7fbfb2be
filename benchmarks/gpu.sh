#!/bin/sh
# All that is to be known of a GPU that is rented for minutes: benchmarks/gpu.sh --out DIR [--minutes 9] [--tiny]
# First whether everything computes the same there, then the tables of docs/performance.md, then what a step runs.
# PYTHON names the interpreter. benchmarks/README.md has more.
cd "$(dirname "$0")/.." && exec "${PYTHON:-python}" -W ignore -m benchmarks.gpu run "$@"
