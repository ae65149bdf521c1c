#!/usr/bin/env bash
# Finds, or builds once, the Kubernetes programs that the test cluster consists of, and prints
# `name=path` for each on stdout; progress goes to stderr. `tests/src/cluster/tools.rs` runs it and reads that.
#
# A program of a fitting version in $KUBEBUILDER_ASSETS or on $PATH is used as it is, so that nobody who has
# Kubernetes builds it. The rest is built from the Go modules pinned in tools/*/go.mod (about four minutes on
# two cores, once) into a cache that survives `cargo clean`, one folder per tool and version.
#
# With arguments (helm, kubeconform, prometheus, promtool, prometheus-adapter, or the definitions prometheus-operator-crds,
# keda-crds, gateway-api-crds) it finds or builds those instead: what only some tests need costs nobody else the minutes. They are always the pinned ones.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/switchboard

say() { printf '%s\n' "$*" >&2; }
fail() { say "build-tools: $*"; exit 1; }

# pinned TOOL MODULE: the version that tools/TOOL/go.mod requires of MODULE, on a line of its own or in a list.
pinned() {
    sed -nE "s,^(require )?\s*$2 (v[^ ]+).*,\2,p" "$here/tools/$1/go.mod"
}

# fingerprint FILE: stands for the version of what is built from a source of our own.
fingerprint() { cksum <"$1" | cut -d ' ' -f 1; }

# found NAME VERSION: a NAME outside the cache whose minor version is that of VERSION; nothing if there is none.
found() {
    local name=$1 minor=${2%.*} candidate says
    for candidate in ${KUBEBUILDER_ASSETS:+"$KUBEBUILDER_ASSETS/$name"} "$(command -v "$name" || true)"; do
        [ -x "$candidate" ] || continue
        if [ "$name" = kubectl ]; then
            says=$("$candidate" version --client 2>/dev/null || true)
        else
            says=$("$candidate" --version 2>/dev/null || true)
        fi
        [[ $says == *"$minor."* ]] || continue
        printf '%s' "$candidate"
        return
    done
}

# build TOOL VERSION LDFLAGS NAME=PACKAGE...: builds what the cache lacks, one at a time and whole or not at all.
build() {
    local tool=$1 version=$2 ldflags=$3 target started name
    shift 3
    target=$cache/$tool-$version
    mkdir -p "$target"
    exec 9>"$target/.lock"
    flock 9 # Two runs at once on one machine would build everything twice.
    for entry in "$@"; do
        name=${entry%%=*}
        [ -x "$target/$name" ] && continue
        command -v go >/dev/null || fail "$name $version has to be built, which needs Go 1.26 or newer on the PATH."
        say "building $name $version …"
        started=$SECONDS
        (cd "$here/tools/$tool" && CGO_ENABLED=0 go build -trimpath -ldflags "$ldflags" -o "$target/.$name" "${entry#*=}") >&2
        mv "$target/.$name" "$target/$name"
        say "built $name $version in $((SECONDS - started)) s"
    done
    exec 9>&-
}

# optional TOOL MODULE LDFLAGS NAME=PACKAGE: one program of the cache, built if it is not there yet.
optional() {
    local tool=$1 version name=${4%%=*}
    version=$(pinned "$tool" "$2")
    [ -x "$cache/$tool-$version/$name" ] || build "$tool" "$version" "${3//VERSION/$version}" "$4"
    printf '%s\n' "$name=$cache/$tool-$version/$name"
}

# definitions TOOL MODULE FOLDER FILE...: these files of a module in one file of the cache, named TOOL-crds.
definitions() {
    local tool=$1 module=$2 folder=$3 version target source
    shift 3
    version=$(pinned "$tool" "$module")
    target=$cache/$tool-$version/crds-$(printf '%s\n' "$@" | sha256sum | cut -c1-8).yaml
    if [ ! -s "$target" ]; then
        command -v go >/dev/null || fail "the definitions of $tool $version have to be fetched, which needs Go 1.26 or newer on the PATH."
        mkdir -p "${target%/*}"
        (cd "$here/tools/$tool" && go mod download "$module") >&2
        source=$(cd "$here/tools/$tool" && go list -m -f '{{.Dir}}' "$module")/$folder
        (cd "$source" && awk 'FNR == 1 { print "---" } 1' "$@") >"$target.$$"
        mv "$target.$$" "$target"
    fi
    printf '%s\n' "$tool-crds=$target"
}

