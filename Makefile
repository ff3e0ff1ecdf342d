# Everything a contributor or a machine needs. `make help` lists the targets.

BUILD   := .build
DEMO    := .demo
VERSION := $(shell git describe --always --dirty 2>/dev/null || echo devel)
GO      := go
SHARED  ?= ../shared/data
PYTHON310 ?= python3.10

# JPEG through libjpeg-turbo where it is installed: see jobs/setup/libjpeg.sh.
LIBJPEG := $(shell jobs/setup/libjpeg.sh --digest)
ifneq ($(LIBJPEG),)
export GOFLAGS := $(strip $(GOFLAGS) -tags=turbojpeg)
export CGO_CPPFLAGS := $(strip $(CGO_CPPFLAGS) -DSELA_LIBJPEG=$(LIBJPEG))
endif

.DEFAULT_GOAL := help

##@ Use

.PHONY: run
run: build onnxruntime ## Label letters that nobody labelled and learn from the labels, in four rounds (two minutes)
	@jobs/demo/run.sh $(BUILD) $(DEMO)

.PHONY: build
build: ## Build .build/sela
	@mkdir -p $(BUILD)
	@$(GO) build -trimpath -ldflags '-X main.codeVersion=$(VERSION)' -o $(BUILD)/ ./jobs/sela ./jobs/demo

.PHONY: onnxruntime
onnxruntime: ## Get the ONNX Runtime library (pinned) unless it is there
	@jobs/setup/onnxruntime.sh >/dev/null

.PHONY: libjpeg
libjpeg: ## Get libjpeg-turbo for the next build: JPEG exactly as Pillow, and faster
	@jobs/setup/libjpeg.sh

##@ Develop

.PHONY: test
test: onnxruntime ## Run every test, with the race detector (under 10 minutes)
	@SELA_REQUIRE_ORT=1 $(GO) test -race -timeout 15m $$($(GO) list ./... | grep -v /jobs/sela$$)
	@# The command's tests run it some hundred times (test-command has the race detector on them), and
	@# the largest comparisons of the solver with the reference are too slow for it.
	@SELA_REQUIRE_ORT=1 $(GO) test ./jobs/sela ./sinkhorn

.PHONY: test-command
test-command: onnxruntime ## Run the tests of the command with the race detector
	@SELA_REQUIRE_ORT=1 $(GO) test -race -timeout 20m ./jobs/sela

.PHONY: test-reference
test-reference: build onnxruntime $(BUILD)/venv/.ready ## Label CIFAR-10's test images; check against NumPy, pyarrow, pandas and DuckDB
	@jobs/sela/testdata/reference.sh $(BUILD) $(SHARED)

.PHONY: test-training
test-training: build onnxruntime $(BUILD)/train-venv/.ready ## Check whole networks' training steps against PyTorch, and train its exports (needs Python 3.10: PYTHON310=…)
	@SELA_REQUIRE_ORT=1 SELA_PYTORCH=$(abspath $(BUILD)/train-venv/bin/python) $(GO) test -run NetworksAgainstPyTorch -timeout 15m ./stages/internal/onnx/grad
	@jobs/sela/testdata/training.sh $(BUILD) $(SHARED) $(BUILD)/train-venv/bin/python

.PHONY: test-readers
test-readers: onnxruntime $(BUILD)/readers-venv/.ready ## Read published and exported labels with DuckDB, pandas, Polars, Spark, datasets, Croissant, WebDataset, Label Studio
	@SELA_REQUIRE_ORT=1 SELA_REQUIRE_READERS=1 $(GO) test -run 'TestReaders$$' -count 1 -v ./jobs/sela

.PHONY: test-report
test-report: onnxruntime ## Look at the report in headless Chromium, at phone and desktop width (apt installs it; SHOTS=DIR keeps the pictures)
	@jobs/setup/chromium.sh
	@SELA_REQUIRE_ORT=1 SELA_REQUIRE_CHROMIUM=1 SELA_SCREENSHOTS=$(if $(SHOTS),$(abspath $(SHOTS))) $(GO) test -count 1 -run Chromium ./stages/report

