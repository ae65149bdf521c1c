// Pins the Gateway API, whose HTTPRoute the operator's routes are checked against. `../../build-tools.sh gateway-api-crds`
// fetches it; nothing of it is built.
module switchboard.test/cluster/tools/gateway-api

go 1.26.0

require sigs.k8s.io/gateway-api v1.4.1
