SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

NAME    := vault-plugin-bcgov-jwt
BINARY  := bin/$(NAME)
VERSION ?= $(or $(shell git describe --tags --match 'v*' --dirty 2>/dev/null),v0.1.0-dev)
COMMIT  ?= $(or $(shell git rev-parse --short=12 HEAD 2>/dev/null),unknown)
LDFLAGS := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)

# What the targets below can be told, as in: make fuzz FUZZTIME=5m
IDP        ?= embedded
FUZZTIME   ?= 20s
BENCHCOUNT ?= 10
SOAKTIME   ?= 10m

TOOL   := go tool -modfile=scripts/modules/tools/go.mod
SHA256 := $(shell command -v sha256sum || echo shasum -a 256)

.PHONY: help
help: ## Show this help
	@awk -F ':.*## ' '/^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ Build and try

.PHONY: build
build: ## Build the plugin to bin/, and print its path, version and SHA-256
	@CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o $(BINARY) ./cmd/$(NAME)
	@printf 'path     %s\nversion  %s\nsha256   %s\n' '$(abspath $(BINARY))' '$(VERSION)' "$$($(SHA256) $(BINARY) | cut -d ' ' -f 1)"

.PHONY: demo
demo: ## Show the whole way to a token, then clean up (IDP=keycloak: with a real Keycloak)
	@scripts/demo.sh $(IDP)

.PHONY: dev
dev: ## As demo, but leave everything running to play with
	@scripts/demo.sh $(IDP) keep

##@ Check

.PHONY: test
test: ## Everything that must hold: format, vet, lint, unit, integration
	@scripts/steps.sh fmt-check vet lint unit integration

.PHONY: fmt
fmt: ## Format the code
	@$(TOOL) golangci-lint fmt

.PHONY: fmt-check
fmt-check: ## Fail on code that is not formatted
	@$(TOOL) golangci-lint fmt --diff

.PHONY: vet
vet: ## Run go vet
	@go vet ./...

.PHONY: lint
lint: ## Run golangci-lint
	@$(TOOL) golangci-lint run

.PHONY: unit
unit: ## Unit tests, with the race detector (those named TestKeycloak… run with the integration tests)
	@go test -race -skip '^TestKeycloak' ./backend/... ./cmd/... ./integrationtest/idp/...

.PHONY: integration
integration: ## Integration tests on a real Vault and a real Keycloak
	@scripts/integration.sh

.PHONY: fuzz
fuzz: ## Each fuzz target for FUZZTIME (20s)
	@targets=$$(go test -list '^Fuzz' ./backend/... ./integrationtest/idp/...); \
	awk '/^Fuzz/ {name[++n] = $$1} /^ok/ {while (n) print $$2, name[n--]}' <<<"$$targets" | \
	while read -r package target; do \
		echo "== $$target in $$package"; \
		go test -run '^$$' -fuzz "^$$target\$$" -fuzztime '$(FUZZTIME)' "$$package" </dev/null; \
	done

.PHONY: bench
bench: ## Benchmarks: of the code, and in a real Vault beside what it is compared with, BENCHCOUNT (10) rounds of each
	@mkdir -p bin
	@go test -run '^$$' -bench . -benchmem -count '$(BENCHCOUNT)' ./backend/... | tee bin/bench.txt
	@$(TOOL) benchstat bin/bench.txt
	@go run ./integrationtest/bench/run -rounds '$(BENCHCOUNT)' | tee bin/bench-vault.txt

.PHONY: soak
soak: ## Longer forms: each fuzz target for SOAKTIME (10m), and the integration tests with what is too long for make test
	@$(MAKE) --no-print-directory fuzz FUZZTIME='$(SOAKTIME)'
	@SOAKTIME='$(SOAKTIME)' scripts/integration.sh -race

.PHONY: vuln
vuln: ## Look for known vulnerabilities in what the plugin uses (needs the Go vulnerability database)
	@$(TOOL) govulncheck ./...

##@ Other

.PHONY: clean
clean: ## Remove what was built here (Vault, Keycloak and OpenTofu stay in the user's cache folder)
	@rm -rf bin
