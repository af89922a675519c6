#!/usr/bin/env bash
# Makes dist/: static programs for each architecture, packages, a software bill of materials,
# the licences of everything linked, checksums. The same commit gives the same bytes.
#
#   tools/release/release.sh [ARCH...]     amd64 arm64 armv7; default: all, and darwin's
#
# The programs for darwin restore, check, format and test. They contain no SQLite, so no
# compiler for darwin is needed.
#
# It needs Debian's musl-tools for amd64, and for the others a cross compiler with
# that architecture's musl-dev: gcc-aarch64-linux-gnu and musl-dev:arm64,
# gcc-arm-linux-gnueabihf and musl-dev:armhf (dpkg --add-architecture first).
set -euo pipefail
cd "$(dirname "$0")/../.."
archs=("$@") darwin=()
[ ${#archs[@]} -gt 0 ] || { archs=(amd64 arm64 armv7) darwin=(arm64 amd64); }
version=${VERSION:-$(git describe --tags --always --dirty)}
commit=$(git rev-parse --short HEAD)
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
dist=$PWD/dist
rm -rf "$dist"
mkdir -p "$dist/completions"

# A package's version begins with a digit.
packaged=${version#v}
[[ $packaged =~ ^[0-9]+\. ]] || packaged=0.0.0~$packaged

pkg=github.com/prometheus/common/version
stamp="-s -w -buildid= -X $pkg.Version=$version -X $pkg.Revision=$commit"
ldflags="$stamp -linkmode external -extldflags -static"
build() { # build ARCH GOARCH CC [GOARM]
	CGO_ENABLED=1 GOOS=linux GOARCH=$2 GOARM=${4:-} CC=$3 CGO_CFLAGS="-O2" GOFLAGS=-buildvcs=false \
		go build -trimpath -tags 'netgo osusergo sqlite_omit_load_extension' -ldflags "$ldflags" \
		-o "$dist/sqlwatch-linux-$1" ./cmd/sqlwatch
}
cross() { echo "$PWD/tools/release/musl-cc $1 $2"; }
go build -C tools/release -o "$dist/.nfpm" github.com/goreleaser/nfpm/v2/cmd/nfpm
go build -C tools/release -o "$dist/.cyclonedx" github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod

for arch in "${archs[@]}"; do
	case $arch in
	amd64) build amd64 amd64 "$(cross x86_64-linux-gnu x86_64-linux-musl)" ;;
	arm64) build arm64 arm64 "$(cross aarch64-linux-gnu aarch64-linux-musl)" ;;
	armv7) build armv7 arm "$(cross arm-linux-gnueabihf arm-linux-musleabihf)" 7 ;;
	*) echo "unknown architecture $arch" >&2 && exit 1 ;;
	esac
done

for arch in "${darwin[@]}"; do
	CGO_ENABLED=0 GOOS=darwin GOARCH=$arch GOFLAGS=-buildvcs=false \
		go build -trimpath -ldflags "$stamp" -o "$dist/sqlwatch-darwin-$arch" ./cmd/sqlwatch
done

# Completions and the manual are printed by a program that this machine can run.
native="$dist/sqlwatch-linux-${archs[0]}"
"$native" --completion-script-bash >"$dist/completions/sqlwatch.bash"
"$native" --completion-script-zsh >"$dist/completions/_sqlwatch"
"$native" --help-man 2>&1 | gzip -9n >"$dist/sqlwatch.1.gz"
tools/release/notice.sh >"$dist/NOTICE"
cp /etc/ssl/certs/ca-certificates.crt "$dist/"

for arch in "${archs[@]}"; do
	cp "$dist/sqlwatch-linux-$arch" "$dist/sqlwatch"
	for kind in deb rpm; do
		DIST=$dist VERSION=$packaged ARCH=${arch/armv7/arm7} "$dist/.nfpm" package -f packaging/nfpm.yaml -p $kind -t "$dist/"
	done
	sbom=$dist/sqlwatch-linux-$arch.cdx.json
	"$dist/.cyclonedx" bin -json -noserial -output "$sbom" "$dist/sqlwatch-linux-$arch"
	# The tool records when it ran; the date here is the commit's.
	sed -i 's/"timestamp": "[^"]*"/"timestamp": "'"$(date -u -d "@$SOURCE_DATE_EPOCH" +%FT%TZ)"'"/' "$sbom"
done
rm -f "$dist/sqlwatch" "$dist/.nfpm" "$dist/.cyclonedx"
(cd "$dist" && sha256sum -- *.deb *.rpm NOTICE sqlwatch-* | sort -k2 -u >SHA256SUMS)
