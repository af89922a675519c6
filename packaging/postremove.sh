#!/bin/sh
# State and configuration outlive the package. `purge` (deb) removes the state too;
# replicas are data and are never touched.
set -e
if [ "$1" = purge ]; then
	rm -rf /var/lib/sqlwatch
fi
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
fi
