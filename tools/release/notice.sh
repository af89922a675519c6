#!/bin/sh
# Prints the licences of all modules that are linked into sqlwatch.
set -eu
cd "$(dirname "$0")/../.."
echo "sqlwatch is licensed under the Apache License 2.0. It contains the following modules."
go list -deps -f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}} {{.Dir}}{{end}}{{end}}' ./cmd/sqlwatch | sort -u |
	while read -r path version dir; do
		printf '\n======== %s %s\n\n' "$path" "$version"
		found=
		for file in "$dir"/LICENSE* "$dir"/LICENCE* "$dir"/COPYING* "$dir"/NOTICE*; do
			[ -f "$file" ] || continue
			cat "$file"
			found=1
		done
		[ -n "$found" ] || { echo "no licence found in $path" >&2 && exit 1; }
	done
printf '\n======== SQLite\n\nSQLite is in the public domain: https://sqlite.org/copyright.html\n'
