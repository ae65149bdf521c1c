// Pins Prometheus operator, whose definitions (PodMonitor, ServiceMonitor, PrometheusRule) the chart's objects are checked
// against. `../../build-tools.sh prometheus-operator-crds` fetches them; nothing of it is built.
module switchboard.test/cluster/tools/prometheus-operator

go 1.26.0

require github.com/prometheus-operator/prometheus-operator v0.87.1
