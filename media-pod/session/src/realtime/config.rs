//! What personalises a connection for one call: the engine's settings and the plan's, in the API's own terms.

use crate::Redacted;
use crate::agent_file::{NoiseReduction, RealtimeEngine, TurnDetection};
use crate::plan::Plan;
use crate::tools::{ToolDefinition, definitions};

/// One call's session. The model is not here: it is part of the connection's URL.
#[derive(Clone, Debug, PartialEq)]
pub struct RealtimeConfig {
    /// The model's instructions, variables filled in.
    pub instructions: Redacted<String>,
    /// Voice name.
    pub voice: String,
    /// How the model finds the end of the caller's turn.
    pub turn_detection: TurnDetection,
    /// `interrupt_response`: the server cancels its reply when it hears the caller.
    pub server_interrupts: bool,
    /// `create_response`: the server replies when the caller stops speaking.
    pub server_replies: bool,
    /// Transcription of the caller.
    pub transcription: Option<CallerTranscription>,
    /// Noise reduction on the caller's audio.
    pub noise_reduction: Option<NoiseReduction>,
    /// What the model may call.
    pub tools: Vec<ToolDefinition>,
}

/// Transcription of the caller's audio.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerTranscription {
    /// Transcription model.
    pub model: String,
    /// ISO 639 code; without one the model guesses.
    pub language: Option<String>,
}

impl RealtimeConfig {
    /// The session of one call of `plan` on `engine`.
    pub fn new(engine: &RealtimeEngine, plan: &Plan) -> Self {
        let transcription = engine.transcription.as_ref().map(|transcription| CallerTranscription {
            model: transcription.model.clone(),
            language: iso_639(&plan.language),
        });
        Self {
            instructions: plan.instructions.clone(),
            voice: engine.voice.clone(),
            turn_detection: engine.turn_detection.clone(),
            server_interrupts: plan.server_interrupts(),
            server_replies: plan.server_replies(),
            transcription,
            noise_reduction: engine.noise_reduction,
            tools: definitions(plan),
        }
    }
}

/// The language of a BCP 47 tag: the API takes `en`, not `en-US`.
fn iso_639(tag: &str) -> Option<String> {
    let language = tag.split(['-', '_']).next().unwrap_or_default();
    let is_code = matches!(language.len(), 2 | 3) && language.bytes().all(|b| b.is_ascii_alphabetic());
    is_code.then(|| language.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_language_of_a_tag_is_its_first_part() {
        for (tag, language) in
            [("en-US", Some("en")), ("DE", Some("de")), ("zh_Hant", Some("zh")), ("", None), ("x-1", None)]
        {
            assert_eq!(iso_639(tag).as_deref(), language, "{tag}");
        }
    }
}
