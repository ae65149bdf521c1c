//! The Deployment of media pods: restricted by Pod Security's strictest profile, and without the number of pods, which
//! somebody else writes.
//!
//! Mounts, ports and environment are the interface with the media pod (docs/design.md, "What the operator gives a media
//! pod"). There is no preStop hook: the pod itself admits calls for a while after SIGTERM.

use std::collections::BTreeMap;

use call_session::agent_file::KEYRING_FILE;
use k8s_openapi::DeepMerge as _;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EnvVar, EnvVarSource, HTTPGetAction,
    KeyToPath, ObjectFieldSelector, PodSecurityContext, PodSpec, PodTemplateSpec, Probe,
    ProjectedVolumeSource, ResourceRequirements, SeccompProfile, SecretProjection, SecretVolumeSource,
    SecurityContext, TopologySpreadConstraint, Volume, VolumeMount, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{child_name, labels, metadata, selector};
use crate::voice_agent::validate::ValidatedAgent;
use crate::voice_gateway::keyring::secret_name;

pub(super) const PUBLIC_PORT: i32 = 8080;
pub(super) const API_PORT: i32 = 8081;
/// Probes, metrics, load; on the pods only.
pub const ADMIN_PORT: i32 = 9090;
const CONTAINER: &str = "media";
/// What tells a pod its drain window.
pub const DRAIN_WINDOW: &str = "SWITCHBOARD_DRAIN_WINDOW_SECONDS";
/// The user of the image, and of files it may read.
const USER: i64 = 65532;
/// Between the end of the drain window and SIGKILL: handing calls over, closing sockets, flushing.
const GRACE_MARGIN_SECONDS: u32 = 30;

/// Seconds that a pod with this drain window is given to end.
pub const fn grace_period(window_seconds: u32) -> u32 {
    window_seconds.saturating_add(GRACE_MARGIN_SECONDS)
}

pub(super) fn build(agent: &ValidatedAgent) -> Deployment {
    Deployment {
        metadata: metadata(agent),
        spec: Some(DeploymentSpec {
            selector: selector(&agent.name),
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::String("25%".to_owned())),
                    // A pod leaves only after its successor serves.
                    max_unavailable: Some(IntOrString::Int(0)),
                }),
            }),
            template: template(agent),
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    }
}

/// The media container's image of a Deployment.
pub fn media_image(deployment: &Deployment) -> Option<&String> {
    let pod = deployment.spec.as_ref()?.template.spec.as_ref()?;
    pod.containers.iter().find(|c| c.name == CONTAINER)?.image.as_ref()
}

/// Ours, then the user's merged over it; the labels by which pods are found stay ours.
fn template(agent: &ValidatedAgent) -> PodTemplateSpec {
    let mut template = PodTemplateSpec {
        metadata: Some(ObjectMeta { labels: Some(labels(&agent.name)), ..ObjectMeta::default() }),
        spec: Some(pod(agent)),
    };
    if let Some(user) = agent.pod_template.clone() {
        template.merge_from(user);
        let metadata = template.metadata.get_or_insert_default();
        metadata.labels.get_or_insert_default().extend(labels(&agent.name));
    }
    template
}

fn pod(agent: &ValidatedAgent) -> PodSpec {
    PodSpec {
        service_account_name: Some(child_name(&agent.name)),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(grace_period(agent.drain_window()).into()),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                ..SeccompProfile::default()
            }),
            ..PodSecurityContext::default()
        }),
        topology_spread_constraints: Some(vec![TopologySpreadConstraint {
            max_skew: 1,
            topology_key: "kubernetes.io/hostname".to_owned(),
            when_unsatisfiable: "ScheduleAnyway".to_owned(),
            label_selector: Some(selector(&agent.name)),
            ..TopologySpreadConstraint::default()
        }]),
        containers: vec![container(agent)],
        volumes: Some(volumes(agent)),
        ..PodSpec::default()
    }
}

