#!/usr/bin/env bash
# Gets the headers and the static library of libjpeg-turbo, with which JPEG files
# decode to Pillow's bytes and several times faster than without.
#
#   libjpeg.sh            install them unless they are there: by apt as root or
#                         with sudo, else into .build/libjpeg of this repository
#   libjpeg.sh --tags     print turbojpeg, the build tag, if they work; else nothing
#   libjpeg.sh --digest   print a digest of the library if it works; else nothing
#
# Go notices no change of a C library. A build that passes the digest to the
# compiler (-D in CGO_CPPFLAGS) is made anew when the library is another, so that
# the version compiled in is that of the code linked in.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
own=$root/.build/libjpeg
shim=$root/stages/internal/imageio/libjpeg
cc=${CC:-$(go env CC 2>/dev/null || echo cc)}

say() { printf 'libjpeg: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# Where the compiler finds the static library: its own folders come last.
library() {
	if [[ -f $own/lib/libjpeg.a ]]; then echo "$own/lib/libjpeg.a"; else $cc -print-file-name=libjpeg.a; fi
}

# works compiles and links what the build will.
works() {
	local program
	program=$(mktemp "$root/.build/libjpeg.XXXXXX")
	local rc=0
	# shellcheck disable=SC2086 # $cc may carry options
	printf '#include "native.h"\nint main(void) { char m[MESSAGE_LENGTH]; return decode(0, 0, (request){0}, 0, 0, 0, m); }\n' |
		$cc -o "$program" -I"$shim" -I"$own/include" "$shim/native.c" -x c - -L"$own/lib" -l:libjpeg.a 2>"$program.log" || rc=$?
	((rc == 0)) || grep -o '#error ".*' "$program.log" >&2 || true
	rm -f "$program" "$program.log"
	return $rc
}

# answer sets tag and digest, from the last answer if nothing has changed since.
answer() {
	mkdir -p "$root/.build"
	local key cached=$root/.build/libjpeg.answer lib
	tag='' digest=''
	[[ $(go env CGO_ENABLED 2>/dev/null) == 0 ]] && return
	command -v ${cc%% *} >/dev/null || return 0
	lib=$(library)
	key=$(stat -L -c '%n %s %Y' "$lib" "$shim"/native.[ch] {/usr,/usr/local,"$own"}/include/jpeglib.h 2>/dev/null | tr '\n' ' ') || true
	key="$cc ${CPATH:-} ${LIBRARY_PATH:-} $key"
	if [[ -f $cached && $(sed -n 1p "$cached") == "$key" ]]; then
		tag=$(sed -n 2p "$cached") digest=$(sed -n 3p "$cached")
		return
	fi
	if works; then
		tag=turbojpeg
		digest=$(sha256sum "$lib" | cut -c1-16)
	fi
	printf '%s\n%s\n%s\n' "$key" "$tag" "$digest" >"$cached.$$"
	mv -f "$cached.$$" "$cached"
}

answer
case ${1:-} in
--tags) echo "$tag"; exit ;;
--digest) echo "$digest"; exit ;;
'') ;;
*) die "usage: $0 [--tags | --digest]" ;;
esac

if [[ -n $tag ]]; then
	say "libjpeg-turbo is in place at $(library)"
	exit 0
fi
manual="install the headers and the static library (libjpeg.a) of libjpeg-turbo 2.1 or later, or do without: JPEG files then decode more slowly, and a level or two beside Pillow's"
command -v apt-get >/dev/null || die "this system has no apt-get: $manual"

# Debian's name and Ubuntu's.
packages=(libjpeg62-turbo-dev libjpeg-turbo8-dev)
if ((EUID == 0)); then
	as_root=()
elif sudo -n true 2>/dev/null; then
	as_root=(sudo -n)
fi
if [[ -v as_root ]]; then
	"${as_root[@]}" apt-get update -qq || say "apt-get update failed; going on with the lists as they are"
	for p in "${packages[@]}"; do
		apt-cache show "$p" >/dev/null 2>&1 || continue
		say "installing $p"
		"${as_root[@]}" apt-get install -y -qq --no-install-recommends "$p" >/dev/null || die "apt-get could not install $p: $manual"
		answer
		[[ -n $tag ]] || die "$p is installed, but a program does not compile and link with it: $manual"
		say "$p is installed"
		exit 0
	done
	die "apt knows neither ${packages[0]} nor ${packages[1]}: $manual"
fi

scratch=$(mktemp -d "$root/.build/libjpeg.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
for p in "${packages[@]}"; do
	apt-get download -qq "$p" 2>/dev/null || continue
	say "unpacking $p into $own"
	dpkg -x "$p"_*.deb x
	mkdir -p "$own/include" "$own/lib"
	find x/usr/include -name '*.h' -exec cp {} "$own/include/" \;
	find x/usr/lib -name libjpeg.a -exec cp {} "$own/lib/" \;
	cd "$root"
	answer
	[[ -n $tag ]] || die "$p is unpacked, but a program does not compile and link with it: $manual"
	exit 0
done
die "neither root nor sudo, and apt-get could not download ${packages[0]} or ${packages[1]} (apt-get update, as root, may help): $manual"
