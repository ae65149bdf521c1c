//! Switchboard's Kubernetes API: the three kinds, their schema and their conditions, and nothing else.
//!
//! A [`VoiceGateway`] is what agents on one carrier account share; a [`VoiceAgent`] is who answers; a [`PhoneNumber`]
//! sends a number's calls to agents. Doc comments on fields are the user's manual: `kubectl explain` prints them.
//!
//! Conventions: unions have a `type` and one member of that name (CEL refuses the others), lists of named things are
//! maps by `name`, durations end in `Seconds` or `Milliseconds`, there are no floats, and every string and list has a
//! maximum, which the cost budget of CEL needs. Changes are additive only: there is no conversion webhook.

// KubeSchema copies each struct into a function body, where its `pub` reaches nobody.
#![allow(unreachable_pub)]
// Printer columns repeat the same keys in one attribute.
#![allow(clippy::duplicated_attributes)]

pub mod conditions;
pub mod manifest;
mod phone_number;
mod reference;
mod rule;
mod voice_agent;
mod voice_gateway;

pub use phone_number::*;
pub use reference::*;
pub use voice_agent::*;
pub use voice_gateway::*;

/// The API group of the three kinds.
pub const GROUP: &str = "switchboard.dev";

/// The version served and stored.
pub const VERSION: &str = "v1alpha1";
