#!/usr/bin/env bash
# Installs and runs what release.sh made, on systems that have nothing else of ours: the .deb in
# a fresh Debian, the image's file system as its uid on a read-only root, a root with musl, the
# programs of other architectures under qemu. Each run ends with a database restored from its replica.
#
#   tools/release/smoke.sh      needs root, mmdebstrap, bubblewrap, qemu-user-static, rpm, sqlite3
set -euo pipefail
cd "$(dirname "$0")/../.."
dist=${DIST:-$PWD/dist}
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$work"' EXIT
say() { printf -- '--- %s\n' "$*"; }

# refused COMMAND...: expects it to fail. Under -e, a mere "! COMMAND" would let a success pass.
refused() {
	if "$@"; then
		echo "should have been refused: $*" >&2
		exit 1
	fi
}

# within DIR ARG...: a container of DIR as its root, with namespaces of its own.
within() {
	local root=$1
	shift
	bwrap --die-with-parent --unshare-pid --unshare-net --unshare-ipc --unshare-uts --cap-add ALL \
		--bind "$root" / --dev /dev --proc /proc "$@"
}

deb() {
	say "the .deb in a fresh Debian: install, five lines, metrics, restore, remove, purge"
	local root=$work/debian
	mmdebstrap --quiet --variant=minbase --include=sqlite3 bookworm "$root"
	cp "$dist"/*_amd64.deb "$root/sqlwatch.deb"
	cp tools/release/smoke-deb.sh "$root/smoke"
	within "$root" /bin/bash /smoke
	[ ! -e "$root/usr/bin/sqlwatch" ] && [ ! -e "$root/var/lib/sqlwatch" ] && [ -e "$root/srv/replica" ]
}

image() {
	say "the image's file system, as its uid, on a read-only root"
	local root=$work/image uid=65532
	mkdir -p "$root"/{etc/ssl/certs,usr/bin,var/lib/sqlwatch,data,etc/sqlwatch,dev,proc,tmp} "$work"/{state,data}
	cp "$dist/ca-certificates.crt" "$root/etc/ssl/certs/"
	cp "$dist/sqlwatch-linux-amd64" "$root/usr/bin/sqlwatch"
	cat >"$root/etc/sqlwatch/sqlwatch.hcl" <<-HCL
		database "app" {
		  path         = "/data/app.db"
		  replicate_to = [replica.file.copy]
		}
		replica "file" "copy" {
		  dir = "/data/replica/\${db.name}"
		}
	HCL
	sqlite3 "$work/data/app.db" "pragma journal_mode=wal; create table t(v); insert into t values (1)" >/dev/null
	contained() { # contained ARG...: the program, as the Dockerfile starts it; its uid inside is root's outside
		bwrap --die-with-parent --unshare-all --uid $uid --gid $uid --ro-bind "$root" / --dev /dev --proc /proc \
			--bind "$work/state" /var/lib/sqlwatch --bind "$work/data" /data \
			--clearenv --setenv STATE_DIRECTORY /var/lib/sqlwatch --setenv RUNTIME_DIRECTORY /var/lib/sqlwatch/run \
			/usr/bin/sqlwatch "$@"
	}
	contained run >"$work/log" 2>&1 &
	local daemon=$!
	local tries=0
	until contained status --severity critical >"$work/status" 2>&1; do
		((++tries < 60)) || { cat "$work/log" "$work/status"; return 1; }
		sleep 0.5
	done
	sqlite3 "$work/data/app.db" "insert into t values (2), (3)"
	contained sync app
	kill -TERM "$(pgrep -P $daemon -n)" && wait $daemon || true
	contained restore app -o /data/copy.db
	[ "$(sqlite3 "$work/data/copy.db" 'select count(*) from t')" = 3 ]
	cp -r "$work/data" "$work/made"
}

# A root with musl's libc only: it contains the application and sqlwatch, nothing else.
musl() {
	say "a musl root: an application of its libc, beside it the static program"
	local root=$work/musl driver
	mkdir -p "$root"/{lib,usr/bin,data,state,dev,proc,tmp}
	cp -L /lib/ld-musl-x86_64.so.1 "$root/lib/"
	driver=$(go list -m -f '{{.Dir}}' github.com/mattn/go-sqlite3)
	musl-gcc -O1 -DSQLITE_OMIT_LOAD_EXTENSION -I"$driver" -x c - -o "$root/usr/bin/application" <<-'C'
			#include "sqlite3-binding.c"
			#include <unistd.h>
			int main(int argc, char **argv) {
				sqlite3 *db;
				if (sqlite3_open(argv[1], &db) || sqlite3_busy_timeout(db, 5000) ||
					sqlite3_exec(db, "PRAGMA journal_mode=WAL; CREATE TABLE t(v)", 0, 0, 0)) return 1;
				for (int i = 0; access(argv[2], F_OK) != 0; i++, usleep(5000))
					if (sqlite3_exec(db, "INSERT INTO t VALUES (randomblob(300))", 0, 0, 0)) return 2;
				return sqlite3_close(db);
			}
		C
	file -b "$root/usr/bin/application" | grep -q 'interpreter /lib/ld-musl'
	cp "$dist/sqlwatch-linux-amd64" "$root/usr/bin/sqlwatch"
	alpine() { # alpine PROGRAM ARG...
		bwrap --die-with-parent --bind "$root" / --dev /dev --proc /proc --clearenv --setenv STATE_DIRECTORY /state \
			--setenv RUNTIME_DIRECTORY /state/run "$@"
	}
	alpine /usr/bin/application /data/app.db /data/end &
	local application=$! daemon tries=0
	until [ -s "$root/data/app.db-wal" ]; do
		((++tries < 60)) || return 1
		sleep 0.5
	done
	alpine /usr/bin/sqlwatch run /data/app.db --replica file:///data/replica --web.listen-address 127.0.0.1:0 \
		>"$work/musl.log" 2>&1 &
	daemon=$!
	tries=0
	until alpine /usr/bin/sqlwatch status --severity critical >"$work/musl.status" 2>&1; do
		((++tries < 60)) || { cat "$work/musl.log" "$work/musl.status"; return 1; }
		sleep 0.5
	done
	alpine /usr/bin/sqlwatch checkpoint app || [ $? = 2 ] # 2: it could not finish beside the writer
	touch "$root/data/end"
	wait $application
	alpine /usr/bin/sqlwatch sync app
	kill -TERM "$(pgrep -P $daemon -n)" && wait $daemon || true
	alpine /usr/bin/sqlwatch restore file:///data/replica -o /data/copy.db
	local rows='select count(*), total(length(v)) from t'
	[ "$(sqlite3 "$root/data/copy.db" "$rows")" = "$(sqlite3 "$root/data/app.db" "$rows")" ]
}

# The programs under qemu read the replica that amd64 made.
foreign() { # foreign ARCH QEMU
	local program=$dist/sqlwatch-linux-$1 out=$work/$1.db
	[ -e "$program" ] || return 0
	say "$1 under qemu: version, check, restore"
	"$2" "$program" check examples/quickstart.hcl
	# SQLite's own check runs in a child of the same program, which this kernel cannot start
	# without qemu: this machine's SQLite checks instead.
	"$2" "$program" restore "file://$work/made/replica/app" -o "$out" --check none
	[ "$(sqlite3 "$out" 'pragma integrity_check; select count(*) from t' | tr '\n' ' ')" = "ok 3 " ]
}

# Pure Go, like darwin's: restores, lets SQLite's shell check, and touches no database in use.
pure() {
	say "the program without SQLite inside: restore, a corrupt replica, what it refuses"
	local program=$work/pure copy=$work/pure.db
	CGO_ENABLED=0 GOFLAGS=-buildvcs=false go build -trimpath -o "$program" ./cmd/sqlwatch
	"$program" restore "file://$work/made/replica/app" -o "$copy" --check full
	[ "$(sqlite3 "$copy" 'pragma integrity_check; select count(*) from t' | tr '\n' ' ')" = "ok 3 " ]
	refused "$program" run "$copy" 2>"$work/refused"
	grep -q 'needs Linux' "$work/refused"
	cp -r "$work/made/replica/app" "$work/corrupt"
	find "$work/corrupt" -name '*.ltx' | while read -r file; do
		flip "$file" $(($(stat -c %s "$file") / 2))
	done
	refused "$program" restore "file://$work/corrupt" -o "$work/corrupt.db" 2>/dev/null
	[ ! -e "$work/corrupt.db" ]
}

# flip FILE OFFSET: one bit of one byte.
flip() {
	local byte
	byte=$(od -An -tu1 -j"$2" -N1 "$1")
	printf "\\x$(printf %x $((byte ^ 1)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

# The check of a download from docs/operations.md.
verified() { (cd "$1" && sha256sum --ignore-missing --quiet -c SHA256SUMS); }

tampered() {
	say "a package of which one bit was changed is refused"
	mkdir "$work/download"
	cp "$dist"/*_amd64.deb "$dist/SHA256SUMS" "$work/download"
	verified "$work/download"
	flip "$work/download"/*.deb 100000
	refused verified "$work/download" 2>/dev/null
}

rpm_() {
	say "the .rpm's contents"
	local root=$work/rpm
	mkdir "$root"
	rpm --root "$root" --initdb
	rpm --root "$root" -i --nodeps --noscripts --ignorearch "$dist"/*.x86_64.rpm
	"$root/usr/bin/sqlwatch" check "$root/usr/share/doc/sqlwatch/examples/quickstart.hcl"
	rpm --root "$root" -e --nodeps --noscripts sqlwatch
	[ ! -e "$root/usr/bin/sqlwatch" ]
}

(cd "$dist" && sha256sum --quiet -c SHA256SUMS)
tampered
for program in "$dist"/sqlwatch-linux-*; do
	case $program in *.json) continue ;; esac
	file -b "$program" | grep -q 'statically linked' || { echo "$program is not static" >&2; exit 1; }
done
image
pure
musl
foreign arm64 qemu-aarch64-static
foreign armv7 qemu-arm-static
rpm_
deb
say "all of it works"
