#!/bin/sh
# Makes the user, and tells systemd. Nothing is started: there is no configuration yet.
set -e
if ! getent group sqlwatch >/dev/null; then
	groupadd --system sqlwatch
fi
if ! getent passwd sqlwatch >/dev/null; then
	useradd --system --gid sqlwatch --home-dir /var/lib/sqlwatch --no-create-home \
		--shell /usr/sbin/nologin --comment "sqlwatch" sqlwatch
fi
# By name, so that the service reads its configuration with the application's group as its
# first too (Group=app): the primary group of a user is not among those it gets then.
usermod --append --groups sqlwatch sqlwatch
chown root:sqlwatch /etc/sqlwatch
chmod 0750 /etc/sqlwatch
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
	# An upgrade: the new program takes over. `try-restart` starts nothing.
	systemctl try-restart sqlwatch.service 'sqlwatch@*.service' || true
fi
