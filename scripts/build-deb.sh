#!/usr/bin/env bash
# build-deb.sh - a Debian package from this source tree, or from a tarball of it; `make deb` calls it.
# Exit codes: 0 built, 1 failed, 2 bad options.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

tarball=
out=.
revision=1

print_help() {
	cat <<-END
	Usage: scripts/build-deb.sh [--tarball FILE] [--out DIR] [--revision N]

	Builds grizzly_VERSION-N_ARCH.deb for the release of Debian it runs on, and prints its path.

	  --tarball FILE  of \`make dist\`; without it one is made first
	  --out DIR       where the package goes (.)
	  --revision N    the package's revision (1)
	END
}

while [ $# -gt 0 ]; do
	case $1 in
	--tarball)
		take_value "$1" $#
		tarball=$2
		shift 2
		;;
	--out)
		take_value "$1" $#
		out=$2
		shift 2
		;;
	--revision)
		take_value "$1" $#
		whole_number "$1" "$2" 1 9999
		revision=$2
		shift 2
		;;
	--help | -h)
		print_help
		exit 0
		;;
	*) usage_error "unknown option: $1" ;;
	esac
done

install_packages "${build_packages[@]}" debhelper
mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$(mktemp -d -t grizzly-deb-XXXXXX)
trap 'rm -rf "$work"' EXIT

if [ -z "$tarball" ]; then
	build "$work/build" dist-gzip
	tarball=$(find "$work/build" -maxdepth 1 -name 'grizzly-*.tar.gz')
fi
[ -f "$tarball" ] || die "no tarball \"$tarball\""
tar -C "$work" -xzf "$tarball"
source_dir=$(find "$work" -mindepth 1 -maxdepth 1 -type d -name 'grizzly-*')
version=${source_dir##*/grizzly-}-$revision
cp -r "$source_dir/packaging/debian" "$source_dir/debian"
# A fixed date makes the same source the same package.
date=$(date -u -R -d "@${SOURCE_DATE_EPOCH:-$(stat -c %Y "$source_dir/configure.ac")}")
sed -e "s/@VERSION@/$version/" -e "s/@DATE@/$date/" "$source_dir/debian/changelog.in" >"$source_dir/debian/changelog"
rm "$source_dir/debian/changelog.in"
chmod +x "$source_dir/debian/rules"
(cd "$source_dir" && DEB_BUILD_OPTIONS="parallel=2 ${DEB_BUILD_OPTIONS:-}" \
	run_logged "$out/build-deb.log" dpkg-buildpackage dpkg-buildpackage -b -us -uc)
find "$work" -maxdepth 1 -name '*.deb' -exec mv -t "$out" {} +
find "$out" -maxdepth 1 -name "grizzly_${version}_*.deb"
