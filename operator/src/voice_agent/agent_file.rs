//! The spec of an agent as its pods load it: `crds` types to `call_session::agent_file` types, and the revision.
//!
//! Pure, and the same for `switchboard render` and the operator. What the API server's rules already refuse is an
//! [`Invalid`] here, because objects from before a rule was added still exist.

use call_session::{AccountSid, Redacted, agent_file as file};
use crds::{
    CarrierType, Eagerness, Engine, EngineType, GreetingInterruption, InterruptionMode, NoiseReduction,
    Overflow, OverflowType, Persona, RealtimeEngine, RecoveryType, SecretKeyRef, ServerVad, StoreType,
    TransferTarget, TurnDetection, TurnDetectionType, VoiceAgentSpec, VoiceGatewaySpec,
};
use sha2::{Digest, Sha256};

use crate::references::Missing;

/// A spec that contradicts itself; the sentence says what to change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// A union without the member its type needs.
    #[error("{path}: type {kind} needs its settings: add the field {member}")]
    MissingMember {
        /// Where.
        path: &'static str,
        /// The type.
        kind: &'static str,
        /// The member that is missing.
        member: &'static str,
    },
    /// The account's identifier has another shape.
    #[error("carrier.twilio.accountSid of the gateway must be AC and 32 hexadecimal digits")]
    AccountSid,
    /// Neither or both kinds of instructions.
    #[error("persona.instructions must have exactly one of text and configMapKeyRef")]
    Instructions,
    /// The pod template is not one.
    #[error("podTemplate is not a pod template: {0}")]
    PodTemplate(String),
    /// The user's pod template lets pods be killed before their calls are over.
    #[error(
        "podTemplate has pods killed {grace} s after they are told to go, and drain.windowSeconds needs {pod} s (the window and \
         30 s): remove terminationGracePeriodSeconds, which follows from the window, or shorten the window"
    )]
    GracePeriod {
        /// Seconds a pod may take.
        pod: i64,
        /// Seconds it is given.
        grace: i64,
    },
    /// The user's pod template tells pods another drain window than the spec.
    #[error("podTemplate sets SWITCHBOARD_DRAIN_WINDOW_SECONDS: remove it, and set drain.windowSeconds")]
    DrainWindow,
    /// The public URL has no host.
    #[error("publicUrl of the gateway must be an https:// URL with a host")]
    PublicUrl,
    /// No engine.
    #[error("engines must name at least one engine")]
    NoEngine,
    /// The edge gives a leaving pod less time than the pod takes.
    #[error(
        "drain.windowSeconds is too long for the edge: a pod that leaves takes {pod} s (the window and 30 s), the edge keeps its \
         connections for {edge} s (exposure.drainSeconds of the gateway), and would cut calls off; shorten the window by {} s, or \
         let the edge drain for {pod} s and say so",
        .pod - .edge
    )]
    EdgeDrain {
        /// Seconds a pod may take.
        pod: u32,
        /// Seconds the edge waits.
        edge: u32,
    },
    /// Overflow to a target that is not there.
    #[error("overflow.forward.transferTarget names no entry of transferTargets: {0}")]
    TransferTarget(String),
}

/// What a rendering is made of.
#[derive(Clone, Debug)]
pub struct Sources<'a> {
    /// The agent's namespace.
    pub namespace: &'a str,
    /// The agent's name.
    pub name: &'a str,
    /// Its spec.
    pub agent: &'a VoiceAgentSpec,
    /// Its gateway's spec.
    pub gateway: &'a VoiceGatewaySpec,
    /// The instructions, wherever they came from.
    pub instructions: String,
    /// Numbers that enter through this agent.
    pub numbers: Vec<file::NumberRoutes>,
    /// Whether calls can go to the agent that the overflow names.
    pub overflow_agent: OverflowAgent,
}

/// Whether the agent that an overflow names can take calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverflowAgent {
    /// It exists on the same gateway, or none is named.
    Resolved,
    /// It does not: callers hear a sentence meanwhile.
    Missing,
}

impl OverflowAgent {
    /// By what is in its way.
    pub const fn of(absent: Option<&Missing>) -> Self {
        if absent.is_none() { Self::Resolved } else { Self::Missing }
    }
}

