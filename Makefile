# The front door. CMake does the work behind it; README.md says what the targets are for.
#   make verify   judge the bundled HuggingFace samples; reports in out/
#   make train    a small model from nothing to trained sparse attention (docs/training.md)
#   make test     every test: dev build with asserts and -Werror, then sanitizers, then fuzzers
#   make build    the optimised binaries, in build/bin/
#   make tsan     the CPU backend's models on four threads, in long passes and short, under ThreadSanitizer
#   make gpu      on a machine with an NVIDIA device: everything that needs one, in nine minutes (docs/cuda.md)
#   make mutants  the judge made wrong in one line after another: the tests must notice every time
SHELL := /bin/bash
.DEFAULT_GOAL := build
.PHONY: build verify train test gpu packages judge-packages sanitize tsan fuzz mutants format clean

JOBS ?= $(shell nproc)
FUZZ_SECONDS ?= 20
export OMP_WAIT_POLICY ?= passive

# The judge alone needs fewer packages.
packages: PACKAGES = $(shell cat packages.txt)
judge-packages: PACKAGES = $(filter-out catch2 clang libbenchmark-dev libclang-rt-% libomp-dev libpcre2-dev \
  libutf8proc-dev, $(shell cat packages.txt))
packages judge-packages:
	@missing=$$(for p in $(PACKAGES); do \
	  dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'install ok installed' || echo $$p; done); \
	if [ -n "$$missing" ]; then \
	  echo "installing:" $$missing; \
	  sudo=$$([ $$(id -u) -eq 0 ] || echo sudo); \
	  $$sudo apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	fi

build: packages
	@cmake --preset release $(CMAKE_QUIET) && cmake --build --preset release -j $(JOBS) --target dsa-verify dsa-run dsa-train dsa-bench make_wide

# Where nothing is configured, what judges and no more is built; `make build` adds the rest to the same folder.
verify: judge-packages
	@[ -f build/CMakeCache.txt ] || cmake --preset judge $(CMAKE_QUIET)
	@cmake --build build -j $(JOBS) --target dsa-verify
	@mkdir -p out
	build/bin/dsa-verify samples data/samples --runs 8 --json out/report.json --junit out/report.junit.xml --html out/report.html

train: packages
	@cmake --preset release $(CMAKE_QUIET) && cmake --build --preset release -j $(JOBS) --target dsa-train
	build/bin/dsa-train data/train/needle.toml $(ARGS)

test: packages
	cmake --preset dev $(CMAKE_QUIET) && cmake --build --preset dev -j $(JOBS)
	ctest --preset dev -j $(JOBS)
	$(MAKE) --no-print-directory sanitize fuzz

# A short run under AddressSanitizer and UndefinedBehaviorSanitizer: every reader and writer of files, and the CPU
# backend.
sanitize: packages
	cmake --preset asan $(CMAKE_QUIET) && cmake --build --preset asan -j $(JOBS) --target dsa_tests_sanitized
	build-asan/bin/dsa_tests_sanitized '~[cpu-judged]~[slow]'

# GCC's OpenMP does not tell ThreadSanitizer of its barriers; LLVM's does, and runs what GCC compiled.
TSAN_RUN = env OMP_NUM_THREADS=4 TSAN_OPTIONS=ignore_noninstrumented_modules=1:halt_on_error=1 \
  OMP_TOOL_LIBRARIES=$(lastword $(sort $(wildcard /usr/lib/llvm-*/lib/libarcher.so))) \
  LD_PRELOAD=$(lastword $(sort $(wildcard /usr/lib/llvm-*/lib/libomp.so.5))) setarch -R build-tsan/bin

tsan: packages
	cmake --preset tsan $(CMAKE_QUIET) && cmake --build --preset tsan -j $(JOBS) --target dsa-run
	set -e; for model in v2 v3 v32 glm; do for format in fp32 bf16 fp8; do for chunk in 3 512; do \
	  $(TSAN_RUN)/dsa-run logits data/samples/$$model/checkpoint --format $$format --chunk $$chunk \
	    --tokens data/samples/$$model/logits.safetensors -o build-tsan/logits.safetensors; done; done; done

fuzz: packages
	cmake --preset fuzz $(CMAKE_QUIET) && cmake --build --preset fuzz -j $(JOBS)
	@mkdir -p build-fuzz/found
	@for t in safetensors golden_jsonl config tokenizer; do \
	  seeds=fuzz/corpus/$${t#golden_}; \
	  echo "fuzzing $$t for $(FUZZ_SECONDS) s"; \
	  mkdir -p build-fuzz/found/$$t; \
	  build-fuzz/bin/fuzz_$$t -max_total_time=$(FUZZ_SECONDS) -malloc_limit_mb=256 -print_final_stats=1 \
	    -artifact_prefix=build-fuzz/found/ build-fuzz/found/$$t $$seeds 2> build-fuzz/found/$$t.log \
	    || { tail -n 30 build-fuzz/found/$$t.log; exit 1; }; \
	  grep -E 'number_of_executed_units' build-fuzz/found/$$t.log; \
	done

gpu:
	@python3 experiments/device/gpu.py $(ARGS)

mutants: packages
	tests/mutants/run.sh $(ONLY)

format:
	git ls-files '*.cpp' '*.hpp' | xargs clang-format -i

clean:
	rm -rf build build-* out
