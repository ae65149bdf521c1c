//! The HTTPRoute: one path per agent on the gateway's host, as the Ingress has it. A call is one request, so it has no
//! time limit here; idle timeouts are the Gateway implementation's own setting.

use super::deployment::PUBLIC_PORT;
use super::{child_name, metadata, public_path};
use crate::foreign::{
    BackendRef, HTTPRoute, HTTPRouteSpec, ParentRef, PathMatch, RouteMatch, RouteRule, RouteTimeouts,
};
use crate::voice_agent::validate::{Exposure, ValidatedAgent};

pub(super) fn build(agent: &ValidatedAgent) -> Option<HTTPRoute> {
    let Exposure::HTTPRoute { host, settings } = &agent.exposure else { return None };
    let parents = settings.parent_refs.iter().map(|parent| ParentRef {
        name: parent.name.clone(),
        namespace: parent.namespace.clone(),
        section_name: parent.section_name.clone(),
    });
    let rule = RouteRule {
        matches: vec![RouteMatch {
            path: PathMatch { kind: "PathPrefix".to_owned(), value: public_path(agent) },
        }],
        timeouts: RouteTimeouts { request: "0s".to_owned() },
        backend_refs: vec![BackendRef { name: child_name(&agent.name), port: PUBLIC_PORT }],
    };
    Some(HTTPRoute {
        metadata: metadata(agent),
        spec: HTTPRouteSpec {
            parent_refs: parents.collect(),
            hostnames: vec![host.clone()],
            rules: vec![rule],
        },
    })
}
