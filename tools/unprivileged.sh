#!/bin/bash
# Runs tests of what touches files and locks as nobody, where this is run as root.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || exit 0
nobody=(setpriv --reuid 65534 --regid 65534 --clear-groups)
if ! "${nobody[@]}" test -r "$PWD/go.mod"; then
	echo "nobody may not read $PWD: nothing is run as nobody"
	exit 0
fi
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
chmod 0755 "$out"
install -d -m 1777 "$out/tmp"
for pkg in internal/dbfile internal/durable internal/sqlite internal/cage replicator/stage replicator/spool \
	replicator/store/file replicator/restore; do
	go test -c -o "$out/test" "./$pkg"
	echo "as nobody: $pkg"
	(cd "$pkg" && TMPDIR=$out/tmp HOME=$out/tmp "${nobody[@]}" "$out/test" -test.short)
done
