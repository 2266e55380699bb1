#!/bin/sh
# Installs what the build needs and this Debian or Ubuntu machine lacks. Says what to run when it may not install.
#   setup.sh [--dev]    --dev: also what `make lint` and `make fuzz` use
set -eu
packages="build-essential pkg-config zlib1g-dev libcjson-dev libopenblas-dev liblapacke-dev libpcre2-dev libutf8proc-dev libcmocka-dev"
[ "${1-}" = --dev ] && packages="$packages clang clang-format"

command -v dpkg-query >/dev/null 2>&1 || exit 0 # not Debian: the compiler's own messages will say what is missing
missing=
for p in $packages; do
    dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
done
[ -z "$missing" ] && exit 0

if [ "$(id -u)" = 0 ]; then
    sudo=
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
    sudo=sudo
else
    echo "Tegu needs these packages; please run:" >&2
    echo "    sudo apt-get install$missing" >&2
    exit 1
fi
echo "installing$missing" >&2
export DEBIAN_FRONTEND=noninteractive
# An image without package lists has to fetch them first; one with current lists need not.
if ! $sudo apt-get install -y -q --no-install-recommends $missing >/dev/null 2>&1; then
    $sudo apt-get update -q >/dev/null
    $sudo apt-get install -y -q --no-install-recommends $missing >/dev/null
fi
