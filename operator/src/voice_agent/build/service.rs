//! The Service: public door and API door. The admin door is on the pods only.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::deployment::{API_PORT, PUBLIC_PORT};
use super::{metadata, selector_labels};
use crate::voice_agent::validate::ValidatedAgent;

pub(super) fn build(agent: &ValidatedAgent) -> Service {
    Service {
        metadata: metadata(agent),
        spec: Some(ServiceSpec {
            selector: Some(selector_labels(&agent.name)),
            ports: Some(vec![
                // Media streams are WebSockets; edges that look at this keep the connection open.
                port("public", PUBLIC_PORT, Some("kubernetes.io/ws")),
                port("api", API_PORT, None),
            ]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

fn port(name: &str, port: i32, app_protocol: Option<&str>) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port,
        target_port: Some(IntOrString::String(name.to_owned())),
        protocol: Some("TCP".to_owned()),
        app_protocol: app_protocol.map(str::to_owned),
        ..ServicePort::default()
    }
}
