#!/usr/bin/env bash
# The whole check of a machine with a GPU, in under ten minutes: tests on CUDA, then the benchmark.
# Usage: benchmarks/gpu_check.sh [PYTHON]   PYTHON has the package, pytest and hypothesis (default: python).
# Results: benchmarks/results_cuda.md and benchmarks/gpu_tests.txt, in $OUT too if that is set.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python="${1:-python}"
export PYTHONPATH="src${PYTHONPATH:+:$PYTHONPATH}" AIHWKIT_USE_TRITON=1
"$python" -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' || { echo "no CUDA device"; exit 1; }
# Kernels first: their tests are short, and run on the GPU where there is one.
kernels="tests/streams tests/array/kernels tests/agreement/test_kernels.py tests/agreement/test_synchronization.py"
timeout 120 "$python" -m pytest -q -m "slow or not slow" $kernels 2>&1 | tee benchmarks/gpu_tests.txt
tests=$?
timeout 180 "$python" -m pytest -q -m gpu tests 2>&1 | tee -a benchmarks/gpu_tests.txt
tests=$((tests || $?))
# Small shapes first, so that there are results whenever the time ends. Llama-8B is the last, on cards with 70 GiB or more.
timeout 280 "$python" benchmarks/all.py --device cuda --seconds 8
speed=$?
[ -z "${OUT:-}" ] || cp benchmarks/gpu_tests.txt benchmarks/results_cuda.md "$OUT"/
exit $((tests || speed))
