# Walrus. `make help` lists what there is.

# Build outputs. Set TARGET (or CARGO_TARGET_DIR) to keep them elsewhere, in a cache for instance.
TARGET ?= $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
# RocksDB and the harness are built for this CPU, in a folder of their own.
NATIVE := $(TARGET)/native-$(shell sh scripts/cpu-tag.sh)

# What to compare, how thoroughly, where: make bench-all SYSTEMS=walrus,kafka PROFILE=smoke BENCH_DIR=/mnt/data
SYSTEMS ?=
PROFILE ?= quick
BENCH_DIR ?=
OUT ?=
WORKLOAD ?=

# A cluster on this machine: make cluster-bootstrap NODES=5, make cluster-kill N=2
NODES ?= 3
N ?=
PORT_OFFSET ?=

# Only what the chosen systems need is compiled: RocksDB alone takes many minutes.
comma := ,
chosen = $(if $(SYSTEMS),$(findstring $(comma)$(1),$(comma)$(SYSTEMS)),yes)
FEATURES := $(strip $(if $(call chosen,kafka),kafka) $(if $(call chosen,rocksdb),rocksdb))

PLAIN  = CARGO_TARGET_DIR=$(TARGET) cargo
TUNED  = RUSTFLAGS="-C target-cpu=native" CARGO_TARGET_DIR=$(NATIVE) cargo
# Without RocksDB, harness and broker are built together and quickly: an impatient newcomer waits for them.
HARNESS = $(if $(call chosen,rocksdb),$(NATIVE)/release,$(TARGET)/measure)/harness
SIM = $(PLAIN) test -q -p walrus-engine --features sim --test sim
CLUSTER = python3 scripts/cluster.py --walrus $(TARGET)/release/walrus $(if $(PORT_OFFSET),--port-offset $(PORT_OFFSET))

.DEFAULT_GOAL := help
.PHONY: help setup build test test-sim sim test-tla test-drivers test-harness bench-all bench-tune bench-micro harness \
  cluster-bootstrap cluster-status cluster-kill cluster-restart cluster-down cluster-test cluster-idle raft-entries rollover-pause lint clean tlc tlc-small tlc-deep tlc-mutants

help: ## this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' Makefile

setup: ## install what the benchmark needs beside Rust (or print the command to type)
	@SYSTEMS=$(or $(SYSTEMS),all) scripts/setup.sh

build: ## the server and its command line client, in target/release (needs only Rust)
	$(PLAIN) build --release

# The specification is checked where Python and Java are; TLC_REQUIRED=1 makes their absence an error.
test: ## all tests of the engine and of the clients in docs/clients (needs only Rust); the specification, where Java is
	$(PLAIN) test
	@$(MAKE) --no-print-directory test-sim
	@if [ -n "$(TLC_REQUIRED)" ] || python3 -c 'import tomllib' 2> /dev/null; then $(MAKE) --no-print-directory test-tla; \
	else echo "SKIPPED: the TLA+ specifications are not checked: there is no Python 3.11 here"; fi

# The simulation has the files' names from /proc.
test-sim:
	@if [ "$$(uname)" = Linux ]; then $(SIM); else echo "SKIPPED: the simulation needs Linux"; fi

sim: ## simulate three nodes, one run a seed: SEEDS=1000, or one: SEED=42 TRACE=1, or BUG=lease-from-reply
	$(SIM) -- $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),200) --first $(or $(FIRST),0)) $(if $(BUG),--bug $(BUG)) $(if $(TRACE),--trace)

test-tla:
	cd scripts && python3 -m unittest -q test_tlc
	python3 scripts/tlc.py small $(if $(TLC_REQUIRED),,--skip-if-missing)

test-drivers: setup build ## tests of the drivers, with a real Kafka and a real RocksDB
	@mkdir -p $(NATIVE)/release && cp $(TARGET)/release/walrus $(NATIVE)/release/walrus
	$(TUNED) test --release -p walrus-drivers --features kafka,rocksdb