for name in "$@"; do
    case $name in
    helm) optional helm helm.sh/helm/v4 '-s -w -X helm.sh/helm/v4/internal/version.version=VERSION' helm=helm.sh/helm/v4/cmd/helm ;;
    kubeconform) optional kubeconform github.com/yannh/kubeconform '-s -w -X main.version=VERSION' kubeconform=github.com/yannh/kubeconform/cmd/kubeconform ;;
    prometheus | promtool)
        # Of the ways to find targets only Kubernetes' own: the others are clouds' client libraries.
        GOFLAGS=-tags=remove_all_sd,enable_kubernetes_sd optional prometheus github.com/prometheus/prometheus \
            '-s -w -X github.com/prometheus/common/version.Version=VERSION' "$name=github.com/prometheus/prometheus/cmd/$name"
        ;;
    prometheus-adapter) optional prometheus-adapter sigs.k8s.io/prometheus-adapter '-s -w' prometheus-adapter=sigs.k8s.io/prometheus-adapter/cmd/adapter ;;
    prometheus-operator-crds)
        definitions prometheus-operator github.com/prometheus-operator/prometheus-operator example/prometheus-operator-crd \
            monitoring.coreos.com_{podmonitors,servicemonitors,prometheusrules}.yaml
        ;;
    keda-crds) definitions keda github.com/kedacore/keda/v2 config/crd/bases keda.sh_scaledobjects.yaml ;;
    gateway-api-crds) definitions gateway-api sigs.k8s.io/gateway-api config/crd/standard gateway.networking.k8s.io_{gateways,httproutes}.yaml ;;
    *) fail "there is no tool $name: helm, kubeconform, prometheus, promtool, prometheus-adapter, prometheus-operator-crds, keda-crds and gateway-api-crds can be asked for." ;;
    esac
done
[ $# -eq 0 ] || exit 0

kubernetes=$(pinned kubernetes k8s.io/kubernetes)
minor=${kubernetes#v1.}
minor=${minor%%.*}
# Without these every program says v0.0.0-master, and the API server picks its defaults by that.
ldflags="-s -w"
for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    ldflags+=" -X $package.gitVersion=$kubernetes -X $package.gitMajor=1 -X $package.gitMinor=$minor"
done

missing=()
lines=()
for name in kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl; do
    path=$(found "$name" "$kubernetes")
    if [ -z "$path" ]; then
        path=$cache/kubernetes-$kubernetes/$name
        [ -x "$path" ] || missing+=("$name=k8s.io/kubernetes/cmd/$name")
    fi
    lines+=("$name=$path")
done
[ ${#missing[@]} -eq 0 ] || build kubernetes "$kubernetes" "$ldflags" "${missing[@]}"

# Ours whatever is on the PATH: it is built with fewer plugins than usual, and tests/src/cluster/dns.rs counts on them.
coredns=$(pinned coredns github.com/coredns/coredns)-$(fingerprint "$here/tools/coredns/main.go")
[ -x "$cache/coredns-$coredns/coredns" ] || build coredns "$coredns" "-s -w" coredns=.
lines+=("coredns=$cache/coredns-$coredns/coredns")

pause=$cache/pause-$(fingerprint "$here/pause.c")/pause
if [ ! -x "$pause" ]; then
    command -v cc >/dev/null || fail "a C compiler (cc) is needed for the pods' pause program."
    mkdir -p "${pause%/*}"
    cc -static -Os -s -o "$pause.$$" "$here/pause.c" >&2
    mv "$pause.$$" "$pause"
fi
lines+=("pause=$pause")

printf '%s\n' "${lines[@]}"
