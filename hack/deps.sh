#!/bin/sh
# Installs what nodetrust is built and tested with on Debian/Ubuntu and RHEL/Fedora, if it is missing:
#
#   hack/deps.sh [build] [test]
#
# "build" is what `make build` and `make demo` need, "test" what the tests of real runtimes need besides (they run as
# root only). Without arguments: build, and test where it runs as root. It installs as root directly, with sudo on a
# terminal; else it prints the one line to run and exits 1. Where nothing is missing it does nothing.
set -eu

die() {
	echo "nodetrust: error: $*" >&2
	exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# Any Go from 1.21 on fetches the one that go.mod asks for.
check_go() {
	have go || die "Go is not installed: 1.21 or newer is needed, see https://go.dev/dl/"
	# In the root directory, because the go command of a module may already be the newer one.
	version=$(cd / && GOTOOLCHAIN=local go version 2>/dev/null | sed -n 's/^go version .*go1\.\([0-9]*\).*/\1/p')
	[ -n "$version" ] || die "go version is not understood: Go 1.21 or newer is needed, see https://go.dev/dl/"
	[ "$version" -ge 21 ] || die "Go 1.$version is too old: 1.21 or newer is needed, see https://go.dev/dl/"
}

missing=
need() { # need DEB RPM COMMAND…: the package is missing unless COMMAND succeeds
	deb=$1 rpm=$2
	shift 2
	if ! "$@" >/dev/null 2>&1; then
		case $family in
		deb) missing="$missing $deb" ;;
		rpm) missing="$missing $rpm" ;;
		esac
	fi
}

has_library() { pkg-config --exists "$1"; }
has_libc() { echo '#include <stdlib.h>' | gcc -E - ; }
has_oci_runtime() { have runc || have crun; }

is_debian() { [ -r /etc/os-release ] && grep -qx 'ID=debian' /etc/os-release; }

has_cni() { [ -x /usr/lib/cni/bridge ] || [ -x /usr/libexec/cni/bridge ]; }

need_build() {
	need make make have make
	need gcc gcc have gcc
	need libc6-dev glibc-devel has_libc
	need pkg-config pkgconf-pkg-config have pkg-config
	need libgpgme-dev gpgme-devel has_library gpgme
	need gnupg gnupg2 have gpg
}

need_test() {
	need podman podman have podman
	need skopeo skopeo have skopeo
	need runc crun has_oci_runtime
	need conmon conmon have conmon
	need containernetworking-plugins containernetworking-plugins has_cni
	need iproute2 iproute have ip
	need libseccomp-dev libseccomp-devel has_library libseccomp
	need strace strace have strace
	# The lab is for Debian alone.
	[ $family != deb ] || need mmdebstrap - have mmdebstrap
	# The audit's page is tried in it; elsewhere it is no plain package.
	! is_debian || need chromium - have chromium
	need util-linux util-linux have unshare
}

# RHEL and its rebuilds keep the -devel packages in a repository that is off by default. Red Hat's universal base images call
# themselves RHEL and have repositories of their own, that one on: dnf ends at the name of one that it doesn't know.
devel_repository() {
	[ ! -e /etc/yum.repos.d/ubi.repo ] || return 0
	major=${VERSION_ID%%.*}
	case "$ID:$major: $ID_LIKE " in
	rhel:*) echo "--enablerepo=codeready-builder-for-rhel-$major-$(uname -m)-rpms" ;;
	*:8:*" rhel "*) echo "--enablerepo=powertools" ;;
	*" rhel "*) echo "--enablerepo=crb" ;;
	esac
}

check_go
if have apt-get; then
	family=deb
elif have dnf; then
	family=rpm
else
	family=other
fi

[ $# -gt 0 ] || if [ "$(id -u)" = 0 ]; then set -- build test; else set -- build; fi
for group in "$@"; do
	case $group in
	build) need_build ;;
	test) need_test ;;
	*) die "unknown group $group: want build or test" ;;
	esac
done

if [ $family = other ]; then
	have gcc && have pkg-config && has_library gpgme && have gpg ||
		die "neither apt-get nor dnf here: please install gcc, pkg-config, the headers of gpgme, and gnupg"
	exit 0
fi
[ -n "$missing" ] || exit 0

if [ $family = deb ]; then
	install="apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends$missing"
else
	ID='' ID_LIKE='' VERSION_ID=''
	[ ! -r /etc/os-release ] || . /etc/os-release
	install="dnf install -y --setopt=install_weak_deps=False $(devel_repository)$missing"
fi
if [ "$(id -u)" = 0 ]; then
	sh -c "$install"
elif [ -t 0 ] && have sudo; then
	echo "nodetrust: installing$missing"
	sudo sh -c "$install"
else
	die "missing:$missing; as root run: $install"
fi
