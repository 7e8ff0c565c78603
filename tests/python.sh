#!/usr/bin/env bash
# Prints the path of the Python modules that comparators and the gRPC peer of tests import, taken from PyPI once and kept in the user's cache.
set -euo pipefail
command -v pip3 >/dev/null || { echo "missing: pip3; fix: apt-get install python3-pip" >&2; exit 1; }
tag=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
home=${XDG_CACHE_HOME:-$HOME/.cache}/lateen/python-$tag
if ! PYTHONPATH=$home python3 -c 'import yaml, jsonpatch, grpc' 2>/dev/null; then
    pip3 install --quiet --disable-pip-version-check --root-user-action=ignore \
        --target "$home" PyYAML==6.0.3 jsonpatch==1.33 grpcio==1.85.1 >&2
fi
echo "$home"
