# dreamcad. Bare `make` prints this help.
# Prerequisites (Debian/Ubuntu): apt-get install git make gcc nodejs npm python3 python3-venv; Go 1.26 from go.dev.

.DEFAULT_GOAL := help
SHELL := /bin/bash

CACHE := $(CURDIR)/.cache
TOOLS := $(CACHE)/bin
GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.release=$(VERSION)
VENV := $(CURDIR)/.venv
ARGS ?=
# NVML's header marks functions that we do not call as deprecated.
export CGO_CFLAGS ?= -O2 -g -Wno-deprecated-declarations

.PHONY: help
help: ## Print this help
	@awk -F':.*## ' '/^[a-zA-Z0-9_-]+:.*## /{printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ Main job

.PHONY: run
run: build ## Start everything on http://localhost:7860 (no Redis, S3, GPU or tokens needed)
	./bin/dream up $(ARGS)

.PHONY: build
build: web ## Build bin/dream
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/dream ./cmd/dream

.PHONY: web
web: bots/web/assets/dist/app.js ## Bundle the console's scripts (npm, lock file)

WEB_SOURCES := $(wildcard bots/web/ui/src/* bots/web/ui/package.json bots/web/ui/package-lock.json bots/web/ui/*.mjs)
bots/web/assets/dist/app.js: $(WEB_SOURCES)
	cd bots/web/ui && npm ci --no-audit --no-fund --loglevel=error && npm run --silent build

.PHONY: services
services: tools ## Start Redis and an S3 server on loopback ports for development
	bash scripts/services.sh

.PHONY: topology
topology: build tools ## Start queue, storage, bot and worker as processes; take one job to a downloaded GLB
	bash scripts/topology.sh

##@ Checks

.PHONY: test
test: deps tools web ## Run every test that needs no GPU (installs what it needs)
	bash scripts/test.sh

.PHONY: deps
deps: ## Install the servers and browser that tests start (apt; needs root)
	bash scripts/deps.sh

.PHONY: tools
tools: $(TOOLS)/versitygw $(TOOLS)/gotestsum ## Build the pinned test tools

$(TOOLS)/%: tools.mod tools.sum
	@mkdir -p $(TOOLS)
	$(GO) build -modfile=tools.mod -o $@ $$($(GO) list -modfile=tools.mod -f '{{.ImportPath}}' tool | grep '/$*$$')
	@touch $@

.PHONY: lint
lint: $(TOOLS)/golangci-lint ## Run the linters, among them the import arrows
	$(TOOLS)/golangci-lint run --allow-parallel-runners ./...

.PHONY: builds
builds: ## Build the three variants: without cgo, plain, cuda
	CGO_ENABLED=0 $(GO) build -o /dev/null ./cmd/dream
	$(GO) build -o /dev/null ./cmd/dream
	$(MAKE) --no-print-directory build-cuda

# cuda.h comes from NVIDIA's PyPI package; linking needs no libcuda: an empty archive stands for it
# (inference/device/cuda/driver holds a table that is filled when the program starts).
CUDA_INCLUDE := $(CACHE)/cuda/nvidia/cuda_runtime/include
CUDA_FLAGS := CGO_CFLAGS="-O2 -I$(CUDA_INCLUDE) -Wno-deprecated-declarations" CGO_LDFLAGS="-L$(CACHE)/cuda/lib"
CUDA_TOOL := python3 inference/device/cuda/tools/kernels.py --cache $(CACHE)

.PHONY: build-cuda
build-cuda: cuda-headers ## Build bin/dream-cuda, which uses a card when there is one
	$(CUDA_FLAGS) $(GO) build -trimpath -tags cuda -ldflags '$(LDFLAGS)' -o bin/dream-cuda ./cmd/dream

.PHONY: cuda-headers
cuda-headers: $(CUDA_INCLUDE)/cuda.h $(CACHE)/cuda/lib/libcuda.a

$(CUDA_INCLUDE)/cuda.h:
	$(CUDA_TOOL) --headers
	@touch $@

$(CACHE)/cuda/lib/libcuda.a:
	@mkdir -p $(@D)
	printf '!<arch>\n' > $@

.PHONY: kernels
kernels: ## Compile the CUDA kernels for every generation of cards (NVRTC from PyPI; no card or toolkit needed)
	$(CUDA_TOOL)

.PHONY: test-cuda
test-cuda: cuda-headers ## Vet the CUDA build and run its tests; without a card they skip
	$(CUDA_FLAGS) $(GO) vet -tags cuda ./inference/device/cuda/... ./cmd/dream
	$(CUDA_FLAGS) $(GO) test -tags cuda ./inference/device/cuda/...

.PHONY: test-gpu
test-gpu: cuda-headers ## Run the CUDA tests on the card of this machine (fails without one)
	REQUIRE_GPU=1 $(CUDA_FLAGS) $(GO) test -count=1 -tags cuda ./inference/device/cuda/...

bin/cuda.test: cuda-headers ## The CUDA tests as one binary, for a machine without Go
	$(CUDA_FLAGS) $(GO) test -c -tags cuda -ldflags '-s -w' -o $@ ./inference/device/cuda

.PHONY: test-gpu-full
test-gpu-full: bin/cuda.test ## Compare the full-size networks and 50 steps with PyTorch on the card (TORCH_PYTHON with torch)
	TEST=$(CURDIR)/bin/cuda.test bash scripts/bench_gpu.sh check

.PHONY: bench-gpu
bench-gpu: bin/cuda.test ## Time the card's networks beside PyTorch in the same run, print the ratios, draw the plot
	TEST=$(CURDIR)/bin/cuda.test bash scripts/bench_gpu.sh bench

.PHONY: card
card: ## Run everything that only a machine with a card can show; a summary and logs in out/card (an hour; CARD_OUT, TORCH_PYTHON)
	bash scripts/card.sh

.PHONY: verify
verify: ## Prove that generated files are current
	bash scripts/verify.sh

.PHONY: generate
generate: ## Write the generated files again
	$(GO) generate ./...
	$(GO) run ./cmd/dream config docs > docs/configuration.md

# Judging needs PyTorch on the processor (Debian's python3-torch will do) and g++.
EVAL_DIR ?= out/eval
EVAL_PROMPTS ?= 1010
EVAL_MESHES ?= 69
PYTHON ?= python3
TRAIN := inference/models/mini/train

.PHONY: eval
eval: eval-views eval-meshes ## Judge the small model's views and meshes on held-out prompts (hours on two cores; EVAL_PROMPTS, EVAL_MESHES)

.PHONY: eval-views
eval-views:
	@mkdir -p $(EVAL_DIR)
	for set in held-out:$(EVAL_PROMPTS) attributes:$$(($(EVAL_PROMPTS) / 2)) seeds:72; do \
	  name=$${set%%:*} && $(PYTHON) $(TRAIN)/prompts.py --set $$name --count $${set##*:} --out $(EVAL_DIR)/$$name.jsonl && \
	  $(GO) run ./inference/models/mini/draw -prompts $(EVAL_DIR)/$$name.jsonl -out $(EVAL_DIR)/$$name && echo "== $$name" && \
	  $(PYTHON) $(TRAIN)/judge_folder.py --prompts $(EVAL_DIR)/$$name.jsonl --pictures $(EVAL_DIR)/$$name --json $(EVAL_DIR)/$$name.json || exit 1; \
	done

.PHONY: eval-meshes
eval-meshes:
	@mkdir -p $(EVAL_DIR)
	$(PYTHON) $(TRAIN)/prompts.py --set things --count $(EVAL_MESHES) --out $(EVAL_DIR)/meshes.jsonl
	$(GO) run ./inference/models/mini/draw -mesh -prompts $(EVAL_DIR)/meshes.jsonl -out $(EVAL_DIR)/meshes
	$(PYTHON) $(TRAIN)/judge_folder.py --prompts $(EVAL_DIR)/meshes.jsonl --pictures $(EVAL_DIR)/meshes --json $(EVAL_DIR)/meshes.json
	@cat $(EVAL_DIR)/meshes/meshes.json

.PHONY: security
security: $(TOOLS)/golangci-lint $(TOOLS)/govulncheck ## gosec, govulncheck and npm audit, as far as their databases can be reached
	$(TOOLS)/golangci-lint run --allow-parallel-runners --enable-only gosec ./...
	$(TOOLS)/govulncheck ./... || echo "govulncheck: its database could not be reached or it found something (above)"
	cd bots/web/ui && npm audit --omit=dev || echo "npm audit: its database could not be reached or it found something (above)"

.PHONY: test-minio
test-minio: ## Run the storage suite against MinIO's server too (a separate process; nightly)
	GOBIN=$(TOOLS) $(GO) install github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c
	MINIO=$(TOOLS)/minio $(GO) test -count=1 -run Conformance ./storage/s3

VALKEY ?= valkey-server
.PHONY: test-valkey
test-valkey: ## Run the queue's tests on Valkey too (VALKEY=/path/to/valkey-server; Debian: apt-get install valkey-server; nightly)
	REDIS_SERVER=$$(command -v $(VALKEY)) $(GO) test -count=1 ./queue/redisq

.PHONY: bench
bench: ## Run the Go benchmarks
	$(GO) test -run '^$$' -bench . -benchtime 1s ./...

$(VENV)/torch: ## A virtual environment with PyTorch, the peer of the benchmarks and the reference of the goldens
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet 'torch>=2.15' numpy
	@touch $@

.PHONY: bench-peer
bench-peer: $(VENV)/torch ## Time the networks beside PyTorch in the same run (ARGS='--compile --threads 2')
	$(VENV)/bin/python inference/reference/bench_peer.py $(ARGS)

.PHONY: goldens
goldens: $(VENV)/torch ## Write the reference tensors of the tests anew, after the model was replaced
	$(VENV)/bin/python inference/reference/goldens.py

HOURS ?= 24
.PHONY: soak
soak: deps ## Let random rows of the fault matrix happen to one queue for HOURS and check the invariants each minute (nightly)
	DREAM_SOAK_HOURS=$(HOURS) $(GO) test ./queue/redisq -run Row24 -timeout 0 -v

ROUNDS ?= 20
.PHONY: test-faults
test-faults: deps tools ## Run the fault matrix 20 times and write its counts to docs/reliability.md; goes on after an interruption (ROWS=1,17 ROUNDS=5; nightly)
	PATH="$(TOOLS):$$PATH" $(GO) run ./queue/queuetest/faults -rows "$(ROWS)" -rounds $(ROUNDS) -doc docs/reliability.md $(ARGS)

.PHONY: test-memory
test-memory: ## Push a million interactions through each chat adapter and report bytes per interaction (10 to 30 minutes; nightly)
	DREAM_INTERACTIONS=1000000 $(GO) test ./bots/discord ./bots/slack -run 'TestMemory$$' -timeout 120m -p 1 -v

.PHONY: test-full
test-full: $(VENV)/torch ## Compare the full-size networks with PyTorch on the processor (an hour, 12 GB; nightly)
	PYTHON=$(VENV)/bin/python $(GO) test -tags full -timeout 120m -run FullSize ./inference
