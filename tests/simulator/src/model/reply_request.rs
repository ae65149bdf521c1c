//! What a client asks of one response (protocol sheet, section 5.3): each part given replaces the session's.

use serde_json::Value;

use super::fields::Fields;
use super::format::AudioFormat;
use super::refusal::Refusal;
use super::settings::{Modality, Settings, parse_token_limit, parse_voice};
use super::tools;
use crate::violations::Rule;

/// What `response.create` asks for; absent parts come from the session.
#[derive(Clone, Debug, Default)]
pub(super) struct ReplyRequest {
    pub(super) is_out_of_band: bool,
    pub(super) input: Option<Vec<Value>>,
    pub(super) instructions: Option<String>,
    pub(super) modality: Option<Modality>,
    pub(super) format: Option<AudioFormat>,
    pub(super) voice: Option<Value>,
    pub(super) tools: Option<Vec<Value>>,
    pub(super) tool_choice: Option<Value>,
    pub(super) max_output_tokens: Option<Option<u64>>,
    pub(super) metadata: Value,
}

impl ReplyRequest {
    /// Reads the `response` of `response.create`.
    pub(super) fn parse(value: Option<&Value>) -> Result<Self, Refusal> {
        let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(Self::default()) };
        let fields = Fields::of(value, "response", RESPONSE_FIELDS)?;
        let path = |name: &str| fields.path_of(name);
        let mut request = Self {
            is_out_of_band: fields.word("conversation", &["auto", "none"])? == Some("none"),
            input: fields.list("input")?.cloned(),
            instructions: fields.text("instructions")?.map(str::to_owned),
            modality: fields
                .value("output_modalities")
                .map(|value| Modality::parse(value, &path("output_modalities")))
                .transpose()?,
            tools: fields.list("tools")?.map(|list| tools::parse(list, &path("tools"))).transpose()?,
            tool_choice: fields
                .value("tool_choice")
                .map(|value| tools::parse_choice(value, &path("tool_choice")))
                .transpose()?,
            max_output_tokens: fields
                .value("max_output_tokens")
                .map(|value| parse_token_limit(value, &path("max_output_tokens")))
                .transpose()?,
            metadata: parse_metadata(fields.value("metadata"))?,
            ..Self::default()
        };
        if let Some(audio) = fields.value("audio") {
            let audio = Fields::of(audio, "response.audio", &["output"])?;
            if let Some(output) = audio.value("output") {
                let output = Fields::of(output, "response.audio.output", &["format", "voice"])?;
                let format = output.value("format");
                request.format = format
                    .map(|value| AudioFormat::parse(value, "response.audio.output.format"))
                    .transpose()?;
                let voice = output.value("voice");
                request.voice =
                    voice.map(|value| parse_voice(value, "response.audio.output.voice")).transpose()?;
            }
        }
        Ok(request)
    }

    /// The voice stays what it was once it was heard.
    pub(super) fn check_voice(&self, settings: &Settings, has_spoken: bool) -> Result<(), Refusal> {
        if has_spoken && self.voice.as_ref().is_some_and(|voice| *voice != settings.voice) {
            let message = "Cannot update a conversation's voice if assistant audio is present.";
            return Err(Refusal::new("cannot_update_voice", message, None).breaking(Rule::ModelVoiceChange));
        }
        Ok(())
    }

    /// What the response is made of.
    pub(super) fn modality(&self, settings: &Settings) -> Modality {
        self.modality.unwrap_or(settings.output_modality)
    }

    /// Whether this response may call the function.
    pub(super) fn is_callable(&self, settings: &Settings, name: &str) -> bool {
        let offered = self.tools.as_ref().unwrap_or(&settings.tools);
        tools::is_callable(offered, self.tool_choice.as_ref().unwrap_or(&settings.tool_choice), name)
    }
}

fn parse_metadata(value: Option<&Value>) -> Result<Value, Refusal> {
    let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(Value::Null) };
    let map = value.as_object().ok_or_else(|| Refusal::invalid("response.metadata", "an object"))?;
    let is_small =
        |(key, value): (&String, &Value)| key.len() <= 64 && value.as_str().is_some_and(|v| v.len() <= 512);
    if map.len() > 16 || !map.iter().all(is_small) {
        return Err(Refusal::invalid("response.metadata", "at most 16 short strings"));
    }
    Ok(value.clone())
}

const RESPONSE_FIELDS: &[&str] = &[
    "conversation",
    "input",
    "instructions",
    "output_modalities",
    "audio",
    "tools",
    "tool_choice",
    "max_output_tokens",
    "metadata",
    "prompt",
    "reasoning",
    "parallel_tool_calls",
];
