//! The PodMonitor: Prometheus scrapes the admin door of every pod, as often as the autoscaler looks.

use crds::{MonitoringType, PodMonitorSettings};

use super::{AGENT_LABEL, metadata, selector};
use crate::foreign::{PodMetricsEndpoint, PodMonitor, PodMonitorSpec};
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
            // Dashboards and alerts go by the agent's name.
            pod_target_labels: vec![AGENT_LABEL.to_owned()],
            pod_metrics_endpoints: vec![PodMetricsEndpoint {
                port: "admin".to_owned(),
                path: "/metrics".to_owned(),
                interval: format!("{interval_seconds}s"),
            }],
        },
    })
}
