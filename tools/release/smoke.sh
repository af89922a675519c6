#!/usr/bin/env bash
# Installs and runs what release.sh made, where nothing else of ours is: the .deb in a
# fresh Debian, the image's file system as its uid on a read-only root, the programs of
# other architectures under qemu. Each ends with a database restored from its replica.
#
#   tools/release/smoke.sh      needs root, mmdebstrap, bubblewrap, qemu-user-static, rpm, sqlite3
set -euo pipefail
cd "$(dirname "$0")/../.."
dist=${DIST:-$PWD/dist}
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$work"' EXIT
say() { printf -- '--- %s\n' "$*"; }

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

# What qemu runs reads the replica that amd64 made.
foreign() { # foreign ARCH QEMU
	local program=$dist/sqlwatch-linux-$1 out=$work/$1.db
	[ -e "$program" ] || return 0
	say "$1 under qemu: version, check, restore"
	"$2" "$program" check examples/quickstart.hcl
	# SQLite's own check runs in a child of the same program, which a kernel cannot start
	# that knows no qemu: this machine's SQLite checks instead.
	"$2" "$program" restore "file://$work/made/replica/app" -o "$out" --check none
	[ "$(sqlite3 "$out" 'pragma integrity_check; select count(*) from t' | tr '\n' ' ')" = "ok 3 " ]
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
for program in "$dist"/sqlwatch-linux-*; do
	case $program in *.json) continue ;; esac
	file -b "$program" | grep -q 'statically linked' || { echo "$program is not static" >&2; exit 1; }
done
image
foreign arm64 qemu-aarch64-static
foreign armv7 qemu-arm-static
rpm_
deb
say "all of it works"
