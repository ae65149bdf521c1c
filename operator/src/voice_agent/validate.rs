//! Raw spec and what it refers to become a [`ValidatedAgent`]: the single input of the build steps.

use call_session::agent_file::{AgentFile, NumberRoutes};
use crds::{
    Autoscaler, Builtin, ExposureType, External, HTTPRouteExposure, IngressExposure, Monitoring,
    NetworkPolicy, ScalingType, SecretKeyRef, VoiceAgent, VoiceGateway,
};
use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource as _, ResourceExt as _};

use super::agent_file::{self, Invalid, OverflowAgent, Sources};
use super::build::deployment::{DRAIN_WINDOW, grace_period};
use crate::context::Surroundings;

/// What a validated agent is made of.
#[derive(Clone, Debug)]
pub struct Resolved<'a> {
    /// The agent.
    pub agent: &'a VoiceAgent,
    /// Its gateway.
    pub gateway: &'a VoiceGateway,
    /// Its instructions.
    pub instructions: String,
    /// Numbers that enter through it.
    pub numbers: Vec<NumberRoutes>,
    /// Whether calls can go to the agent that its overflow names.
    pub overflow_agent: OverflowAgent,
    /// The image of its pods.
    pub image: String,
    /// What the operator was installed with.
    pub surroundings: &'a Surroundings,
}

/// An agent that can be built.
#[derive(Clone, Debug)]
pub struct ValidatedAgent {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What its children carry.
    pub owner: Option<OwnerReference>,
    /// Its gateway's name.
    pub gateway: String,
    /// The document for its pods.
    pub file: AgentFile,
    /// Every Secret key that is mounted, sorted.
    pub secret_keys: Vec<SecretKeyRef>,
    /// Who decides on the number of pods.
    pub scale: Scale,
    /// How its URL reaches the pods.
    pub exposure: Exposure,
    /// The media pods' image.
    pub image: String,
    /// Who reaches the pods.
    pub network_policy: NetworkPolicy,
    /// Who scrapes them.
    pub monitoring: Monitoring,
    /// What the operator was installed with.
    pub surroundings: Surroundings,
    /// What the user merges over the pod template.
    pub pod_template: Option<PodTemplateSpec>,
}

/// Who decides on the number of pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scale {
    /// A HorizontalPodAutoscaler on live calls.
    Autoscaler(Autoscaler),
    /// The operator's scaler.
    Builtin(Builtin),
    /// Somebody else.
    External(External),
    /// The spec.
    Manual {
        /// This many.
        replicas: i32,
    },
}

/// How the agent's URL reaches the pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exposure {
    /// By an Ingress for this host.
    Ingress {
        /// The public URL's host, without the port.
        host: String,
        /// The user's settings.
        settings: IngressExposure,
    },
    /// By an HTTPRoute for this host.
    HTTPRoute {
        /// The public URL's host, without the port.
        host: String,
        /// The user's settings.
        settings: HTTPRouteExposure,
    },
    /// The user routes.
    None,
}

impl ValidatedAgent {
    /// Where the carrier reaches the agent.
    pub fn url(&self) -> String {
        format!("{}/{}/{}", self.file.public_url, self.namespace, self.name)
    }

    /// Seconds a pod's calls may go on after SIGTERM.
    pub const fn drain_window(&self) -> u32 {
        self.file.drain.window_seconds
    }
}

/// Checks, and renders what is rendered once.
pub fn validate(resolved: Resolved<'_>) -> Result<ValidatedAgent, Invalid> {
    let Resolved { agent, gateway, instructions, numbers, overflow_agent, image, surroundings } = resolved;
    let (namespace, name) = (agent.namespace().unwrap_or_default(), agent.name_any());
    check_edge_drain(agent, gateway)?;
    let file = agent_file::render(Sources {
        namespace: &namespace,
        name: &name,
        agent: &agent.spec,
        gateway: &gateway.spec,
        instructions,
        numbers,
        overflow_agent,
    })?;
    Ok(ValidatedAgent {
        owner: agent.controller_owner_ref(&()),
        gateway: gateway.name_any(),
        secret_keys: agent_file::secret_keys(&agent.spec, &gateway.spec),
        scale: scale(agent)?,
        exposure: exposure(gateway)?,
        image,
        network_policy: agent.spec.network_policy.clone(),
        monitoring: agent.spec.monitoring.clone(),
        surroundings: surroundings.clone(),
        pod_template: pod_template(agent)?,
        namespace,
        name,
        file,
    })
}

