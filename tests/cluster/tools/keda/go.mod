// Pins KEDA, whose definition of ScaledObject the sample is checked against. `../../build-tools.sh keda-crds` fetches it;
// nothing of it is built.
module switchboard.test/cluster/tools/keda

go 1.26.0

require github.com/kedacore/keda/v2 v2.18.1
