#!/usr/bin/env bash
# Run a command inside a Debian root: tests/pythons/enter.sh ROOT COMMAND...
# The checkout, /tmp, /proc, /dev and /sys are the machine's, at the same paths. They are
# mounted in a mount namespace of this process: no mount is left when it has ended, not
# even if it was killed.
set -euo pipefail

if [[ $1 != --inside ]]; then
  exec unshare --mount --propagation private bash "${BASH_SOURCE[0]}" --inside "$@"
fi
shift
root=$1
shift

for folder in /proc /dev /sys /tmp; do
  mount --rbind "$folder" "$root$folder"
done
# Without what is mounted below it, such as the above.
checkout=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../..")
mkdir -p "$root$checkout"
mount --bind "$checkout" "$root$checkout"
# How this machine reaches its package index: names, pip's settings, certificates.
for file in /etc/hosts /etc/resolv.conf /etc/pip.conf "$HOME/.config/pip/pip.conf" \
  /etc/ssl/certs/ca-certificates.crt "${PIP_CERT:-}"; do
  if [[ -f $file ]]; then
    mkdir -p "$root${file%/*}"
    # A link would lead out of the root here.
    if [[ -L $root$file ]]; then rm "$root$file"; fi
    [[ -e $root$file ]] || : >"$root$file"
    mount --bind "$file" "$root$file"
  fi
done

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
[[ -d $root$PWD ]] || cd /
exec chroot "$root" /usr/bin/env --chdir="$PWD" "$@"