test-harness: setup build ## tests of the harness, with a small cluster
	@mkdir -p $(NATIVE)/release && cp $(TARGET)/release/walrus $(NATIVE)/release/walrus
	$(TUNED) test --release -p walrus-harness

cluster-bootstrap: build ## start NODES=3 local nodes as one cluster (clients 9091.., data in .cluster/)
	$(CLUSTER) bootstrap --nodes $(NODES)

cluster-status: ## its nodes, leases, leaders and segments
	@$(CLUSTER) status

cluster-kill: ## kill node N=2 as a crash would
	@$(CLUSTER) kill $(or $(N),$(error which node? make cluster-kill N=2))

cluster-restart: ## start node N=2 again, with its data
	@$(CLUSTER) restart $(or $(N),$(error which node? make cluster-restart N=2))

cluster-down: ## end all nodes; the data stay
	@$(CLUSTER) down

cluster-test: build ## every scenario with real clusters, the long ones too (partitions need root)
	$(PLAIN) test --release -p walrus-engine --test cluster -- --include-ignored --nocapture --test-threads=1

cluster-idle: build ## what nodes cost that have nothing to do but 1,000 topics: CPU and memory
	$(PLAIN) test --release -p walrus-engine --test cluster -- --ignored --nocapture a_thousand_idle_topics

raft-entries: build ## how many Raft entries a million records cost
	$(PLAIN) test --release -p walrus-engine --test cluster -- --ignored --nocapture a_million_records

rollover-pause: build ## how long writers wait when a segment is full and the next node takes over
	$(PLAIN) test --release -p walrus-engine --test cluster -- --ignored --nocapture the_pause_of_a_rollover

bench-all: setup harness ## measure, verify and chart everything: results/latest/index.html
	$(HARNESS) run --profile $(PROFILE) --yes $(if $(WORKLOAD),--workload $(WORKLOAD)) $(if $(SYSTEMS),--systems $(SYSTEMS)) $(if $(BENCH_DIR),--bench-dir $(BENCH_DIR)) $(if $(OUT),--out $(OUT))

bench-tune: setup harness ## search the best settings of every system on this machine
	$(HARNESS) tune --yes $(if $(SYSTEMS),--systems $(SYSTEMS)) $(if $(BENCH_DIR),--bench-dir $(BENCH_DIR))

# The broker that is measured lies beside the harness. It is the one that `make build` makes, or, without
# RocksDB, the same without optimisation across crates.
harness:
ifneq ($(call chosen,rocksdb),)
	$(PLAIN) build --release --bin walrus
	$(TUNED) build --release -p walrus-harness --no-default-features --features "$(FEATURES)"
	@cp $(TARGET)/release/walrus $(NATIVE)/release/walrus
else
	$(PLAIN) build --profile measure -p walrus-engine --bin walrus -p walrus-harness --bin harness --no-default-features $(if $(FEATURES),--features "$(patsubst %,walrus-harness/%,$(FEATURES))")
endif

bench-micro: ## micro-benchmarks of the engine's parts
	$(PLAIN) bench -p walrus-engine

lint: ## formatting and clippy, warnings are errors
	cargo fmt --all --check
	$(TUNED) clippy --release --workspace --all-targets -- -D warnings
	$(PLAIN) clippy -p walrus-engine --features sim --lib --test sim -- -D warnings

tlc: ## check the TLA+ specification, all configurations
	python3 scripts/tlc.py run

tlc-small: ## the small configurations, within a minute
	python3 scripts/tlc.py small

tlc-deep: ## larger bounds, by simulation
	python3 scripts/tlc.py deep

tlc-mutants: ## weaken the specification line by line: each must be noticed
	python3 scripts/tlc.py mutants

clean: ## remove build outputs and results (results/reference stays)
	$(PLAIN) clean
	find results -mindepth 1 -maxdepth 1 ! -name reference ! -name README.md -exec rm -rf {} +
