#!/usr/bin/env bash
# Runs the demo, and the tests that make namespaces, as an ordinary user: for when root runs the tests.
# Usage: tests/unprivileged.sh TARGET-DIR; other users must be able to read it, as /var/tmp is.
# The user and its subordinate ids are made for this and removed again.
set -euo pipefail
cd "$(dirname "$0")/.."
target=$1
# Built for the whole workspace, as everywhere, so that nothing is built a second time.
programs=$(CARGO_TARGET_DIR=$target cargo test --locked --workspace --no-run --message-format=json --tests 2>/dev/null |
    sed -n 's/.*"manifest_path":"[^"]*\/\(interception\|cni\|lab\)\/Cargo.toml".*"kind":\["test"\].*"executable":"\([^"]*\)".*/\2/p')
[ -n "$programs" ] || { echo "no test programs in $target" >&2; exit 1; }
user=lateen-test-$$
useradd --create-home "$user"
home=$(getent passwd "$user" | cut -d: -f6)
trap 'pkill -KILL -u "$user" || true; userdel --remove "$user" 2>/dev/null' EXIT
cd "$home"
run() { runuser -u "$user" -- env HOME="$home" PATH="$PATH:/usr/sbin" "$@"; }
for program in $programs; do
    run "$program"
done
run "$target/release/lateen" demo
