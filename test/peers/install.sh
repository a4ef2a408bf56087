#!/usr/bin/env bash
# Brings the real peers that the end-to-end tests meet, from Debian's packages. See README.md beside it.
#
#   sudo test/peers/install.sh        into $VHU_PEERS, or <repo>/.peers
#
# QEMU and its tools are installed on the host from the backports suite, and Chromium from the suite itself. All else is only unpacked below the
# peers folder: a trixie root for virtiofsd and libblkio, and the guest's kernel, modules and busybox.
# Safe to run again (it then only prints the versions) and safe to run at the same time as itself.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
peers=${VHU_PEERS:-$(cd "$here/../.." && pwd)/.peers}
qemu_packages=(qemu-system-x86 qemu-system-common qemu-utils)
# program and the package it comes from
qemu_programs='qemu-system-x86_64 qemu-system-x86
qemu-storage-daemon qemu-utils
qemu-img qemu-utils'
trixie_packages=(virtiofsd libblkio1 libblkio-dev)
work=

say() { printf 'peers: %s\n' "$*"; }
die() { printf 'peers: %s\n' "$*" >&2; exit 1; }

# retry COMMAND...: up to four times, since mirrors fail now and then.
retry() {
  local attempt
  for attempt in 1 2 3 4; do
    if "$@"; then return 0; fi
    [ "$attempt" = 4 ] || { say "attempt $attempt failed: ${*: -3}"; sleep $((attempt * 3)); }
  done
  die "gave up after 4 attempts: $*"
}

# The lock's descriptor is closed for apt, so that no daemon a package starts can keep it.
quiet() {
  if ! "$@" >"$work/log" 2>&1 9>&-; then tail -n 25 "$work/log" >&2; return 1; fi
}

host_apt() {
  "$1" -o Dir::Etc::sourcelist="$work/host.list" -o Dir::Etc::sourceparts=/dev/null \
    -o Dir::State::lists="$work/host-lists" -o Dir::Cache="$work/host-cache" "${common[@]}" "${@:2}"
}

# An apt that knows of no installed package: it resolves everything the root needs.
trixie_apt() {
  "$1" -o Dir::Etc::sourcelist="$work/trixie.list" -o Dir::Etc::sourceparts=/dev/null \
    -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null \
    -o Dir::State="$work/trixie-state" -o Dir::State::lists="$work/trixie-lists" \
    -o Dir::State::status="$work/no-packages" -o Dir::Cache="$work/trixie-cache" "${common[@]}" "${@:2}"
}

# Prints "URI trusted suite component" of each Debian source the machine has, whatever file format it is in.
machine_sources() {
  apt-get indextargets --format '$(REPO_URI) $(TRUSTED) $(RELEASE) $(COMPONENT) $(ORIGIN) $(CODENAME)' \
    'Created-By: Packages' | awk '$5 == "Debian" && $6 ~ /^bookworm/ { print $1, $2, $3, $4 }' | sort -u
}

write_sources() {
  local uri trusted suite component rows archive=''
  rows=$(machine_sources)
  # apt lists only targets it has fetched; a fresh image has none.
  if ! grep -q ' bookworm main$\| stable main$\| oldstable main$' <<<"$rows"; then
    say "apt-get update (the machine has no package lists yet)"
    retry quiet apt-get -o Acquire::Retries=3 update
    rows=$(machine_sources)
  fi
  local keyring=/usr/share/keyrings/debian-archive-keyring.gpg options
  while read -r uri trusted suite component; do
    [ -n "$uri" ] || continue
    options="signed-by=$keyring"
    [ "$trusted" = yes ] && options="trusted=yes"
    echo "deb [$options] $uri $suite $component" >>"$work/host.list"
    case "$suite $component" in "bookworm main" | "stable main" | "oldstable main")
      archive="[$options] $uri" ;;
    esac
  done <<<"$rows"
  [ -n "$archive" ] || die "found no Debian 12 archive (suite bookworm, main) in this machine's apt sources, or it could not be reached"
  echo "deb $archive bookworm-backports main" >>"$work/host.list"
  echo "deb $archive trixie main" >"$work/trixie.list"
}

prepare_apt() {
  work=$(mktemp -d "$peers/tmp.XXXXXX")
  mkdir -p "$work"/{host-lists,trixie-lists,host-cache/archives,trixie-cache/archives,trixie-state}/partial
  : >"$work/no-packages"
  common=(-o APT::Sandbox::User=root -o Acquire::Retries=3 -o Acquire::PDiffs=false
    -o Acquire::Languages=none -o DPkg::Lock::Timeout=600 -o APT::Install-Recommends=false
    -o APT::Get::Assume-Yes=true -o quiet=1
    # Otherwise "update" succeeds without the lists it could not fetch, and nothing is tried again.
    -o APT::Update::Error-Mode=any)
  write_sources
}

install_qemu() {
  retry quiet host_apt apt-get update
  local wanted=("${qemu_packages[@]}")
  command -v ip >/dev/null || wanted+=(iproute2)
  say "installing ${wanted[*]} (bookworm-backports)"
  DEBIAN_FRONTEND=noninteractive retry quiet host_apt apt-get -t bookworm-backports install "${wanted[@]}"
}

