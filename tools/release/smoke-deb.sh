#!/bin/bash
# Runs as root inside a fresh Debian, see smoke.sh: the steps of an operator, in order.
set -euo pipefail
chmod 0755 /
cd /root # which the service's user may not read, as with an operator's sudo -u sqlwatch
dpkg -i /sqlwatch.deb
[ "$(stat -c %U:%G:%a /etc/sqlwatch)" = root:sqlwatch:750 ]

# refused COMMAND...: expects it to fail. Under -e, a mere "! COMMAND" would let a success pass.
refused() {
	if "$@"; then
		echo "should have been refused: $*" >&2
		exit 1
	fi
}

useradd --system app
install -d -o app -g app -m 2770 /srv/app
install -d -o sqlwatch -g sqlwatch -m 0700 /srv/replica
as_app() { setpriv --reuid app --regid app --clear-groups "$@"; }
as_app sqlite3 /srv/app/app.db "pragma journal_mode=wal; create table t(v); insert into t values (1)"
# The steps in the unit's first lines; side files get the database's own mode.
chgrp -R app /srv/app && chmod -R g+rwX /srv/app && find /srv/app -type d -exec chmod g+s {} +

cat >/etc/sqlwatch/sqlwatch.hcl <<'HCL'
database "app" {
  path         = "/srv/app/app.db"
  replicate_to = [replica.file.copy]
}
replica "file" "copy" {
  dir = "/srv/replica/${db.name}"
}
HCL
# Like the unit with a drop-in of Group=app: group mode, with its directories.
unit() { sed -n "s/^$1=//p" /usr/lib/systemd/system/sqlwatch.service; }
install -d -o sqlwatch -g sqlwatch -m 0700 /var/lib/sqlwatch
install -d -o sqlwatch -g sqlwatch -m 0750 /run/sqlwatch
groups=app$(getent initgroups sqlwatch | awk '{for (i = 2; i <= NF; i++) printf ",%s", $i}')
as_sqlwatch=(setpriv --reuid "$(unit User)" --regid app --groups "$groups" --no-new-privs
	env STATE_DIRECTORY=/var/lib/sqlwatch RUNTIME_DIRECTORY=/run/sqlwatch)
"${as_sqlwatch[@]}" sqlwatch check --config /etc/sqlwatch
"${as_sqlwatch[@]}" sqlwatch run --config /etc/sqlwatch &
daemon=$!
tries=0
until "${as_sqlwatch[@]}" sqlwatch status --severity critical; do
	((++tries < 60))
	sleep 0.5
done
as_app sqlite3 /srv/app/app.db "insert into t values (2), (3)"
"${as_sqlwatch[@]}" sqlwatch sync app
exec 3<>/dev/tcp/127.0.0.1/9942
printf 'GET /metrics HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n' >&3
cat <&3 >/tmp/metrics
exec 3>&-
grep '^sqlite_up{.*db="app".*} 1' /tmp/metrics

# ExecReload reports errors, so that systemctl shows them; the configuration in force stays.
read -ra reload <<<"$(unit ExecReload)"
"${as_sqlwatch[@]}" "${reload[@]}"
echo 'nonsense {' >/etc/sqlwatch/wrong.hcl
refused "${as_sqlwatch[@]}" "${reload[@]}" 2>/tmp/said
grep 'wrong.hcl' /tmp/said
rm /etc/sqlwatch/wrong.hcl
"${as_sqlwatch[@]}" sqlwatch sync app

# The application's user reads neither keys nor state nor replica.
for secret in /etc/sqlwatch/sqlwatch.hcl /var/lib/sqlwatch /srv/replica; do
	refused as_app ls "$secret"/ 2>/dev/null
	refused as_app cat "$secret" 2>/dev/null
done

"${as_sqlwatch[@]}" sqlwatch restore app -o /tmp/copy.db
[ "$(sqlite3 /tmp/copy.db 'select count(*) from t')" = 3 ]
kill -TERM $daemon
wait $daemon
[ ! -e /srv/app/app.db-wal ] || [ ! -s /srv/app/app.db-wal ]
as_app sqlite3 /srv/app/app.db "insert into t values (4)"

dpkg -i /sqlwatch.deb # once more, as an upgrade does
[ -e /var/lib/sqlwatch ]
dpkg -r sqlwatch
[ -e /var/lib/sqlwatch ] && [ -e /etc/sqlwatch/sqlwatch.hcl ]
dpkg -P sqlwatch
[ ! -e /var/lib/sqlwatch ]

# What docs/recipes.md says of the rest; it may be gone already.
rm -rf /etc/sqlwatch /var/lib/sqlwatch /run/sqlwatch
userdel sqlwatch
refused getent passwd sqlwatch
