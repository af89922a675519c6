#!/usr/bin/env bash
# Builds the release of HEAD twice, in clones at different paths, in different time zones, the
# second time with a build cache of its own, and compares every file.
#
#   tools/release/reproduce.sh [ARCH...]     default: amd64
set -euo pipefail
cd "$(dirname "$0")/../.."
source=$PWD work=$(mktemp -d) commit=$(git rev-parse HEAD)
trap 'chmod -R u+w "$work" && rm -rf "$work"' EXIT
build() { # build PLACE ARCH...
	git clone -q "$source" "$work/$1/sqlwatch"
	git -C "$work/$1/sqlwatch" checkout -q --detach "$commit"
	"$work/$1/sqlwatch/tools/release/release.sh" "${@:2}"
}
[ $# -gt 0 ] || set -- amd64
TZ=UTC build one "$@"
TZ=Asia/Tokyo GOCACHE=$work/cache build a/longer/path "$@"
diff -r "$work/one/sqlwatch/dist" "$work/a/longer/path/sqlwatch/dist"
(cd "$work/one/sqlwatch/dist" && echo "$(find . -type f | wc -l) files are the same to the byte:" && cat SHA256SUMS)
