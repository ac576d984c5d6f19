#!/usr/bin/env bash
# Compile and test with another Python: tests/pythons/run.sh VERSION [TARGET...], with
# targets of the Makefile in place of `test-compiled unit`. `make test-python` runs it.
#
# Uses pythonVERSION where it is installed with its headers. Otherwise, as root on Debian,
# installs the Debian release that has it into build/python-VERSION/root, and runs there.
# What is tested is a copy of the files that git knows or would add, in
# build/python-VERSION/checkout, so that this checkout stays as it is.
set -euo pipefail
cd "$(dirname "$0")/../.."

version=$1
shift
home=$PWD/build/python-$version
root=$home/root
checkout=$home/checkout

stop() {
  echo "test-python: $*" >&2
  exit 1
}

installed() { # the path of an interpreter of this version that can compile
  local fits="import sys, sysconfig, ensurepip, venv, os
sys.exit('%d.%d' % sys.version_info[:2] != '$version'
  or not os.path.exists(sysconfig.get_path('include') + '/Python.h'))"
  for candidate in ${PYTHON:-} "python$version"; do
    # Run it: a pyenv shim is on the PATH even if its Python is not active.
    if "$candidate" -c "$fits" 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  return 1
}

release() { # the Debian release that has this version
  case $version in
    3.11) echo bookworm ;;
    3.13) echo trixie ;;
    3.14) echo forky ;;
    *) return 1 ;;
  esac
}

mirror() { # the address of Debian's archive in apt's settings
  # shellcheck disable=SC2016 # apt-get expands it
  apt-get indextargets --format '$(REPO_URI)' \
    'Created-By: Packages' 'Origin: Debian' 'Label: Debian' 'Component: main' | head -1
}

make_root() { # into a folder of another name first, so that none is there by half
  local suite=$1 address script=/usr/share/debootstrap/scripts/$1
  bash deploy/ensure-debian.sh debootstrap:debootstrap
  address=$(mirror)
  if [[ -z $address ]]; then
    apt-get update -qq
    address=$(mirror)
  fi
  [[ -n $address ]] || stop "apt knows no archive of Debian; install python$version with its headers"
  # One that is newer than debootstrap is made as sid is.
  [[ -e $script ]] || script=/usr/share/debootstrap/scripts/sid
  echo "making $root: Debian $suite with Python $version ..."
  rm -rf --one-file-system "$root.new"
  mkdir -p "$root.new"
  # debootstrap mounts /proc.
  unshare --mount --propagation private \
    debootstrap --variant=minbase \
    --include="python$version-venv,python$version-dev,gcc,libc6-dev,make,ca-certificates,nginx-light" \
    "$suite" "$root.new" "$address" "$script" >"$home/debootstrap.log" ||
    stop "debootstrap failed: $(tail -3 "$home/debootstrap.log")"
  rm -rf --one-file-system "$root.new"/var/cache/apt/archives/*.deb
  mv "$root.new" "$root"
  echo "made it in $SECONDS s"
}

copy_sources() { # the virtual environment and what tests cache stay
  mkdir -p "$checkout"
  find "$checkout" -mindepth 1 -maxdepth 1 ! -name .venv ! -name .hypothesis \
    -exec rm -rf --one-file-system {} +
  git ls-files -z --cached --others --exclude-standard --deduplicate |
    { while IFS= read -rd '' file; do
      if [[ -e $file ]]; then printf '%s\0' "$file"; fi
    done; } |
    tar --create --null --files-from=- | tar --extract --directory "$checkout"
}

inside=()
if ! python=$(installed); then
  suite=$(release) || stop "Debian has no Python $version: install python$version with its headers"
  if [[ $(id -u) -ne 0 ]] || ! command -v apt-get >/dev/null; then
    stop "no python$version with venv and headers on the PATH; as root on Debian it would be installed"
  fi
  unshare --mount true 2>/dev/null ||
    stop "may not mount here: install python$version with its headers"
  mkdir -p "$home"
  [[ -e $root ]] || make_root "$suite"
  inside=(bash "$PWD/tests/pythons/enter.sh" "$root")
  python=/usr/bin/python$version
fi

copy_sources
# Runs this Python from outside of its root, with the packages: for benchmarks. No link,
# because Python looks for its packages beside the name that it is called by.
{
  printf '#!/bin/sh\nexec'
  printf ' "%s"' "${inside[@]}" "$checkout/.venv/bin/python"
  printf ' "$@"\n'
} >"$home/python"
chmod +x "$home/python"

# They are the caller's: of another Python, or of another make.
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV VENV MAKEFLAGS MAKEOVERRIDES MAKELEVEL MFLAGS
in_copy() { "${inside[@]}" make --no-print-directory --directory "$checkout" PYTHON="$python" "$@"; }

[[ $# -gt 0 ]] || set -- test-compiled unit
for target in setup-test "$@"; do
  in_copy "$target"
  echo "test-python: Python $version, $target done after $SECONDS s"
done
