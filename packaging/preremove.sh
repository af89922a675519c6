#!/bin/sh
# $1: remove or purge (deb), 0 (rpm); an upgrade leaves the services alone.
set -e
case "$1" in
remove | 0)
	if [ -d /run/systemd/system ]; then
		systemctl disable --now sqlwatch.service || true
		systemctl stop 'sqlwatch@*.service' || true
	fi
	;;
esac
