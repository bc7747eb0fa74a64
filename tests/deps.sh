#!/bin/sh
# SPDX-License-Identifier: MIT
#
# deps.sh - installs the Debian packages named as arguments that are not there yet.
#
# Asks dpkg and not the network what is there, so that it does nothing, offline too, when
# nothing is missing.  Installs as root or through sudo, and says what.

have() {
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

if ! command -v dpkg-query >/dev/null; then
	echo "deps: not a Debian system; needed are the equivalents of: $*" >&2
	exit 0
fi
missing=
for p; do
	have "$p" || missing="$missing $p"
done
[ -z "$missing" ] && exit 0

as_root="env"
if [ "$(id -u)" -ne 0 ]; then
	as_root="sudo env"
	if ! command -v sudo >/dev/null; then
		echo "deps: missing:$missing" >&2
		echo "deps: install them as root: apt-get install$missing" >&2
		exit 1
	fi
fi
echo "deps: installing$missing"
# shellcheck disable=SC2086 # lists
apt() {
	$as_root DEBIAN_FRONTEND=noninteractive apt-get -y -q "$@" >>"$log" 2>&1
}
# shellcheck disable=SC2086
install() {
	apt install --no-install-recommends $missing
}
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
# Package lists may be missing or stale: fetch them only if it does not work without.
install || { apt update && install; } || {
	tail -n 20 "$log" >&2
	echo "deps: apt-get could not install$missing" >&2
	exit 1
}
