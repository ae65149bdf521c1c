//! What happens in a phone call with a speech model, as two sans-IO machines.
//!
//! - [`Call`]: the provider-neutral call: greeting, turns, barge-in, tools, limits, every end with a reason.
//! - [`Realtime`]: the OpenAI Realtime protocol (GA) and nothing else: frames in,
//!   [`ModelEvent`](io::ModelEvent)s out, [`ModelCommand`](io::ModelCommand)s in, frames out.
//!
//! This crate owns no socket, clock, task or environment: time ([`Ms`] since the call's origin), randomness (a seed)
//! and configuration are arguments. The shell around it lives in the package `media-pod`.
//!
//! # The drain rule
//!
//! It holds for both machines: **one input, then poll until `Wait` or the end, then the next input.** `Wait` names the
//! time at which the machine wants a `Tick` if nothing else happens first. Time never goes back: a smaller `now` is
//! taken as the largest seen so far. A spurious `Tick` is a no-op.
//!
//! # Layout
//!
//! | module | owns |
//! | --- | --- |
//! | `call` | the call machine: what each input and timer does |
//! | `playback` | what was sent to the phone, what of it was played, what belongs to a turn that is over |
//! | `state`, `timer` | the call's states and their transitions; its deadlines as a table |
//! | `mark` | mark names as text |
//! | `tools` | tool definitions for the model, the built-in tools |
//! | `realtime` | the Realtime protocol machine and its wire types (protocols: OpenAI Realtime GA) |
//! | `twilio` | wire types of Twilio Media Streams |
//! | `scan` | the two messages that come many times a second, read by hand |
//! | `io` | inputs, outputs, commands and events of the call machine |
//! | `agent_file` | the document an agent is configured by; the operator writes it, the media pod reads it |
//! | `plan` | what one call will do: the agent file with the call's variables filled in |
//! | `phrases` | what the agent says by itself, by language |
//! | `journal` | what must survive a pod: entries, and a call resumed from them |
//! | `audio` | G.711 μ-law payloads and their arithmetic |
//! | `ids`, `redacted` | newtypes; personal data that does not print |

pub mod agent_file;
pub mod audio;
mod call;
mod ids;
pub mod io;
pub mod journal;
mod mark;
mod phrases;
pub mod plan;
mod playback;
pub mod realtime;
mod redacted;
mod scan;
mod state;
mod timer;
pub mod tools;
pub mod twilio;

pub use call::{Call, Start};
pub use ids::{AccountSid, CallSid, Epoch, InvalidId, ItemId, Ms, ReplyId, StreamSid, ToolCallId};
pub use mark::ForeignMark;
pub use realtime::{Realtime, RealtimeConfig, RealtimeError, RealtimeInput, RealtimeOutput};
pub use redacted::Redacted;