unpack_trixie() {
  say "unpacking ${trixie_packages[*]} and what they need (trixie)"
  retry quiet trixie_apt apt-get update
  retry quiet trixie_apt apt-get --download-only install "${trixie_packages[@]}"
  local root=$work/trixie deb
  mkdir -p "$root"/usr/{bin,sbin,lib,lib64}
  for deb in bin sbin lib lib64; do ln -s "usr/$deb" "$root/$deb"; done
  for deb in "$work"/trixie-cache/archives/*.deb; do dpkg-deb -x "$deb" "$root"; done
  rm -rf "$peers/trixie"
  mv "$root" "$peers/trixie"
  record virtiofsd "$work"/trixie-cache/archives/virtiofsd_*.deb
  record libblkio "$work"/trixie-cache/archives/libblkio-dev_*.deb
}

unpack_guest() {
  local image
  image=$(host_apt apt-cache depends --important linux-image-cloud-amd64 | awk '$1 == "Depends:" { print $2; exit }')
  [ -n "$image" ] || die "linux-image-cloud-amd64 names no kernel package"
  say "unpacking $image and busybox-static"
  mkdir "$work/guest-debs" "$work/guest-root" "$work/guest"
  cd "$work/guest-debs"
  retry quiet host_apt apt-get download "$image" busybox-static
  cd "$peers"
  local deb
  for deb in "$work"/guest-debs/*.deb; do dpkg-deb -x "$deb" "$work/guest-root"; done
  mv "$work"/guest-root/boot/vmlinuz-* "$work/guest/vmlinuz"
  mv "$work"/guest-root/lib/modules/* "$work/guest/modules"
  mv "$work"/guest-root/bin/busybox "$work/guest/busybox"
  rm -rf "$peers/guest"
  mv "$work/guest" "$peers/guest"
  record guest-kernel "$work"/guest-debs/linux-image-*.deb
  record busybox "$work"/guest-debs/busybox-static_*.deb
}

# "1:10.0.2+ds-2~bpo12+1" -> "10.0.2"
upstream() { sed -E 's/^[0-9]+://; s/[-+~].*//' <<<"$1"; }

# record PEER DEB: one row of peers.tsv, "peer version debian-version".
record() {
  local version
  version=$(dpkg-deb -f "$2" Version)
  printf '%s\t%s\t%s\n' "$1" "$(upstream "$version")" "$version" >>"$work/peers.tsv"
}

record_qemu() {
  local name package version
  while read -r name package; do
    command -v "$name" >/dev/null || die "$package is installed but $name is not there"
    version=$(dpkg-query -W -f '${Version}' "$package")
    dpkg --compare-versions "$version" ge 1:10.0.2 || die "$name is $version; the tests need 10.0.2 or newer"
    printf '%s\t%s\t%s\n' "$name" "$(upstream "$version")" "$version" >>"$work/peers.tsv"
  done <<<"$qemu_programs"
}

# Any version does, so one that is there stays.
install_chromium() {
  if ! command -v chromium >/dev/null; then
    say "installing chromium (bookworm)"
    DEBIAN_FRONTEND=noninteractive retry quiet host_apt apt-get install chromium
  fi
  local version
  version=$(dpkg-query -W -f '${Version}' chromium)
  printf 'chromium\t%s\t%s\n' "$(upstream "$version")" "$version" >>"$work/peers.tsv"
}

# What peers.tsv must begin with; another version of this script brings everything anew.
stamp() { printf '# install.sh %s\n' "$(cksum <"$here/install.sh")"; }

complete() {
  [ -f "$peers/peers.tsv" ] && [ "$(head -n 1 "$peers/peers.tsv")" = "$(stamp)" ] || return 1
  [ -x "$peers/trixie/usr/libexec/virtiofsd" ] && [ -f "$peers/trixie/usr/include/blkio.h" ] || return 1
  [ -f "$peers/guest/vmlinuz" ] && [ -d "$peers/guest/modules" ] && [ -x "$peers/guest/busybox" ] || return 1
  local name package
  command -v ip >/dev/null || return 1
  command -v chromium >/dev/null && grep -q '^chromium'$'\t' "$peers/peers.tsv" || return 1
  while read -r name package; do
    command -v "$name" >/dev/null || return 1
    grep -qF "$name"$'\t' "$peers/peers.tsv" || return 1
    [ "$(dpkg-query -W -f '${Version}' "$package" 2>/dev/null)" = \
      "$(awk -F'\t' -v n="$name" '$1 == n { print $3 }' "$peers/peers.tsv")" ] || return 1
  done <<<"$qemu_programs"
}

report() { awk -F'\t' '!/^#/ { printf "peer %s %s (Debian %s)\n", $1, $2, $3 }' "$peers/peers.tsv"; }

main() {
  if [ -d "$peers" ] && complete; then say "all there in $peers"; report; return; fi
  [ "$(id -u)" = 0 ] || die "must run as root (it installs Debian packages): sudo $0"
  # shellcheck source=/dev/null
  . /etc/os-release
  [ "${VERSION_CODENAME:-}" = bookworm ] || die "needs Debian 12 (bookworm), this is ${PRETTY_NAME:-unknown}"
  [ "$(dpkg --print-architecture)" = amd64 ] || die "needs amd64; the guest and QEMU's tests are x86_64 only"
  mkdir -p "$peers"
  peers=$(cd "$peers" && pwd)
  exec 9>"$peers/.lock"
  flock -w 1200 9 || die "another run has held $peers/.lock for 20 minutes"
  if complete; then say "all there in $peers (another run brought it)"; report; return; fi
  rm -rf "$peers"/tmp.*
  trap 'rm -rf "$work"' EXIT
  prepare_apt
  stamp >"$work/peers.tsv"
  install_qemu
  record_qemu
  install_chromium
  unpack_trixie
  unpack_guest
  # Last and by rename: the file is there only when everything it names is.
  mv "$work/peers.tsv" "$peers/peers.tsv"
  say "done in ${SECONDS} s, in $peers"
  report
}

main "$@"