.PHONY: test-stores
test-stores: onnxruntime ## Test storage on servers for S3, Google Cloud Storage and Azure (KEYS=100000 in a listing; needs npm and curl)
	@SELA_STORES_KEYS=$(or $(KEYS),100000) jobs/setup/stores.sh $(GO) test -count 1 -timeout 30m ./jobs/sela/stores
	@SELA_REQUIRE_ORT=1 jobs/setup/stores.sh $(GO) test -count 1 -timeout 30m -run TestStore ./jobs/sela

.PHONY: test-lineage
test-lineage: $(BUILD)/lineage-venv/.ready ## Have OpenLineage's own client read the events that sela sends
	@SELA_OPENLINEAGE=$(abspath $(BUILD)/lineage-venv/bin/python) $(GO) test -count 1 -run Lineage ./jobs/observe

.PHONY: test-receivers
test-receivers: ## Send metrics and traces to Prometheus' push gateway and node exporter and to OpenTelemetry's collector (apt and Go bring them)
	@jobs/setup/receivers.sh $(BUILD)/receivers
	@SELA_RECEIVERS=$(abspath $(BUILD)/receivers) $(GO) test -count 1 -run 'TestReceivers$$' ./jobs/observe

.PHONY: test-airflow
test-airflow: build onnxruntime $(BUILD)/airflow-venv/.ready ## Run the DAG on an Airflow of its own: parse, kill, retry, skip, trigger training (SHARED= has CIFAR-10)
	@SELA=$(abspath $(BUILD)/sela) SELA_IMAGES=$(abspath $(SHARED)/cifar10) AIRFLOW_HOME=$(abspath $(BUILD)/airflow-home) \
		$(BUILD)/airflow-venv/bin/python -W ignore jobs/airflow/test_sela_dag.py -v

.PHONY: lint
lint: ## Check formatting and vet
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); echo "run gofmt on these files"; exit 1; }
	@$(GO) vet ./...

.PHONY: fuzz
fuzz: ## Fuzz every parser for half a minute each (TIME=10s: shorter)
	@jobs/setup/fuzz.sh $(or $(TIME),30s)

.PHONY: bench
bench: onnxruntime ## Measure extract, label, solver, decoders and tables; prints ratios to their limits
	@$(GO) test -run '^$$' -bench . -benchtime 1x -count 1 -timeout 60m ./stages/extract ./stages/label
	@$(GO) test -run '^$$' -bench . -benchtime 10x -timeout 60m ./stages/train/builtin
	@$(GO) test -run '^$$' -bench . -benchtime 1s -timeout 60m ./sinkhorn/... ./schemas ./stages/internal/imageio/... ./stages/internal/ort

.PHONY: bench-solver
bench-solver: $(if $(ARGS),,$(BUILD)/solver-venv/.ready) ## Measure the solver and its peers, 90 minutes and 30 GB of disk (ARGS=-quick: small sizes, ARGS=-h: options)
	@$(GO) build -trimpath -o $(BUILD)/bench-solver ./stages/solve/bench
	@$(BUILD)/bench-solver -json $(BUILD)/bench-solver.json $(if $(ROUNDS),-rounds $(ROUNDS)) $(ARGS)

.PHONY: bench-images
bench-images: $(if $(ARGS),,$(BUILD)/images-venv/.ready) ## Measure decode, resize and normalise next to Pillow and other peers, 10 minutes (ARGS=-quick: few images, ARGS=-h: options)
	@$(GO) build -trimpath -o $(BUILD)/bench-images ./stages/internal/imageio/bench
	@$(GO) build -trimpath -tags= -o $(BUILD)/bench-images-standard ./stages/internal/imageio/bench
	@CGO_ENABLED=0 $(GO) build -trimpath -tags= -o $(BUILD)/bench-images-portable ./stages/internal/imageio/bench
	@$(BUILD)/bench-images -json $(BUILD)/bench-images.json \
		-also 'standard decoder=$(BUILD)/bench-images-standard' -also 'without C=$(BUILD)/bench-images-portable' $(ARGS)

