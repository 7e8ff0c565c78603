#!/usr/bin/env bash
# Names exactly what this machine lacks for building Lateen and running its lab. Changes nothing.
set -uo pipefail
missing=0
need() { # what is missing, how to get it
    printf 'missing: %s\n     fix: %s\n' "$1" "$2" >&2
    missing=1
}
command -v cargo >/dev/null || need "a Rust toolchain" "https://rustup.rs, then open a new shell"
command -v cc >/dev/null || need "a C compiler (aws-lc is C)" "apt-get install gcc libc6-dev"
command -v unshare >/dev/null || need "unshare" "apt-get install util-linux"
command -v ip >/dev/null || need "ip (tests make network interfaces)" "apt-get install iproute2"
PATH=$PATH:/usr/sbin command -v nft >/dev/null || need "nft (tests read rules back)" "apt-get install nftables"
PATH=$PATH:/usr/sbin command -v iptables >/dev/null || need "iptables (its rules are tested too)" "apt-get install iptables"
PATH=/usr/lib/cni:/opt/cni/bin:/usr/libexec/cni command -v bridge >/dev/null ||
    need "CNI plugins (ours is tested behind them)" "apt-get install containernetworking-plugins"
command -v python3 >/dev/null || need "python3 (tests make packets with it)" "apt-get install python3"
if [ "$(id -u)" != 0 ]; then
    user=$(id -un)
    command -v newuidmap >/dev/null || need "newuidmap (the lab runs in a user namespace)" "sudo apt-get install uidmap"
    for file in /etc/subuid /etc/subgid; do
        grep -q "^$user:" "$file" 2>/dev/null ||
            need "a line for $user in $file" "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $user"
    done
    unshare --user true 2>/dev/null ||
        need "user namespaces for unprivileged users" "sudo sysctl -w kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000, or run as root"
fi
exit $missing
