#!/usr/bin/env bash
# Puts the pinned ONNX Runtime library at .build/lib/libonnxruntime.so.1 of this
# repository. It is found, in this order:
#   1. $SELA_ONNXRUNTIME, a library of your own: reported, nothing is installed
#   2. the library already there, if its digest is a pinned one
#   3. the npm package onnxruntime-node (packed, never installed: no script of it runs)
#   4. the Python wheel onnxruntime (downloaded and unzipped, never installed)
# Nothing outside .build is written except a temporary folder, removed at the end.
# The last line on stdout is the library's path; messages go to stderr.
set -euo pipefail

# The only place where versions and digests are pinned. A digest is the sha256
# of the library itself, so that a repacked archive with the same library passes
# and a changed library never does. The wheels of all Python versions hold the
# same library, which is why the wheel's Python tag below need not be ours.
version=1.24.3
minimum=1.24
npm_package=onnxruntime-node@$version
npm_digest_x86_64=92ba8e44d31b80a34f5e805076a044122c3be1fffe0d88ed790de7267b0b2682
npm_digest_aarch64=33032cb5b91c12edbf028d7c69fa40a31848d66c0095448758af237d5e0b07db
wheel_package=onnxruntime==$version
wheel_python=3.12
wheel_platform=manylinux_2_28
wheel_digest_x86_64=12e097b0705253189cd2cde73a091febefb7348edcfe606cd54aec010a4bab2b
wheel_digest_aarch64=34b560ca50f0ba1228a715ce3bedb14eb0fa8e9002dd43dfe083be399f67d7ad

say() { printf 'onnxruntime: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
dir=$root/.build/lib
library=$dir/libonnxruntime.so.1

digest_of() {
	if command -v sha256sum >/dev/null; then
		sha256sum "$1" | cut -d' ' -f1
	else
		shasum -a 256 "$1" | cut -d' ' -f1
	fi
}

if [[ -n ${SELA_ONNXRUNTIME:-} ]]; then
	[[ -e $SELA_ONNXRUNTIME ]] ||
		die "SELA_ONNXRUNTIME names $SELA_ONNXRUNTIME, which does not exist; correct it, or unset it to use version $version"
	say "using $SELA_ONNXRUNTIME, which SELA_ONNXRUNTIME names"
	printf '%s\n' "$SELA_ONNXRUNTIME"
	exit 0
fi

manual="put a libonnxruntime.so of version $minimum or later on this machine and name it in SELA_ONNXRUNTIME"

[[ $(uname -s) == Linux ]] ||
	die "no library is pinned for $(uname -s): $manual"
case $(uname -m) in
x86_64 | amd64) arch=x86_64 node_arch=x64 ;;
aarch64 | arm64) arch=aarch64 node_arch=arm64 ;;
*) die "no library is pinned for $(uname -m): $manual" ;;
esac
npm_digest=npm_digest_$arch npm_digest=${!npm_digest}
wheel_digest=wheel_digest_$arch wheel_digest=${!wheel_digest}

if [[ -f $library ]]; then
	have=$(digest_of "$library")
	if [[ $have == "$npm_digest" || $have == "$wheel_digest" ]]; then
		say "version $version is in place"
		printf '%s\n' "$library"
		exit 0
	fi
	say "$library is not version $version as pinned (sha256 $have): replacing it"
fi

mkdir -p "$dir"
# On the same file system as its destination, so that the final rename is atomic.
scratch=$(mktemp -d "$root/.build/onnxruntime.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# install FILE DIGEST: checks the library and moves it into place.
install_library() {
	local have
	have=$(digest_of "$1")
	if [[ $have != "$2" ]]; then
		say "the library obtained has sha256 $have, pinned is $2: refused"
		return 1
	fi
	chmod 755 "$1"
	mv -f "$1" "$library"
}

from_npm() {
	command -v npm >/dev/null || { say "npm is not on this machine"; return 1; }
	say "fetching $npm_package (86 MB) with npm"
	local member=package/bin/napi-v6/linux/$node_arch/libonnxruntime.so.1
	(cd "$scratch" && npm pack --silent --ignore-scripts "$npm_package" >/dev/null 2>npm.log) ||
		{ tail -n 3 "$scratch/npm.log" >&2; say "npm could not fetch it"; return 1; }
	tar -xzf "$scratch"/onnxruntime-node-*.tgz -C "$scratch" "$member" ||
		{ say "the package has no $member"; return 1; }
	install_library "$scratch/$member" "$npm_digest"
}

from_wheel() {
	command -v python3 >/dev/null || { say "python3 is not on this machine"; return 1; }
	python3 -m pip --version >/dev/null 2>&1 || { say "python3 has no pip"; return 1; }
	say "fetching $wheel_package (17 MB) with pip"
	python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
		--python-version "$wheel_python" --implementation cp --platform "${wheel_platform}_$arch" \
		--dest "$scratch/wheel" "$wheel_package" 2>"$scratch/pip.log" ||
		{ tail -n 3 "$scratch/pip.log" >&2; say "pip could not fetch it"; return 1; }
	python3 -m zipfile -e "$scratch"/wheel/onnxruntime-*.whl "$scratch/wheel/x" ||
		{ say "the wheel cannot be unzipped"; return 1; }
	install_library "$scratch/wheel/x/onnxruntime/capi/libonnxruntime.so.$version" "$wheel_digest"
}

from_npm || from_wheel || die "neither npm nor pip could provide version $version.
  Behind a proxy or a mirror: configure npm or pip for it and run this again.
  Without a network: $manual."

say "version $version is at $library"
printf '%s\n' "$library"