.PHONY: bench-train
bench-train: onnxruntime $(if $(ARGS),,$(BUILD)/train-venv/.ready) ## Measure a step of training next to PyTorch, 10 minutes (ARGS=-quick: small, ARGS=-h: options)
	@$(GO) build -trimpath -o $(BUILD)/bench-train ./stages/train/builtin/bench
	@$(BUILD)/bench-train -json $(BUILD)/bench-train.json $(ARGS)

.PHONY: results
results: build onnxruntime ## Train and measure rows of the results on CIFAR-10, a quarter of an hour each (ROW=sela SEED=0; ROW=list, ROW=table)
	@$(GO) build -trimpath -o $(BUILD)/results ./jobs/results
	@$(BUILD)/results $(or $(ROW),list) $(if $(SEED),--seed $(SEED)) --data $(SHARED)/cifar10 $(ARGS)

.PHONY: gpu-check
gpu-check: ## On a machine with an NVIDIA GPU: get the CUDA runtime and compare it with the CPU
	@mkdir -p $(BUILD)
	@jobs/setup/gpu.sh $(BUILD) jobs/setup/gpu-check.sh $(BUILD)

.PHONY: gpu-cifar10
gpu-cifar10: build ## There: train ResNet-18 [128×10] on CIFAR-10 and measure it (EPOCHS=100, the paper has 400); goes on where it was stopped
	@$(GO) build -trimpath -o $(BUILD)/results ./jobs/results
	@jobs/setup/gpu.sh $(BUILD) $(BUILD)/results resnet-18 --epochs $(or $(EPOCHS),400) --providers cuda,cpu --data $(SHARED)/cifar10 $(ARGS)

.PHONY: clean
clean: ## Remove what was built, and the demo
	@rm -rf $(BUILD) $(DEMO)

$(BUILD)/venv/.ready: jobs/setup/requirements.txt
	@python3 -m venv $(BUILD)/venv
	@$(BUILD)/venv/bin/pip install --quiet --disable-pip-version-check -r jobs/setup/requirements.txt
	@touch $@

$(BUILD)/readers-venv/.ready: jobs/setup/requirements-readers.txt
	@python3 -m venv $(BUILD)/readers-venv
	@$(BUILD)/readers-venv/bin/pip install --quiet --disable-pip-version-check -r $<
	@touch $@

$(BUILD)/airflow-venv/.ready: jobs/setup/requirements-airflow.txt
	@python3 -m venv $(BUILD)/airflow-venv
	@$(BUILD)/airflow-venv/bin/pip install --quiet --disable-pip-version-check -r $<
	@touch $@

$(BUILD)/lineage-venv/.ready: jobs/observe/testdata/requirements.txt
	@python3 -m venv $(BUILD)/lineage-venv
	@$(BUILD)/lineage-venv/bin/pip install --quiet --disable-pip-version-check -r $<
	@touch $@

$(BUILD)/solver-venv/.ready: stages/solve/bench/tests/requirements.txt
	@test -x $(BUILD)/solver-venv/bin/python || $(PYTHON310) -m venv $(BUILD)/solver-venv
	@$(BUILD)/solver-venv/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

$(BUILD)/images-venv/.ready: stages/internal/imageio/bench/tests/requirements.txt stages/internal/imageio/bench/tests/requirements-simd.txt
	@test -x $(BUILD)/images-venv/bin/python || $(PYTHON310) -m venv $(BUILD)/images-venv
	@$(BUILD)/images-venv/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@rm -rf $(BUILD)/images-simd
	@CC='cc -mavx2' $(BUILD)/images-venv/bin/python -m pip install -qq --disable-pip-version-check --no-deps --target $(BUILD)/images-simd \
		-r $(word 2,$^) || echo 'Pillow-SIMD does not build here and will not be measured' >&2
	@touch $@

$(BUILD)/train-venv/.ready: stages/train/builtin/bench/tests/requirements.txt
	@test -x $(BUILD)/train-venv/bin/python || $(PYTHON310) -m venv $(BUILD)/train-venv
	@$(BUILD)/train-venv/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

.PHONY: help
help:
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
