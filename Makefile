SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

NAME    := vault-plugin-bcgov-jwt
BINARY  := bin/$(NAME)
VERSION ?= $(or $(shell git describe --tags --match 'v*' --dirty 2>/dev/null),v0.1.0-dev)
COMMIT  ?= $(or $(shell git rev-parse --short=12 HEAD 2>/dev/null),unknown)
LDFLAGS := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)

# The Go that go.mod names, whichever is installed: its standard library becomes part of the
# plugin. Go downloads it as a module.
export GOTOOLCHAIN := $(shell sed -n 's/^toolchain //p' go.mod)

# Parameters of the targets below, as in: make fuzz FUZZTIME=5m
IDP        ?= embedded
FUZZTIME   ?= 20s
BENCHCOUNT ?= 10
SOAKTIME   ?= 10m

TOOL   := go tool -modfile=scripts/modules/tools/go.mod
WORKFLOWS := .github/workflows/*.yml docs/examples/ci/github-*.yml
SHA256 := $(shell command -v sha256sum || echo shasum -a 256)

.PHONY: help
help: ## Show this help
	@awk -F ':.*## ' '/^##@/ {printf "\n%s\n", substr($$0, 5)} \
		/^[a-z-]+:.*## / {printf "  %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ Build and run

.PHONY: build
build: ## Build the plugin into bin/; print its path, version and SHA-256
	@CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' \
		-o $(BINARY) ./cmd/$(NAME)
	@printf 'path     %s\nversion  %s\nsha256   %s\n' '$(abspath $(BINARY))' '$(VERSION)' \
		"$$($(SHA256) $(BINARY) | cut -d ' ' -f 1)"

.PHONY: demo
demo: ## Run every step to a token, then clean up (HOST=vault, HOST=openbao, IDP=keycloak)
	@scripts/demo.sh $(IDP)

.PHONY: dev
dev: ## Start the demo's servers, for the steps of README, and run them until Ctrl-C
	@scripts/demo.sh $(IDP) servers

.PHONY: picture
picture: ## Draw docs/demo.svg, which README shows, from a demo with Vault
	@mkdir -p bin
	@HOST=vault scripts/demo.sh embedded | scripts/picture.sh >bin/demo.svg
	@mv bin/demo.svg docs/demo.svg

##@ Check

.PHONY: test
test: ## Run all checks: fmt-check, vet, lint, vuln, unit, integration, openbao
	@scripts/steps.sh fmt-check vet lint vuln unit integration openbao

.PHONY: fmt
fmt: ## Format the code
	@$(TOOL) golangci-lint fmt

.PHONY: docs
docs: ## Regenerate the generated parts of docs/ (make unit fails while they are stale)
	@go test ./backend -run '^TestDocs_MatchSchemas' -args -update-docs

.PHONY: fmt-check
fmt-check: ## Fail if code is not formatted
	@$(TOOL) golangci-lint fmt --diff

.PHONY: vet
vet: ## Run go vet
	@go vet ./...

.PHONY: lint
lint: ## Run golangci-lint, and actionlint and zizmor on the workflows
	@$(TOOL) actionlint $(WORKFLOWS)
	@"$$(scripts/zizmor.sh)" --offline --quiet $(WORKFLOWS)
	@$(TOOL) golangci-lint run

.PHONY: unit
unit: ## Run unit tests with the race detector (Test{Keycloak,RealProvider}… are in integration)
	@go test -race -skip '^Test(Keycloak|RealProvider)' \
		./backend/... ./cmd/... ./integrationtest/idp/...

.PHONY: integration
integration: ## Run integration tests with a real Keycloak on HOST: vault, vault-oldest, openbao
	@scripts/integration.sh

.PHONY: openbao
openbao: ## Run the main integration tests on OpenBao
	@HOST=openbao PACKAGES='cluster engine delivery rotation security' scripts/integration.sh -run \
		'^Test(MainJob|Assertion|Delivery|Lease|RefreshMargin|SharedToken|ManualRotation_Fails|Leak_|Nodes_|Failover_|Snapshot_|Upgrade_)'

.PHONY: keycloak
keycloak: ## Run the tests that depend most on Keycloak, with KEYCLOAK_VERSION
	@HOST=vault PACKAGES='idp delivery rotation providers' PROVIDERS=keycloak scripts/integration.sh

.PHONY: compat
compat: ## Run all integration tests, even slow ones, on the other hosts and Keycloaks of README
	@SLOW=true scripts/steps.sh 'integration HOST=openbao' 'integration HOST=vault-oldest' \
		'keycloak KEYCLOAK_VERSION=26.4.7' 'keycloak KEYCLOAK_VERSION=26.7.3' \
		'integration PACKAGES=providers PROVIDERS=hydra' reproduce

.PHONY: fuzz
fuzz: ## Run each fuzz target for FUZZTIME (20s)
	@targets=$$(go test -list '^Fuzz' ./backend/... ./integrationtest/idp/...); \
	awk '/^Fuzz/ {name[++n] = $$1} /^ok/ {while (n) print $$2, name[n--]}' <<<"$$targets" | \
	while read -r package target; do \
		echo "== $$target in $$package"; \
		go test -run '^$$' -fuzz "^$$target\$$" -fuzztime '$(FUZZTIME)' "$$package" </dev/null; \
	done

.PHONY: bench
bench: ## Benchmark the code, and the plugin in a real Vault, BENCHCOUNT (10) times
	@mkdir -p bin
	@go test -run '^$$' -bench . -benchmem -count '$(BENCHCOUNT)' ./backend/... | tee bin/bench.txt
	@$(TOOL) benchstat bin/bench.txt
	@go run ./integrationtest/bench/run -rounds '$(BENCHCOUNT)' | tee bin/bench-vault.txt

.PHONY: soak
soak: ## Read for SOAKTIME (10m) through faults and changes, on Vault and on OpenBao
	@for host in vault openbao; do \
		echo "== $$host"; \
		HOST=$$host SOAKTIME='$(SOAKTIME)' \
			go test -count=1 -timeout 0 -v ./integrationtest/soak; \
	done

.PHONY: vuln
vuln: build ## Fail if the plugin calls a function with a known vulnerability
	@scripts/vuln.sh $(BINARY)

##@ Release

.PHONY: release
release: ## Make the files of the release VERSION (v0.1.0) in bin/release, reproducibly
	@scripts/release.sh

.PHONY: reproduce
reproduce: ## Make all files of a release twice, in two folders with own caches, and compare them
	@SLOW=true go test -count=1 -timeout 60m -v -run '^TestRelease_' ./integrationtest/release

##@ Other

.PHONY: clean
clean: ## Remove build output (keeps the cached Vault, Keycloak and OpenTofu)
	@rm -rf bin
