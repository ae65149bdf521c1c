#!/usr/bin/env bash
# Installs the Debian packages that the test cluster and its neighbours need, and only those that are missing.
# It starts no service: the cluster runs its own containerd and redis, and the machine's stay as they were.
set -euo pipefail

packages=(
    ca-certificates                # what an image needs to call out over TLS
    conntrack iproute2 iptables    # kube-proxy, and the cluster's own network namespace
    containerd runc                # the node's container runtime
    containernetworking-plugins    # the pods' network (bridge, host-local)
    espeak-ng                      # speech for simulated callers
    etcd-client etcd-server        # the API server's storage
    g++                            # libFuzzer, which the fuzz targets are linked with
    nginx                          # the public edge: TLS between the carrier and the pods
    python3-venv                   # the official SDKs against the simulator
    redis-server                   # the call store
    util-linux                     # nsenter, flock, mount
)

say() { printf '%s\n' "$*" >&2; }

if ! command -v dpkg-query >/dev/null; then
    say "install-packages: this is not Debian or a descendant; install the equals of: ${packages[*]}"
    exit 1
fi

missing=()
for package in "${packages[@]}"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
    say "install-packages: root is needed to install ${missing[*]}; run this script with sudo."
    exit 1
fi

# Package scripts ask policy-rc.d before they start a daemon; 101 means "not allowed". An existing policy is put
# back afterwards, whatever happens.
policy=/usr/sbin/policy-rc.d
saved=$(mktemp -d)
restore() {
    rm -f "$policy"
    if [ -e "$saved/policy-rc.d" ]; then cp -a "$saved/policy-rc.d" "$policy"; fi
    rm -rf "$saved"
}
trap restore EXIT
if [ -e "$policy" ]; then cp -a "$policy" "$saved/policy-rc.d"; fi
printf '#!/bin/sh\nexit 101\n' >"$policy"
chmod 755 "$policy"

export DEBIAN_FRONTEND=noninteractive
say "installing ${missing[*]} …"
apt-get update -qq >&2
apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
say "installed ${missing[*]}"
