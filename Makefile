# The verbs. Each installs what it needs and does not have.
SHELL      := /bin/bash
MODULE     := github.com/pgquorum/pgquorum
VERSION    ?= $(shell git describe --always --dirty 2>/dev/null || echo dev)
PG         ?= 18
BASE       ?= postgres:$(PG)
IMAGE      ?= pgquorum:$(PG)
TAGS       := grpcnotrace
LDFLAGS    := -s -w -X main.version=$(VERSION)
GO_FILES    = $(shell git ls-files -co --exclude-standard '*.go')
GOLANGCI   := v2.15.0
SIZE_LIMIT := 20000000
SEED       ?= 1
SEEDS      ?= 500
START      ?= 1
ROUNDS     ?= 10
MINUTES    ?= 30
FUZZ_TIME  ?= 30s
export CGO_ENABLED := 0
export PGQUORUM_IMAGE = $(IMAGE)
STACK      := go run ./e2e/cmd/stack

.DEFAULT_GOAL := help
.PHONY: help build images image up down destroy status logs kill-primary test unit lint sim sim-seed sim-soak model model-large contract \
	e2e scenarios soak bench-failover bench-throughput size rss fuzz mutants mutants-containers fmt clean needs

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

needs:
	@images/prepare go docker compose

build: ## the binary, in bin/
	go build -trimpath -tags $(TAGS) -ldflags "$(LDFLAGS)" -o bin/pgquorum ./entrypoint

images: ## the base images, from the registry or from Debian packages
	@images/build

image: needs ## the image pgquorum:18 (PG=17, PG=15)
	@images/build $(BASE) $$(awk -F= '/^ARG GO_IMAGE=/ {print $$2}' Dockerfile)
	@images/product $(BASE) $(IMAGE) $(VERSION)

up: image ## build, start three nodes, wait until they replicate, print how to connect
	@$(STACK) up

down: ## stop the three nodes; the data stays
	@$(STACK) down

destroy: ## stop the three nodes and delete their data
	@$(STACK) destroy

status: ## what the cluster says of itself
	@$(STACK) status

logs: ## what the nodes printed
	@$(STACK) logs

kill-primary: ## kill the primary under a running writer; print the outage and the rows lost
	@$(STACK) kill-primary

test: ## everything that can be tested, with times and counts per stage
	@images/prepare go
	@go run ./e2e/cmd/suite

unit: ## tests that need nothing but Go
	@go run ./e2e/cmd/suite unit

lint: ## gofmt, vet, golangci-lint
	@go run ./e2e/cmd/suite lint

sim: ## the simulation, SEEDS=500
	@PGQ_SIM_SEEDS=$(SEEDS) go run ./e2e/cmd/suite simulation

sim-seed: ## one seed of the simulation again, with its history, made shorter if it fails: SEED=
	go test -tags $(TAGS) -count=1 -v ./sim -run 'TestSeed$$' -args -seed $(SEED)

sim-soak: ## the simulation on SEEDS=500 seeds from START=1, in slices as long as you like
	go test -tags $(TAGS) -count=1 -timeout 0 -v ./sim -run 'TestSeeds$$' -args -seeds $(SEEDS) -start $(START)

model: ## the model check: every state of small clusters within its bounds, and its mutants with their stories
	go test -tags $(TAGS) -count=1 -timeout 30m -v ./model

model-large: ## the same with larger bounds: half an hour, 6 GB of memory
	go test -tags $(TAGS) -count=1 -timeout 0 -v ./model -run TestWorlds -args -large

contract: ## the tests against real Postgres 15, 17 and 18
	@go run ./e2e/cmd/suite images contract

e2e: ## the tests on containers; one of them: RUN=TestName
	@PGQ_E2E_RUN='$(RUN)' go run ./e2e/cmd/suite images containers

scenarios: image ## every file of e2e/scenarios on containers; some of them: SCENARIO=part of a name
	PGQ_SCENARIOS='$(or $(SCENARIO),all)' go test -tags '$(TAGS) e2e' -count=1 -timeout 60m -run '^TestScenarios$$' -v ./e2e

soak: image ## random scenarios on containers for MINUTES=30; the same again: PGQ_SEED= of the output
	PGQ_SOAK_MINUTES=$(MINUTES) go test -tags '$(TAGS) e2e bench' -count=1 -timeout 0 -run '^TestSoak$$' -v ./e2e

bench-failover: image ## the outages of every fault, p50 and max of ROUNDS=10
	PGQ_BENCH_ROUNDS=$(ROUNDS) go test -tags 'e2e bench' -count=1 -timeout 60m -run TestBenchFailover -v ./e2e

bench-throughput: image ## quorum commits a second beside plain Postgres with the same settings, ROUNDS=10 of 5 s for each of 6 cases
	PGQ_BENCH_ROUNDS=$(ROUNDS) go test -tags 'e2e bench' -count=1 -timeout 60m -run TestBenchThroughput -v ./e2e

size: ## the binary's size against its limit
	@PGQ_SIZE_LIMIT=$(SIZE_LIMIT) go run ./e2e/cmd/suite size

rss: image ## memory of an idle node's processes against its limits
	go test -tags 'e2e bench' -count=1 -timeout 20m -run '^TestIdle$$' -v ./e2e

fuzz: ## every fuzz target for FUZZ_TIME=30s
	@set -e; for dir in $$(grep -l '^func Fuzz' $(filter %_test.go,$(GO_FILES)) /dev/null | xargs -rn1 dirname | sort -u); do \
		for f in $$(grep -ho '^func Fuzz[A-Za-z0-9_]*' $$dir/*_test.go | cut -c6-); do \
			go test -tags $(TAGS) -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZ_TIME) ./$$dir; done; done

mutants: ## every broken build of code, model and simulator: its tests must find it
	go test -tags $(TAGS) -count=1 -timeout 60m -v -run '^TestMutants$$' . -args -mutants all
	go test -tags $(TAGS) -count=1 -timeout 60m -v -run '^TestMutants' ./model
	go test -tags $(TAGS) -count=1 -timeout 0 -v -run '^TestMutant' ./sim -args -mutants

mutants-containers: image ## broken builds as images: their scenarios on containers must fail on them
	go test -tags '$(TAGS) e2e bench' -count=1 -timeout 0 -v -run '^TestContainerMutants$$' .

fmt: ## format
	gofmt -w $(GO_FILES)

clean: ## what the build made here; images and volumes stay
	rm -rf bin .cache
