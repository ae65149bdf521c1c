//! The way in: what is known of Ingress controllers and long connections, and whether the carrier gets through.
//!
//! A call is one WebSocket. The caller's side of it is never quiet, but the agent's is: for as long as the caller talks,
//! or both are silent. And every controller has moments when it drops connections that are not over.

use std::time::Duration;

use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::ResourceExt as _;

use super::{Findings, readable};
use crate::doctor::facts::{Facts, UrlFacts, key};
use crate::doctor::report::{Check, Finding, Severity};

/// What is known of a controller, by the name that its IngressClass has.
struct Controller {
    /// Exactly, or everything that starts with it.
    name: &'static str,
    /// What it does to long connections, in a sentence.
    caution: &'static str,
    /// What to do about it.
    remedy: &'static str,
}

/// ingress-nginx is looked at in more detail, see [`nginx`].
const NGINX: &str = "k8s.io/ingress-nginx";
/// Its default for the time between two reads or writes.
const NGINX_QUIET: Duration = Duration::from_secs(60);
/// Its default for how long old workers live after a reload.
const NGINX_WORKERS: Duration = Duration::from_secs(240);

/// From the controllers' own documentation.
const CONTROLLERS: [Controller; 9] = [
    Controller {
        name: "nginx.org/ingress-controller",
        caution: "closes a connection on which nothing is read for 60 s, and at a reload lets old workers go on without end",
        remedy: "set the annotations nginx.org/proxy-read-timeout and nginx.org/proxy-send-timeout to 3600s, and \
                 nginx.org/websocket-services",
    },
    Controller {
        name: "traefik.io/ingress-controller",
        caution: "gives connections 10 s when one of its own pods goes (transport.lifeCycle.graceTimeOut)",
        remedy: "set graceTimeOut of the entry point, and the pods' grace period, to the longest call",
    },
    Controller {
        name: "haproxy",
        caution: "closes tunnels that are quiet for timeout-tunnel (1 h) and, after a reload, old ones by timeout-stop",
        remedy: "keep timeout-tunnel at 1 h or more and set timeout-stop to the longest call",
    },
    Controller {
        name: "ingress.k8s.aws/alb",
        caution: "closes connections that are quiet for 60 s, and 300 s after a target is deregistered",
        remedy: "set idle_timeout.timeout_seconds=3600 in alb.ingress.kubernetes.io/load-balancer-attributes and \
                 deregistration_delay.timeout_seconds in target-group-attributes to the drain window or more",
    },
    Controller {
        name: "k8s.io/ingress-gce",
        caution: "ends every WebSocket after 30 s, however busy, unless a BackendConfig says otherwise",
        remedy: "set timeoutSec and connectionDraining.drainingTimeoutSec in a BackendConfig for the Service: the first to \
                 the longest call, the second to the drain window",
    },
    Controller {
        name: "azure/application-gateway",
        caution: "closes connections that are quiet for 30 s, and draining is off",
        remedy: "set appgw.ingress.kubernetes.io/request-timeout and connection-draining-timeout",
    },
    Controller {
        name: "projectcontour.io/",
        caution: "gives connections 300 s when Envoy goes",
        remedy: "run the shutdown manager with a wait of the longest call",
    },
    Controller {
        name: "istio.io/ingress-controller",
        caution: "gives connections 5 s when a gateway's pod goes (terminationDrainDuration)",
        remedy: "set terminationDrainDuration and the gateway's grace period to the longest call",
    },
    Controller {
        name: "cilium.io/ingress-controller",
        caution: "closes streams that are quiet for 300 s",
        remedy: "raise the idle timeout in CiliumEnvoyConfig, or keep limits.silenceSeconds below it",
    },
];

pub(super) fn ingresses(facts: &Facts) -> Vec<Finding> {
    let mut findings = Findings::of(Check::Edge);
    let Some(ingresses) = findings.known("", &facts.ingresses) else { return findings.found };
    if ingresses.is_empty() {
        return findings
            .or_ok("no agent has an Ingress: how your own edge treats quiet connections is not looked at");
    }
    let Some(classes) = findings.known("", &facts.classes) else { return findings.found };
    for ingress in ingresses {
        let subject = key(ingress);
        let wanted = ingress.spec.as_ref().and_then(|spec| spec.ingress_class_name.as_deref());
        let Some(class) = class(classes, wanted) else {
            findings.add(
                Severity::Failure,
                &subject,
                match wanted {
                    Some(name) => format!("there is no IngressClass {name}"),
                    None => "it names no class, and the cluster has no default".to_owned(),
                },
                "name an existing class in the gateway's exposure.ingress.className",
            );
            continue;
        };
        let controller = class.spec.as_ref().and_then(|spec| spec.controller.as_deref()).unwrap_or_default();
        if controller == NGINX {
            nginx(facts, ingress, &mut findings);
        } else if let Some(known) = CONTROLLERS.iter().find(|known| controller.starts_with(known.name)) {
            findings.add(
                Severity::Warning,
                &subject,
                format!("{controller} {}", known.caution),
                known.remedy,
            );
        } else {
            findings.add(
                Severity::Unknown,
                &subject,
                format!("nothing is known of {controller}"),
                "make sure that it keeps connections that are quiet for minutes, and for how long it keeps them when it \
                 is reloaded or its pods go",
            );
        }
    }
    findings.or_ok("the way in keeps long, quiet connections")
}

