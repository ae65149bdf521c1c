# What people and CI run. Every target installs what it needs; `make help` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

TARGET := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
BIN := target/$(TARGET)/debug
RELEASE := target/$(TARGET)/release
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/switchboard
SDK := $(CACHE)/sdk-$(shell sha256sum tests/sdk/requirements.txt | cut -c1-12)
CARGO_DENY_VERSION := 0.20.2
CARGO_DENY := $(CACHE)/cargo-deny-$(CARGO_DENY_VERSION)/bin/cargo-deny
# What needs root gets it by itself; what is built and downloaded stays the user's.
ROOT := $(if $(filter-out 0,$(shell id -u)),sudo -E env "PATH=$$PATH" "HOME=$$HOME" )
RUNNER := $(if $(ROOT),CARGO_TARGET_$(shell echo $(TARGET) | tr a-z- A-Z_)_RUNNER="sudo -E env PATH=$$PATH HOME=$$HOME" )
TRIALS := $(RUNNER)cargo test --locked --workspace --features e2e/cluster

.PHONY: help
help: ## What there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

.PHONY: setup
setup: need-rust ## Install what the tests and the demo need (root), build Kubernetes once into the cache
	$(ROOT)tests/cluster/install-packages.sh
	tests/cluster/build-tools.sh >/dev/null
	cargo fetch --locked --quiet

.PHONY: demo
demo: setup ## A call on a real Kubernetes, from nothing (root); KEEP=1 leaves the cluster up
	@echo "==> Building Switchboard"
	cargo build --locked --workspace --bins
	@mkdir -p demo-output
	@echo "==> Running the demo"
	$(ROOT)$(BIN)/switchboard-demo

.PHONY: local
local: need-rust ## A call without cluster, accounts, keys or root; AGENT=agent.yaml answers with your own agent
	@echo "==> Building Switchboard"
	cargo build --locked -p media-pod -p simulator --bins
	@mkdir -p demo-output && rm -f demo-output/heard.wav
	$(BIN)/switchboard-sim local --heard demo-output/heard.wav $(if $(AGENT),--agent $(AGENT))

# Two clusters at a time, the longest first: each waits for its pods more than it computes. A lane that fails stops no other.
.PHONY: test
test: setup check unit fuzz-test sdk-test ## Everything CI runs (root for the cluster part)
	printf '%s\n' cluster-test resilience-test chart-test | xargs -P 2 -I LANE \
		bash -o pipefail -c '$(MAKE) --no-print-directory LANE 2>&1 | sed -u "s/^/LANE: /"'

# Everything that tests run or are, with one set of features: whatever is built here is built once for all of them.
.PHONY: build
build: need-rust
	@echo "==> Building Switchboard and its tests"
	cargo build --locked --workspace --bins --tests --features e2e/cluster

.PHONY: unit
unit: build ## Tests that need neither root nor a cluster
	@echo "==> Tests without a cluster"
	cargo test --locked --workspace

.PHONY: sdk-test
sdk-test: build $(SDK)/ready ## Twilio's and OpenAI's own SDKs against the simulator (Python 3.11 or newer)
	@echo "==> The simulator and the official SDKs"
	cd tests/sdk && SWITCHBOARD_SIM=$(CURDIR)/$(BIN)/switchboard-sim $(SDK)/bin/python -B -m unittest

$(SDK)/ready:
	@python3 -m venv --clear $(SDK) || { echo "Python 3.11 or newer with venv is missing (Debian: python3-venv)."; exit 1; }
	$(SDK)/bin/pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r tests/sdk/requirements.txt
	touch $@

.PHONY: cluster-test
cluster-test: setup build ## The main job on a real API server, node and Redis, and all that may go wrong there (root)
	@echo "==> Tests on a real cluster"
	tests/cluster/build-tools.sh prometheus prometheus-adapter >/dev/null
	$(TRIALS) --test cluster

.PHONY: resilience-test
resilience-test: setup build ## Nodes drained, cut off and lost; a minute of random operations and faults (root)
	@echo "==> Tests of nodes that go, and of random operations"
	$(TRIALS) --no-fail-fast --test two-nodes --test model-based

