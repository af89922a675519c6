# make test   unit and process tests, with the race detector where something can race
# make lint   gofmt, vet, staticcheck, the rules of the house
# make bench  every benchmark once, ratios included
# make release  binaries for amd64, arm64 and armv7, .deb, .rpm, SBOM, checksums
# make fuzz   every fuzz target for ten seconds (FUZZTIME=5m for long, 500x in CI)
# make smoke  installs and runs what make release made: .deb, image, other architectures
# make reproduce  builds the release of HEAD twice, elsewhere each, and compares the bytes
# make e2e    end-to-end checks with real Prometheus, S3 server, Litestream and browser
# make conditions  of these the one that makes every condition happen and looks at every view, as root
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
COMMIT  ?= $(shell git rev-parse --short HEAD 2>/dev/null || echo unknown)
PKG     := github.com/prometheus/common/version
LDFLAGS := -X $(PKG).Version=$(VERSION) -X $(PKG).Revision=$(COMMIT)

# A program under the race detector waits a second before it ends, and tests start thousands.
export GORACE ?= atexit_sleep_ms=10

.PHONY: build test lint bench e2e

build:
	go build -trimpath -ldflags '$(LDFLAGS)' -o sqlwatch ./cmd/sqlwatch

test: # policies decide without a goroutine (internal/archtest): there is no race to find, only time to lose
	go test -race -timeout 30m $$(go list ./... | grep -vE '/sqlwatch/(examples|policy)(/|$$)')
	go test ./examples ./policy/...
	go test -run F2 ./internal/config # with bombs as large as a file may be
	go test -run D17 ./replicator/restore # beyond a GiB, which takes long under the race detector
	tools/unprivileged.sh # once as nobody: root is not needed, and not what makes a test pass

lint:
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -d $$(git ls-files '*.go'); exit 1; }
	go vet ./...
	GOOS=darwin GOARCH=arm64 CGO_ENABLED=0 go build -o /dev/null ./cmd/sqlwatch # restore, check, fmt, test elsewhere
	go build -C tools/lint -o $(CURDIR)/bin/staticcheck honnef.co/go/tools/cmd/staticcheck
	bin/staticcheck -checks 'inherit,ST1000,ST1020,ST1021,ST1022' ./...
	go test ./internal/archtest

bench:
	go test -run '^$$' -bench . -benchtime 1x -timeout 60m ./...

LITESTREAM := github.com/benbjohnson/litestream/cmd/litestream

e2e:
	go build -C tools/litestream -o $(CURDIR)/bin/litestream $(LITESTREAM)
	go build -C tools/litestream03 -o $(CURDIR)/bin/litestream03 $(LITESTREAM)
	LITESTREAM=$(CURDIR)/bin/litestream LITESTREAM3=$(CURDIR)/bin/litestream03 go test -count=1 -run Litestream -v ./replicator/restore
	LITESTREAM=$(CURDIR)/bin/litestream LITESTREAM3=$(CURDIR)/bin/litestream03 go test -C tools/e2e -count=1 -parallel 8 -timeout 30m ./...

.PHONY: conditions
conditions:
	go test -C tools/e2e -count=1 -run 'TestEveryConditionInEveryView_V3$$' -timeout 20m ./...

.PHONY: release
release: # static programs, packages, SBOM and checksums in dist/
	tools/release/release.sh $(ARCH)

.PHONY: smoke
smoke: # what `make release` made, installed in a fresh Debian, run as an image and under qemu
	tools/release/smoke.sh

.PHONY: reproduce
reproduce: # the same commit gives the same bytes, whatever the path and the cache
	tools/release/reproduce.sh $(ARCH)

.PHONY: fuzz
FUZZTIME ?= 10s
fuzz: # every fuzz target for FUZZTIME; the seeds of all run in `make test`
	@git grep -lE '^func Fuzz' -- '*_test.go' ':!tools' | xargs -n 1 dirname | sort -u | xargs -P 2 -n 1 tools/fuzz.sh $(FUZZTIME)
