#!/usr/bin/env bash
# Gets Chromium, with which the tests look at the report, unless this machine has
# it (or Chrome, or what SELA_CHROMIUM names): by apt, as root or with sudo. Its
# version is the system's, which receives the security updates.
set -euo pipefail

say() { printf 'chromium: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

for name in "${SELA_CHROMIUM:-}" chromium chromium-browser google-chrome; do
	if [[ -n $name ]] && path=$(command -v "$name"); then
		say "using $path"
		exit 0
	fi
done
manual="install Chromium or Chrome, or name it in SELA_CHROMIUM"
command -v apt-get >/dev/null || die "this system has no apt-get: $manual"
if ((EUID == 0)); then
	as_root=()
elif sudo -n true 2>/dev/null; then
	as_root=(sudo -n)
else
	die "neither root nor sudo: $manual"
fi
"${as_root[@]}" apt-get update -qq || say "apt-get update failed; going on with the lists as they are"
say "installing chromium"
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null || die "apt-get could not install it: $manual"
say "using $(command -v chromium)"