fn class<'a>(classes: &'a [IngressClass], wanted: Option<&str>) -> Option<&'a IngressClass> {
    const DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";
    classes.iter().find(|class| match wanted {
        Some(name) => class.name_any() == name,
        None => class.annotations().get(DEFAULT).is_some_and(|value| value == "true"),
    })
}

/// ingress-nginx: how long the agent may be silent, and what a reload does.
fn nginx(facts: &Facts, ingress: &Ingress, findings: &mut Findings) {
    let subject = key(ingress);
    let controllers = facts.nginx.as_deref().unwrap_or_default();
    let global =
        |name: &str| controllers.iter().filter_map(|settings| settings.get(name)).find_map(|s| duration(s));
    // The agent's silence is what the proxy does not read, the caller's is what it does not write.
    for direction in ["read", "send"] {
        let name = format!("proxy-{direction}-timeout");
        let annotation = ingress.annotations().get(&format!("nginx.ingress.kubernetes.io/{name}"));
        let timeout =
            annotation.and_then(|value| duration(value)).or_else(|| global(&name)).unwrap_or(NGINX_QUIET);
        if timeout < Duration::from_secs(600) {
            findings.add(
                Severity::Failure,
                &subject,
                format!("ingress-nginx ends a call on which one side is silent for {} ({name})", readable(timeout)),
                format!("set nginx.ingress.kubernetes.io/{name} to \"3600\" in the gateway's exposure.ingress.annotations"),
            );
        }
    }
    let longest = facts
        .agents
        .as_deref()
        .unwrap_or_default()
        .iter()
        .map(|agent| agent.spec.limits.max_call_seconds)
        .max();
    let longest = Duration::from_secs(longest.unwrap_or_default().into());
    let workers = global("worker-shutdown-timeout").unwrap_or(NGINX_WORKERS);
    if workers < longest {
        findings.add(
            Severity::Warning,
            &subject,
            format!(
                "ingress-nginx cuts the calls that are left {} after each of its reloads, which any Ingress of the cluster \
                 causes; calls may last {}",
                readable(workers),
                readable(longest)
            ),
            format!("set worker-shutdown-timeout to \"{}s\" in the controller's ConfigMap", longest.as_secs()),
        );
    }
}

/// `60`, `60s`, `4m`, `1h`: as nginx reads it.
fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let (number, factor) = match text.as_bytes().last()? {
        b's' => (&text[..text.len() - 1], 1),
        b'm' => (&text[..text.len() - 1], 60),
        b'h' => (&text[..text.len() - 1], 3600),
        _ => (text, 1),
    };
    Some(Duration::from_secs(number.parse::<u64>().ok()?.checked_mul(factor)?))
}

pub(super) fn public_urls(facts: &Facts) -> Vec<Finding> {
    let mut findings = Findings::of(Check::PublicUrl);
    for (gateway, UrlFacts { url, addresses, status }) in &facts.urls {
        match (addresses, status) {
            (Err(why), _) => findings.add(
                Severity::Failure,
                gateway,
                format!("{url}: its host has no address here: {why}"),
                "make a DNS record for it, or correct publicUrl",
            ),
            (Ok(_), Err(why)) => findings.add(
                Severity::Failure,
                gateway,
                format!("{url} does not answer: {why}"),
                "check the load balancer, its certificate and its firewall: the carrier must reach it from the internet",
            ),
            // What a media pod says to whom cannot sign.
            (Ok(_), Ok(403)) => {}
            (Ok(_), Ok(404)) => findings.add(
                Severity::Failure,
                gateway,
                format!("{url} answers 404: the way in does not lead to the agent"),
                "check the Ingress of the agent and its class, or your own routes",
            ),
            (Ok(_), Ok(status @ 500..)) => findings.add(
                Severity::Failure,
                gateway,
                format!("{url} answers {status}: the way in reaches no pod"),
                "check that the agent's pods are ready",
            ),
            (Ok(_), Ok(status)) => findings.add(
                Severity::Warning,
                gateway,
                format!("{url} answers {status} where a media pod answers 403"),
                "check what is in between: the carrier cannot log in, solve puzzles or follow redirects",
            ),
        }
    }
    findings.or_ok(if facts.urls.is_empty() {
        "no public URL was asked"
    } else {
        "every public URL leads to a media pod"
    })
}