/// Renders the agent file, with its revision.
pub fn render(sources: Sources<'_>) -> Result<file::AgentFile, Invalid> {
    let Sources { namespace, name, agent, gateway, instructions, numbers, overflow_agent } = sources;
    let VoiceAgentSpec {
        suspend,
        gateway_ref: _,
        persona,
        engines,
        interruption,
        transfer_targets,
        limits,
        overflow,
        recovery,
        scaling,
        drain,
        api,
        network_policy: _,
        monitoring: _,
        update_policy: _,
        image: _,
        pod_template: _,
    } = agent;
    if engines.is_empty() {
        return Err(Invalid::NoEngine);
    }
    let mut rendered = file::AgentFile {
        format_version: file::FORMAT_VERSION,
        revision: String::new(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        suspended: *suspend,
        public_url: gateway.public_url.clone(),
        carrier: carrier(gateway)?,
        persona: render_persona(persona, instructions),
        engines: engines.iter().map(engine).collect::<Result<_, _>>()?,
        interruption: file::Interruption {
            mode: match interruption.mode {
                InterruptionMode::Immediate => file::InterruptionMode::Immediate,
                InterruptionMode::Confirmed => file::InterruptionMode::Confirmed,
                InterruptionMode::Never => file::InterruptionMode::Never,
            },
            min_speech_milliseconds: interruption.min_speech_milliseconds,
        },
        transfer_targets: transfer_targets
            .iter()
            .map(|t| file::TransferTarget {
                name: t.name.clone(),
                phone_number: Redacted::new(t.phone_number.clone()),
            })
            .collect(),
        limits: file::Limits {
            max_call_seconds: limits.max_call_seconds,
            silence_seconds: limits.silence_seconds,
            max_concurrent_calls: limits.max_concurrent_calls,
            max_calls_per_caller_per_hour: limits.max_calls_per_caller_per_hour,
            max_minutes_per_day: limits.max_minutes_per_day,
        },
        overflow: render_overflow(overflow, overflow_agent, transfer_targets)?,
        overflow_wait_seconds: overflow_wait_seconds(overflow),
        recovery: file::Recovery {
            kind: match recovery.kind {
                RecoveryType::WithContext => file::RecoveryKind::WithContext,
                RecoveryType::WithoutContext => file::RecoveryKind::WithoutContext,
            },
            attempts: recovery.attempts,
        },
        drain: file::Drain { window_seconds: drain.window_seconds },
        max_calls_per_pod: scaling.max_calls_per_pod,
        numbers,
        store: store(gateway)?,
        api_token: api.as_ref().map(|a| secret(&a.bearer_token_secret_ref)),
    };
    rendered.revision = revision(&rendered);
    Ok(rendered)
}

/// The agent that calls without a slot go to.
pub fn overflow_agent(agent: &VoiceAgentSpec) -> Option<&str> {
    let named = agent.overflow.agent.as_ref().map(|other| other.agent_ref.name.as_str());
    named.filter(|_| agent.overflow.kind == OverflowType::Agent)
}

/// Every Secret key the pods of an agent mount.
pub fn secret_keys(agent: &VoiceAgentSpec, gateway: &VoiceGatewaySpec) -> Vec<SecretKeyRef> {
    let mut keys = own_secret_keys(agent);
    keys.extend(gateway_secret_keys(gateway));
    keys.sort();
    keys.dedup();
    keys
}

/// The Secret keys that an agent itself names.
pub fn own_secret_keys(agent: &VoiceAgentSpec) -> Vec<SecretKeyRef> {
    let engines =
        agent.engines.iter().filter_map(|e| e.realtime.as_ref()).map(|r| r.api_key_secret_ref.clone());
    engines.chain(agent.api.iter().map(|a| a.bearer_token_secret_ref.clone())).collect()
}

/// The Secret keys that a gateway names.
pub fn gateway_secret_keys(gateway: &VoiceGatewaySpec) -> Vec<SecretKeyRef> {
    let tokens = gateway.carrier.twilio.iter().flat_map(|t| t.auth_token_secret_refs.clone());
    tokens.chain(gateway.store.redis.iter().map(|r| r.url_secret_ref.clone())).collect()
}

/// Eight hexadecimal digits of a digest: enough to tell renderings of one agent apart, short enough to read aloud.
fn revision(file: &file::AgentFile) -> String {
    let json = serde_json::to_vec(file).expect("the agent file has only string keys");
    hex::encode(&Sha256::digest(json)[..4])
}

fn render_overflow(
    overflow: &Overflow,
    overflow_agent: OverflowAgent,
    targets: &[TransferTarget],
) -> Result<file::Overflow, Invalid> {
    let Overflow { kind, wait_seconds: _, message, agent, forward } = overflow;
    let missing = |kind, member| Invalid::MissingMember { path: "overflow", kind, member };
    Ok(match kind {
        OverflowType::Message => file::Overflow::Message {
            message: file::OverflowMessage { text: message.clone().unwrap_or_default().text },
        },
        OverflowType::Agent => {
            let agent = agent.as_ref().ok_or_else(|| missing("Agent", "agent"))?;
            match overflow_agent {
                OverflowAgent::Resolved => file::Overflow::Agent {
                    agent: file::OverflowAgent { name: agent.agent_ref.name.clone() },
                },
                OverflowAgent::Missing => file::Overflow::default(),
            }
        }
        OverflowType::Forward => {
            let forward = forward.as_ref().ok_or_else(|| missing("Forward", "forward"))?;
            let transfer_target = forward.transfer_target.clone();
            if targets.iter().all(|target| target.name != transfer_target) {
                return Err(Invalid::TransferTarget(transfer_target));
            }
            file::Overflow::Forward { forward: file::OverflowForward { transfer_target } }
        }
    })
}

/// Seconds for which callers let it ring when nobody else is there: an autoscaler that reads Prometheus has another pod
/// within 25, and six rings are not unusual.
const WAIT_FOR_SLOT: u32 = 30;

fn overflow_wait_seconds(overflow: &Overflow) -> u32 {
    overflow.wait_seconds.unwrap_or(match overflow.kind {
        OverflowType::Message => WAIT_FOR_SLOT,
        OverflowType::Agent | OverflowType::Forward => 0,
    })
}

fn carrier(gateway: &VoiceGatewaySpec) -> Result<file::Carrier, Invalid> {
    match gateway.carrier.kind {
        CarrierType::Twilio => {
            let missing = Invalid::MissingMember { path: "carrier", kind: "Twilio", member: "twilio" };
            let twilio = gateway.carrier.twilio.as_ref().ok_or(missing)?;
            let account_sid: AccountSid = twilio.account_sid.parse().map_err(|_| Invalid::AccountSid)?;
            Ok(file::Carrier::Twilio {
                twilio: file::TwilioCarrier {
                    account_sid,
                    auth_tokens: twilio.auth_token_secret_refs.iter().map(secret).collect(),
                    api_base_url: twilio.api_base_url.clone(),
                },
            })
        }
    }
}

fn store(gateway: &VoiceGatewaySpec) -> Result<file::Store, Invalid> {
    match gateway.store.kind {
        StoreType::Memory => Ok(file::Store::Memory),
        StoreType::Redis => {
            let missing = Invalid::MissingMember { path: "store", kind: "Redis", member: "redis" };
            let redis = gateway.store.redis.as_ref().ok_or(missing)?;
            Ok(file::Store::Redis { redis: file::RedisStore { url: secret(&redis.url_secret_ref) } })
        }
    }
}

fn render_persona(persona: &Persona, instructions: String) -> file::Persona {
    let Persona { language, instructions: _, greeting } = persona;
    file::Persona {
        language: language.clone(),
        instructions,
        greeting: greeting.as_ref().map(|g| file::Greeting {
            text: g.text.clone(),
            interruption: match g.interruption {
                GreetingInterruption::Allowed => file::GreetingInterruption::Allowed,
                GreetingInterruption::Disallowed => file::GreetingInterruption::Disallowed,
            },
        }),
    }
}

fn engine(engine: &Engine) -> Result<file::Engine, Invalid> {
    let kind = match engine.kind {
        EngineType::Realtime => {
            let missing = Invalid::MissingMember { path: "engines", kind: "Realtime", member: "realtime" };
            file::EngineKind::Realtime { realtime: realtime(engine.realtime.as_ref().ok_or(missing)?) }
        }
        EngineType::Simulated => {
            let replies = engine.simulated.clone().unwrap_or_default().replies;
            file::EngineKind::Simulated { simulated: file::SimulatedEngine { replies, panic_at_reply: None } }
        }
    };
    Ok(file::Engine { name: engine.name.clone(), kind })
}

fn realtime(engine: &RealtimeEngine) -> file::RealtimeEngine {
    let RealtimeEngine {
        url,
        model,
        voice,
        api_key_secret_ref,
        turn_detection,
        transcription,
        noise_reduction,
        warm_sessions_per_pod,
    } = engine;
    file::RealtimeEngine {
        url: url.clone(),
        model: model.clone(),
        voice: voice.clone(),
        api_key: secret(api_key_secret_ref),
        turn_detection: render_turn_detection(turn_detection),
        transcription: transcription.as_ref().map(|t| file::Transcription { model: t.model.clone() }),
        noise_reduction: noise_reduction.map(|n| match n {
            NoiseReduction::NearField => file::NoiseReduction::NearField,
            NoiseReduction::FarField => file::NoiseReduction::FarField,
        }),
        warm_sessions_per_pod: *warm_sessions_per_pod,
    }
}

fn render_turn_detection(turns: &TurnDetection) -> file::TurnDetection {
    match turns.kind {
        TurnDetectionType::ServerVAD => {
            let ServerVad { threshold_percent, prefix_padding_milliseconds, silence_milliseconds } =
                turns.server_vad.clone().unwrap_or_default();
            file::TurnDetection::ServerVAD {
                server_vad: file::ServerVad {
                    threshold_percent,
                    prefix_padding_milliseconds,
                    silence_milliseconds,
                },
            }
        }
        TurnDetectionType::SemanticVAD => file::TurnDetection::SemanticVAD {
            semantic_vad: file::SemanticVad {
                eagerness: match turns.semantic_vad.clone().unwrap_or_default().eagerness {
                    Eagerness::Low => file::Eagerness::Low,
                    Eagerness::Medium => file::Eagerness::Medium,
                    Eagerness::High => file::Eagerness::High,
                    Eagerness::Auto => file::Eagerness::Auto,
                },
            },
        },
    }
}

fn secret(reference: &SecretKeyRef) -> file::SecretRef {
    file::SecretRef { name: reference.name.clone(), key: reference.key.clone() }
}