.PHONY: model-test
model-test: setup build ## Ten minutes of random operations and faults against a pure model (root); SEED=1 repeats a run's
	SWITCHBOARD_MODEL_SECONDS=600 $(if $(SEED),SWITCHBOARD_MODEL_SEED=$(SEED)) \
		$(TRIALS) --test model-based

.PHONY: operator-bench
operator-bench: setup ## The operator with 500 agents and 500 numbers: time, requests, memory, with limits (root)
	@echo "==> The operator with a large fleet"
	cargo build --locked --release -p operator
	cargo build --locked -p e2e -p simulator --bins
	$(ROOT)$(BIN)/switchboard-operator-bench --operator target/$(TARGET)/release/switchboard

.PHONY: chart-test
chart-test: setup build ## The chart: rendered, refused, installed, upgraded and uninstalled under calls; its alerts (root)
	@echo "==> Tests of the chart"
	tests/cluster/build-tools.sh helm kubeconform prometheus-operator-crds promtool >/dev/null
	$(TRIALS) --no-fail-fast --test rules --test chart

# The operator's part is a target of its own, because it needs root and a control plane.
.PHONY: bench
bench: release ## Speed and memory as tables with limits (BENCH="--rounds 9"); times want a machine with nothing else to do
	@echo "==> The session's cost of a frame"
	cargo bench --locked -p call-session --bench frames | tee target/frames.txt
	@echo "==> The media pod beside a naive relay"
	$(RELEASE)/switchboard-bench table --frames target/frames.txt --json target/bench.json $(BENCH)
	@if [ "$$(id -u)" = 0 ]; then $(MAKE) --no-print-directory operator-bench; else \
		echo "The operator with a large fleet was not measured: that needs root (make operator-bench)."; fi

.PHONY: soak
soak: release ## Half an hour at 100 calls with interruptions: nothing lost, memory level (SOAK="--seconds 600"); needs redis-server
	$(RELEASE)/switchboard-bench soak --json target/soak.json $(SOAK)

.PHONY: release
release: need-rust ## The binaries as users run them, and the tools that measure them
	@echo "==> Building release binaries"
	cargo build --locked --release -p media-pod -p simulator -p bench --bins

.PHONY: fuzz
fuzz: need-rust ## Fuzz every target for FUZZ_TIME=600 seconds; what reached new code joins the committed corpus
	tests/fuzz/fuzz.sh run $(or $(FUZZ_TIME),600)
	tests/fuzz/fuzz.sh keep

.PHONY: fuzz-test
fuzz-test: need-rust ## A minute of fuzzing for everything that reads what peers and people write; changes nothing
	@echo "==> Fuzzing, a minute each"
	tests/fuzz/fuzz.sh run 60

.PHONY: check
check: need-rust $(CARGO_DENY) ## Format, lints, documentation, licences, and that the call session does no I/O
	@echo "==> Checks"
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets --all-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --quiet
	$(CARGO_DENY) --log-level error check bans licenses sources
	@if cargo tree --locked -p call-session -e normal --prefix none | grep -E '^(tokio|mio|socket2|hyper|axum|kube|reqwest|prometheus)\b'; then \
		echo "call-session must do no I/O: it may not depend on the packages above"; exit 1; fi

$(CARGO_DENY):
	@echo "==> Building cargo-deny $(CARGO_DENY_VERSION), once, into $(CACHE)"
	CARGO_BUILD_TARGET=$(TARGET) CARGO_TARGET_DIR=$(CACHE)/build/cargo-deny \
		cargo install --locked --quiet --no-default-features --root $(CACHE)/cargo-deny-$(CARGO_DENY_VERSION) cargo-deny@$(CARGO_DENY_VERSION)
	rm -rf $(CACHE)/build/cargo-deny

.PHONY: generate
generate: need-rust ## Write generated files anew: crds/yaml, the chart's definitions, dashboards and manual, manifests/install.yaml
	cargo run --locked --quiet -p crds --bin crdgen
	cargo run --locked --quiet -p e2e --bin dashboards
	cargo run --locked --quiet -p e2e --bin chartgen

.PHONY: need-rust
need-rust:
	@command -v cargo >/dev/null || { echo "Rust is missing: install rustup (https://rustup.rs); the toolchain of rust-toolchain.toml follows by itself."; exit 1; }
