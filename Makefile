# The front door. CMake does the work behind it; README.md says what the targets are for.
#   make verify   judge the bundled HuggingFace samples; reports in out/
#   make train    a small model from nothing to trained sparse attention (docs/training.md)
#   make test     every test: dev build with asserts and -Werror, then readers of files under sanitizers, then fuzzers
#   make sanitize readers and the CPU backend under AddressSanitizer and UndefinedBehaviorSanitizer
#   make build    the optimised binaries, in build/bin/
#   make tsan     loops on several threads and the CPU backend's models, under ThreadSanitizer
#   make report   sweeps with dsa-train, three seeds each, and one page of what they say: out/experiments.html
#   make gpu      on a machine with an NVIDIA device: everything that needs one, in a few minutes (docs/cuda.md)
#   make mutants  the judge and two kernels made wrong in one line after another: the tests must notice every time
SHELL := /bin/bash
.DEFAULT_GOAL := build
.PHONY: build verify train test report gpu packages judge-packages sanitize sanitize-readers sanitize-cpu tsan fuzz mutants format clean

JOBS ?= $(shell nproc)
FUZZ_SECONDS ?= 10

# The judge alone needs fewer packages.
packages: PACKAGES = $(shell cat packages.txt)
judge-packages: PACKAGES = $(filter-out catch2 clang libbenchmark-dev libclang-rt-% libcpp-httplib-dev \
  libpcre2-dev libtomlplusplus-dev libutf8proc-dev, $(shell cat packages.txt))
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
	@cmake --preset release $(CMAKE_QUIET) && cmake --build --preset release -j $(JOBS) --target dsa-verify dsa-run dsa-bench dsa-train dsa-sweep make_wide

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
	$(MAKE) --no-print-directory sanitize-readers fuzz

# Short runs under AddressSanitizer and UndefinedBehaviorSanitizer: every reader and writer of files, and the CPU
# backend.
sanitize: sanitize-readers sanitize-cpu
sanitize-readers sanitize-cpu: sanitize-%: packages
	cmake --preset asan $(CMAKE_QUIET) && cmake --build --preset asan -j $(JOBS) --target dsa_tests_$*
	tests/in_parts.sh build-asan/bin/dsa_tests_$* '~[slow]' $(JOBS)

TSAN_RUN = env TSAN_OPTIONS=halt_on_error=1 setarch -R build-tsan/bin

# Samples are too small to be worth sharing; the tests share every loop.
tsan: packages
	cmake --preset tsan $(CMAKE_QUIET) && cmake --build --preset tsan -j $(JOBS) --target dsa_tests
	$(TSAN_RUN)/dsa_tests '[threads],[cpu-model]'

fuzz: packages
	cmake --preset fuzz $(CMAKE_QUIET) && cmake --build --preset fuzz -j $(JOBS)
	@printf '%s\n' safetensors golden_jsonl config tokenizer | xargs -P $(JOBS) -I NAME fuzz/run.sh NAME $(FUZZ_SECONDS)

# The teacher is trained once. SWEEPS names others of experiments/sweeps/. A sweep with failed points (status 1) is reported all the same.
SEEDS ?= 3
SWEEPS ?= topk mass precision warmup recovery joint diffuse adaptation detach conventions loss_scaling \
  context crossover
report: packages
	@cmake --preset release $(CMAKE_QUIET) && cmake --build --preset release -j $(JOBS) --target dsa-sweep dsa-train
	@[ -f out/experiments/teacher/summary.json ] || build/bin/dsa-train experiments/sweeps/base_teacher.toml
	@for name in $(SWEEPS); do \
	  build/bin/dsa-sweep run experiments/sweeps/$$name.toml 'seed=range(0,$(SEEDS))' \
	    --out out/experiments/$$name-$(SEEDS) || [ $$? -eq 1 ] || exit 2; \
	done
	build/bin/dsa-sweep report $(SWEEPS:%=out/experiments/%-$(SEEDS)) -o out/experiments.html

gpu:
	@python3 experiments/device/gpu.py $(ARGS)

mutants: packages
	tests/mutants/run.sh $(ONLY)

format:
	git ls-files '*.cpp' '*.hpp' | xargs clang-format -i

clean:
	rm -rf build build-* out