fn container(agent: &ValidatedAgent) -> Container {
    Container {
        name: CONTAINER.to_owned(),
        image: Some(agent.image.clone()),
        ports: Some(vec![port("public", PUBLIC_PORT), port("api", API_PORT), port("admin", ADMIN_PORT)]),
        env: Some(environment(agent)),
        resources: Some(ResourceRequirements {
            requests: Some(quantities([("cpu", "100m"), ("memory", "64Mi")])),
            limits: Some(quantities([("memory", "256Mi")])),
            ..ResourceRequirements::default()
        }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            ..SecurityContext::default()
        }),
        // A pod starts within a second; a minute covers slow secrets and DNS.
        startup_probe: Some(probe("/readyz", 1, 60)),
        readiness_probe: Some(probe("/readyz", 5, 2)),
        liveness_probe: Some(probe("/livez", 10, 3)),
        volume_mounts: Some(vec![
            mount("agent", "/etc/switchboard/agent"),
            mount("keyring", "/etc/switchboard/keyring"),
            mount("secrets", "/etc/switchboard/secrets"),
        ]),
        ..Container::default()
    }
}

fn environment(agent: &ValidatedAgent) -> Vec<EnvVar> {
    vec![
        EnvVar {
            name: "SWITCHBOARD_POD_NAME".to_owned(),
            value_from: Some(EnvVarSource {
                field_ref: Some(ObjectFieldSelector {
                    api_version: Some("v1".to_owned()),
                    field_path: "metadata.name".to_owned(),
                }),
                ..EnvVarSource::default()
            }),
            ..EnvVar::default()
        },
        // What this pod's grace period was made for, whatever the agent file says later.
        EnvVar {
            name: DRAIN_WINDOW.to_owned(),
            value: Some(agent.drain_window().to_string()),
            ..EnvVar::default()
        },
    ]
}

/// Directories without `subPath`, so that the kubelet keeps them current.
fn volumes(agent: &ValidatedAgent) -> Vec<Volume> {
    vec![
        Volume {
            name: "agent".to_owned(),
            config_map: Some(ConfigMapVolumeSource {
                name: child_name(&agent.name),
                ..ConfigMapVolumeSource::default()
            }),
            ..Volume::default()
        },
        Volume {
            name: "keyring".to_owned(),
            secret: Some(SecretVolumeSource {
                secret_name: Some(secret_name(&agent.gateway)),
                items: Some(vec![item(KEYRING_FILE, KEYRING_FILE)]),
                default_mode: Some(FILE_MODE),
                ..SecretVolumeSource::default()
            }),
            ..Volume::default()
        },
        Volume {
            name: "secrets".to_owned(),
            projected: Some(ProjectedVolumeSource {
                sources: Some(secrets(agent)),
                default_mode: Some(FILE_MODE),
            }),
            ..Volume::default()
        },
    ]
}

/// Owner and group may read.
const FILE_MODE: i32 = 0o440;

/// Each Secret as a directory with the named keys only.
fn secrets(agent: &ValidatedAgent) -> Vec<VolumeProjection> {
    agent
        .secret_keys
        .chunk_by(|a, b| a.name == b.name)
        .filter_map(|keys| keys.first().map(|first| (first.name.clone(), keys)))
        .map(|(name, keys)| VolumeProjection {
            secret: Some(SecretProjection {
                items: Some(keys.iter().map(|k| item(&k.key, &format!("{name}/{}", k.key))).collect()),
                name,
                optional: None,
            }),
            ..VolumeProjection::default()
        })
        .collect()
}

fn item(key: &str, path: &str) -> KeyToPath {
    KeyToPath { key: key.to_owned(), path: path.to_owned(), mode: None }
}

fn port(name: &str, port: i32) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: port,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

fn mount(name: &str, path: &str) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    }
}

fn probe(path: &str, period_seconds: i32, failure_threshold: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("admin".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        failure_threshold: Some(failure_threshold),
        timeout_seconds: Some(2),
        ..Probe::default()
    }
}

fn quantities<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, Quantity> {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), Quantity(value.to_owned()))).collect()
}
