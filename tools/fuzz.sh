#!/bin/sh
# Runs every fuzz target of one package: tools/fuzz.sh TIME DIRECTORY. Builds once for all of them.
# So many tries (500x) learn nothing from coverage, and to build all dependencies for it takes minutes.
set -eu
time=$1 root=$PWD
cd "$2"
binary=$root/bin/fuzz-$(echo "$2" | tr / -)
mkdir -p "$root/bin"
case $time in *x) guided= ;; *) guided='-fuzz .' ;; esac
# shellcheck disable=SC2086 # two words or none
go test -c $guided -o "$binary" .
for target in $(grep -hoE '^func Fuzz[A-Za-z0-9_]+' ./*_test.go | cut -d ' ' -f 2); do
	if ! output=$("$binary" -test.run "^$target\$" -test.fuzz "^$target\$" -test.fuzztime "$time" \
		-test.fuzzcachedir "$(go env GOCACHE)/fuzz/$2" 2>&1); then
		printf '=== %s %s\n%s\n' "$2" "$target" "$output"
		exit 1
	fi
	printf '=== %s %s: %s\n' "$2" "$target" "$(echo "$output" | tail -n 1)"
done
