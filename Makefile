# What can be done with skep from a checkout. `make` alone lists it.

VERSION ?= $(patsubst v%,%,$(shell git describe --tags --abbrev=12 --dirty 2>/dev/null || echo 0.1.0-dev))
# The Go tool only: no C compiler, one static binary, no paths of this machine in it.
export CGO_ENABLED = 0
GO      ?= go
BUILD    = $(GO) build -trimpath -buildvcs=auto -ldflags "-s -w -X main.version=$(VERSION)"

# make soak: where to begin, and for how long; make fuzz: for how long each, and which.
SEED    ?= $(shell date +%s)
soak: FOR ?= 1h
fuzz: FOR ?= 20s
TARGET  ?= Fuzz
# make test-machines: which of its tests.
MACHINES ?= TestMachines

.PHONY: help build packages notices quick test test-machines check soak fuzz planted mixed bench demo play lab images image clean
.DEFAULT_GOAL := help

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 22

build: ## bin/skep, bin/lab, and what the lab runs in containers: bin/timecheck and bin/guest
	@$(BUILD) -o bin/ ./cmd/...

packages: ## bin/packages: deb, rpm and images of the commit that is checked out, for amd64 and arm64, with bills of materials and SHA256SUMS
	@rm -rf bin/packages
	@$(GO) run -C cmd/pack . -out "$(CURDIR)/bin/packages"

notices: ## the licences of all that is linked into bin/skep, to standard output, or to a file: TO=bin/NOTICES
	@.ci/notices $(if $(TO),> $(TO))

# What takes seconds each: no cluster, no disk, no engine, no processes.
quick: ## while editing: vet, the rules of the project, and the tests of the packages that need no cluster
	$(GO) vet ./...
	$(GO) test -short ./agent ./agent/simulate ./cluster ./cluster/dispatch ./cluster/manager/... ./cluster/node ./cmd ./cmd/lab/report ./cmd/lab/scenario ./scheduler/... ./store/seal

test: ## everything; what needs a Docker Engine is skipped where none answers, unless SKEP_REQUIRE_DOCKER=1
	@# Uncached: cmd/lab tests binaries that it builds, of which the cache knows nothing. It has hosts with engines
	@# and bounds in time, so it runs alone.
	$(GO) test -count=1 -timeout 40m $$($(GO) list ./... | grep -v '/cmd/lab$$')
	$(GO) test -count=1 -timeout 40m ./cmd/lab
	$(GO) test -C cmd/pack -count=1 -timeout 20m ./...

test-machines: ## the README's unit and its chapter on machines word by word, skep up and the package, under real systemd on machines: as root, with a Docker Engine and Debian's mmdebstrap; about 20 minutes, and some more the first time, for the root file system
	SKEP_TEST_MACHINES=1 $(GO) test -count=1 -timeout 45m -v -run '$(MACHINES)' ./cmd/lab

check: ## gofmt, vet, staticcheck, race tests, and the project's own rules (cmd/arrows_test.go, cmd/doc_test.go)
	@unformatted=$$(gofmt -l agent cluster cmd scheduler store); test -z "$$unformatted" || { echo "gofmt: $$unformatted"; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	CGO_ENABLED=1 $(GO) test -race -short -timeout 30m ./...
	@# cmd/pack is a module of its own.
	$(GO) vet -C cmd/pack ./...
	cd cmd/pack && $$(cd ../.. && $(GO) tool -n staticcheck) ./...
	CGO_ENABLED=1 $(GO) test -C cmd/pack -race -short ./...

soak: ## users and faults at once, seed after seed: FOR=1h, SEED=n to begin with
	SKEP_STORM_SEED=$(SEED) SKEP_STORM_FOR=$(FOR) $(GO) test -count=1 -timeout 0 -v -run TestStorm ./cluster/clustertest

fuzz: ## anything at all into each fuzz target, one after the other: FOR=20s, TARGET=FuzzApply for one
	@.ci/fuzz $(FOR) $(TARGET)

planted: ## plants bugs, one after the other, and wants the tests to notice each
	SKEP_PLANTED=1 $(GO) test -count=1 -timeout 0 -v -run TestPlanted ./cmd

mixed: ## the last release beside this source (or this one beside a later one), rolled up and down under load
	$(GO) test -count=1 -v -run TestMixed ./cmd/lab

demo: build ## three managers and two workers on this machine, the whole story of the README
	@bin/lab demo

play: build ## a simulated cluster of three managers and five workers, with the console open
	@bin/lab play

bench: build ## the numbers, each beside its reference in the same run
	@bin/lab bench

SCENARIO ?= leader-crash
ROUNDS   ?= 5
lab: build ## a scenario of faults, measured: SCENARIO=leader-cut ROUNDS=5
	@bin/lab run $(SCENARIO) --rounds $(ROUNDS)

images: build ## timecheck:1.0 and timecheck:2.0 into the local engine
	@bin/lab images

image: build ## skep:dev into the local engine, for docker-compose.yml
	@bin/lab image

clean: ## remove what was built here
	rm -rf bin