fn scale(agent: &VoiceAgent) -> Result<Scale, Invalid> {
    let scaling = &agent.spec.scaling;
    match scaling.kind {
        ScalingType::Autoscaler => Ok(Scale::Autoscaler(scaling.autoscaler.clone().unwrap_or_default())),
        ScalingType::Builtin => Ok(Scale::Builtin(scaling.builtin.clone().unwrap_or_default())),
        ScalingType::External => Ok(Scale::External(scaling.external.clone().unwrap_or_default())),
        ScalingType::Manual => {
            let missing = Invalid::MissingMember { path: "scaling", kind: "Manual", member: "manual" };
            Ok(Scale::Manual { replicas: scaling.manual.as_ref().ok_or(missing)?.replicas })
        }
    }
}

fn exposure(gateway: &VoiceGateway) -> Result<Exposure, Invalid> {
    let exposure = &gateway.spec.exposure;
    match exposure.kind {
        ExposureType::None => Ok(Exposure::None),
        ExposureType::HTTPRoute => {
            let missing = Invalid::MissingMember { path: "exposure", kind: "HTTPRoute", member: "httpRoute" };
            let settings = exposure.http_route.clone().ok_or(missing)?;
            Ok(Exposure::HTTPRoute { host: host(&gateway.spec.public_url)?.to_owned(), settings })
        }
        ExposureType::Ingress => {
            let settings = exposure.ingress.clone().unwrap_or_default();
            Ok(Exposure::Ingress { host: host(&gateway.spec.public_url)?.to_owned(), settings })
        }
    }
}

/// The edge must not let go of a pod's connections before the pod does.
fn check_edge_drain(agent: &VoiceAgent, gateway: &VoiceGateway) -> Result<(), Invalid> {
    let pod = grace_period(agent.spec.drain.window_seconds);
    match gateway.spec.exposure.drain_seconds {
        Some(edge) if edge < pod => Err(Invalid::EdgeDrain { pod, edge }),
        Some(_) | None => Ok(()),
    }
}

/// The host of a public URL, without port and path. IPv6 literals have no place in an Ingress.
fn host(url: &str) -> Result<&str, Invalid> {
    let rest = url.strip_prefix("https://").ok_or(Invalid::PublicUrl)?;
    let authority = rest.split('/').next().unwrap_or_default();
    let host = authority.split(':').next().unwrap_or_default();
    if host.is_empty() || host.starts_with('[') { Err(Invalid::PublicUrl) } else { Ok(host) }
}

fn pod_template(agent: &VoiceAgent) -> Result<Option<PodTemplateSpec>, Invalid> {
    let Some(template) = &agent.spec.pod_template else { return Ok(None) };
    let template: PodTemplateSpec = serde_json::from_value(serde_json::Value::Object(template.0.clone()))
        .map_err(|e| Invalid::PodTemplate(e.to_string()))?;
    if let Some(pod) = &template.spec {
        check_drain_chain(agent, pod)?;
    }
    Ok(Some(template))
}

/// The user's pod template may give a leaving pod more time than it takes, but not less.
fn check_drain_chain(agent: &VoiceAgent, template: &PodSpec) -> Result<(), Invalid> {
    let pod = i64::from(grace_period(agent.spec.drain.window_seconds));
    if let Some(grace) = template.termination_grace_period_seconds.filter(|grace| *grace < pod) {
        return Err(Invalid::GracePeriod { pod, grace });
    }
    let mut variables = template.containers.iter().flat_map(|container| container.env.iter().flatten());
    if variables.any(|variable| variable.name == DRAIN_WINDOW) {
        return Err(Invalid::DrainWindow);
    }
    Ok(())
}
