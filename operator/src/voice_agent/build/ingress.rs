//! The Ingress: one path per agent on the gateway's host, so that agents come and go without touching each other.

use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, HTTPIngressRuleValue, Ingress, IngressBackend, IngressRule, IngressServiceBackend,
    IngressSpec, IngressTLS, ServiceBackendPort,
};

use super::{child_name, metadata, public_path};
use crate::voice_agent::validate::{Exposure, ValidatedAgent};

pub(super) fn build(agent: &ValidatedAgent) -> Option<Ingress> {
    let Exposure::Ingress { host, settings } = &agent.exposure else { return None };
    let mut metadata = metadata(agent);
    metadata.annotations = Some(settings.annotations.clone()).filter(|a| !a.is_empty());
    let path = HTTPIngressPath {
        path: Some(public_path(agent)),
        path_type: "Prefix".to_owned(),
        backend: IngressBackend {
            service: Some(IngressServiceBackend {
                name: child_name(&agent.name),
                port: Some(ServiceBackendPort { name: Some("public".to_owned()), number: None }),
            }),
            resource: None,
        },
    };
    Some(Ingress {
        metadata,
        spec: Some(IngressSpec {
            ingress_class_name: settings.class_name.clone(),
            rules: Some(vec![IngressRule {
                host: Some(host.clone()),
                http: Some(HTTPIngressRuleValue { paths: vec![path] }),
            }]),
            tls: settings.tls_secret_name.clone().map(|secret| {
                vec![IngressTLS { hosts: Some(vec![host.clone()]), secret_name: Some(secret) }]
            }),
            default_backend: None,
        }),
        ..Ingress::default()
    })
}
