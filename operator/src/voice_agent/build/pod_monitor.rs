//! The PodMonitor: Prometheus scrapes the admin door of every pod, as often as the autoscaler looks.

use crds::{MonitoringType, PodMonitorSettings};

use super::{AGENT_LABEL, metadata, selector};
use crate::foreign::{PodMetricsEndpoint, PodMonitor, PodMonitorSpec, Relabeling};
use crate::voice_agent::validate::ValidatedAgent;

pub(super) fn build(agent: &ValidatedAgent) -> Option<PodMonitor> {
    let settings = match agent.monitoring.kind {
        MonitoringType::None => return None,
        MonitoringType::PodMonitor => agent.monitoring.pod_monitor.clone().unwrap_or_default(),
    };
    let PodMonitorSettings { interval_seconds, labels } = settings;
    let mut metadata = metadata(agent);
    // Ours last: the operator finds its children by them.
    let ours = std::mem::take(metadata.labels.get_or_insert_default());
    metadata.labels.get_or_insert_default().extend(labels);
    metadata.labels.get_or_insert_default().extend(ours);
    Some(PodMonitor {
        metadata,
        spec: PodMonitorSpec {
            selector: selector(&agent.name),
            pod_metrics_endpoints: vec![PodMetricsEndpoint {
                port: "admin".to_owned(),
                path: "/metrics".to_owned(),
                interval: format!("{interval_seconds}s"),
                // Dashboards and alerts go by the agent's name, and by the chart's PodMonitor it is called so.
                relabelings: vec![Relabeling {
                    source_labels: vec![discovered(AGENT_LABEL)],
                    target_label: "agent".to_owned(),
                }],
            }],
        },
    })
}

/// A pod's label as Prometheus' discovery calls it.
fn discovered(label: &str) -> String {
    let name = label.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    format!("__meta_kubernetes_pod_label_{name}")
}
