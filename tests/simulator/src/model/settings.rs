//! The session as configured: what `session.update` may change, what it may not, and the effective session as
//! `session.updated` tells it (protocol sheet, section 5.2).
//!
//! An update is taken whole or refused whole.

use std::time::Duration;

use serde_json::{Value, json};

use super::fields::Fields;
use super::format::AudioFormat;
use super::refusal::Refusal;
use super::tools;
use crate::violations::Rule;

/// The effective session.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Settings {
    pub(super) instructions: String,
    pub(super) output_modality: Modality,
    pub(super) input_format: AudioFormat,
    pub(super) output_format: AudioFormat,
    pub(super) transcription: Value,
    pub(super) turn_detection: Option<TurnDetection>,
    pub(super) voice: Value,
    pub(super) tools: Vec<Value>,
    pub(super) tool_choice: Value,
    pub(super) max_output_tokens: Option<u64>,
    noise_reduction: Value,
    speed: f64,
    truncation: Value,
    tracing: Value,
    prompt: Value,
    include: Value,
    reasoning: Value,
    parallel_tool_calls: Option<bool>,
}

/// What a response is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Modality {
    /// Speech and its transcript.
    Audio,
    /// Text only.
    Text,
}

/// When the server thinks the caller's turn began and ended.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TurnDetection {
    kind: DetectionKind,
    pub(super) create_response: bool,
    pub(super) interrupt_response: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum DetectionKind {
    Server { threshold: f64, padding_ms: u64, silence_ms: u64, idle_timeout_ms: Option<u64> },
    Semantic { eagerness: String },
}

/// The detection as numbers over audio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct VoiceActivity {
    /// A frame above this energy is speech.
    pub(super) loudness: u32,
    /// Kept from before the speech.
    pub(super) padding_ms: u64,
    /// So much silence ends the turn.
    pub(super) silence_ms: u64,
}

impl Default for Settings {
    /// What `session.created` shows: linear audio, server VAD, no transcription.
    fn default() -> Self {
        let server =
            DetectionKind::Server { threshold: 0.5, padding_ms: 300, silence_ms: 500, idle_timeout_ms: None };
        Self {
            instructions: "You are a helpful assistant.".to_owned(),
            output_modality: Modality::Audio,
            input_format: AudioFormat::Pcm,
            output_format: AudioFormat::Pcm,
            transcription: Value::Null,
            turn_detection: Some(TurnDetection {
                kind: server,
                create_response: true,
                interrupt_response: true,
            }),
            voice: json!("alloy"),
            tools: Vec::new(),
            tool_choice: json!("auto"),
            max_output_tokens: None,
            noise_reduction: Value::Null,
            speed: 1.0,
            truncation: json!("auto"),
            tracing: Value::Null,
            prompt: Value::Null,
            include: Value::Null,
            reasoning: Value::Null,
            parallel_tool_calls: None,
        }
    }
}

impl Settings {
    /// The session after `session.update` with this `session` object.
    ///
    /// *Errors:* the first thing refused; the settings as they were stay valid.
    pub(super) fn updated(&self, update: &Value, model: &str, has_spoken: bool) -> Result<Self, Refusal> {
        let fields = Fields::of(update, "session", SESSION_FIELDS)
            .map_err(|refusal| refusal.breaking(Rule::ModelSessionUpdate))?;
        let mut next = self.clone();
        next.apply(fields, model).map_err(|refusal| refusal.breaking(Rule::ModelSessionUpdate))?;
        if has_spoken && next.voice != self.voice {
            let message = "Cannot update a conversation's voice if assistant audio is present.";
            return Err(Refusal::new("cannot_update_voice", message, None).breaking(Rule::ModelVoiceChange));
        }
        Ok(next)
    }

    /// What may be as it is between responses only.
    ///
    /// *Errors:* the response goes on as it was begun.
    pub(super) fn check_in_response(&self, now: &Self) -> Result<(), Refusal> {
        if self.speed == now.speed {
            return Ok(());
        }
        let refusal = Refusal::invalid("session.audio.output.speed", "unchanged while a response is active");
        Err(refusal.breaking(Rule::ModelSessionUpdate))
    }

    fn apply(&mut self, fields: Fields<'_>, model: &str) -> Result<(), Refusal> {
        match fields.required_text("type")? {
            "realtime" => {}
            _ => return Err(Refusal::invalid("session.type", "realtime")),
        }
        if fields.text("model")?.is_some_and(|named| named != model) {
            return Err(Refusal::invalid("session.model", "the model the session began with"));
        }
        if let Some(modalities) = fields.value("output_modalities") {
            self.output_modality = Modality::parse(modalities, "session.output_modalities")?;
        }
        if let Some(text) = fields.text("instructions")? {
            text.clone_into(&mut self.instructions);
        }
        if let Some(audio) = fields.value("audio") {
            self.apply_audio(Fields::of(audio, "session.audio", &["input", "output"])?)?;
        }
        if let Some(list) = fields.list("tools")? {
            self.tools = tools::parse(list, "session.tools")?;
        }
        if let Some(choice) = fields.value("tool_choice") {
            self.tool_choice = tools::parse_choice(choice, "session.tool_choice")?;
        }
        if let Some(limit) = fields.value("max_output_tokens") {
            self.max_output_tokens = parse_token_limit(limit, "session.max_output_tokens")?;
        }
        if self.transcription.get("model") == Some(&json!(LIVE_TRANSCRIPTION))
            && self.turn_detection.is_some()
        {
            let path = "session.audio.input.turn_detection";
            return Err(Refusal::invalid(path, "null, with this transcription model"));
        }
        self.apply_rest(fields, model)
    }

    fn apply_rest(&mut self, fields: Fields<'_>, model: &str) -> Result<(), Refusal> {
        if let Some(truncation) = fields.value("truncation") {
            self.truncation = parse_truncation(truncation)?;
        }
        for name in ["parallel_tool_calls", "reasoning"] {
            if fields.value(name).is_some_and(|value| !value.is_null()) && !is_reasoning(model) {
                return Err(Refusal::unknown(fields.path_of(name)));
            }
        }
        if let Some(tracing) = fields.value("tracing") {
            if !self.tracing.is_null() && *tracing != self.tracing {
                return Err(Refusal::invalid("session.tracing", "unchanged once it is on"));
            }
            self.tracing = tracing.clone();
        }
        if let Some(switch) = fields.switch("parallel_tool_calls")? {
            self.parallel_tool_calls = Some(switch);
        }
        if let Some(reasoning) = fields.value("reasoning").filter(|value| !value.is_null()) {
            let inner = Fields::of(reasoning, "session.reasoning", &["effort"])?;
            inner.word("effort", &["minimal", "low", "medium", "high", "xhigh"])?;
            self.reasoning = reasoning.clone();
        }
        if let Some(prompt) = fields.value("prompt") {
            if !prompt.is_null() {
                Fields::of(prompt, "session.prompt", &["id", "version", "variables"])?.required_text("id")?;
            }
            self.prompt = prompt.clone();
        }
        if let Some(include) = fields.list("include")? {
            if include.iter().any(|entry| entry != "item.input_audio_transcription.logprobs") {
                return Err(Refusal::invalid("session.include", "a list of known includes"));
            }
            self.include = json!(include);
        }
        Ok(())
    }

    fn apply_audio(&mut self, audio: Fields<'_>) -> Result<(), Refusal> {
        if let Some(input) = audio.value("input") {
            let known = ["format", "noise_reduction", "transcription", "turn_detection"];
            let input = Fields::of(input, "session.audio.input", &known)?;
            if let Some(format) = input.value("format") {
                self.input_format = AudioFormat::parse(format, "session.audio.input.format")?;
            }
            if let Some(reduction) = input.value("noise_reduction") {
                self.noise_reduction = parse_noise_reduction(reduction)?;
            }
            if let Some(transcription) = input.value("transcription") {
                self.transcription = parse_transcription(transcription)?;
            }
            if let Some(detection) = input.value("turn_detection") {
                self.turn_detection = TurnDetection::parse(detection)?;
            }
        }
        if let Some(output) = audio.value("output") {
            let output = Fields::of(output, "session.audio.output", &["format", "voice", "speed"])?;
            if let Some(format) = output.value("format") {
                self.output_format = AudioFormat::parse(format, "session.audio.output.format")?;
            }
            if let Some(voice) = output.value("voice") {
                self.voice = parse_voice(voice, "session.audio.output.voice")?;
            }
            if let Some(speed) = output.number("speed", 0.25, 1.5)? {
                self.speed = speed;
            }
        }
        Ok(())
    }

    /// The effective session as the server tells it.
    pub(super) fn to_json(&self, id: &str, model: &str, expires_at: u64) -> Value {
        let mut session = json!({
            "type": "realtime", "object": "realtime.session", "id": id, "model": model, "expires_at": expires_at,
            "output_modalities": [self.output_modality.name()],
            "instructions": self.instructions,
            "audio": {
                "input": {
                    "format": self.input_format.to_json(),
                    "noise_reduction": self.noise_reduction,
                    "transcription": self.transcription,
                    "turn_detection": self.turn_detection.as_ref().map(TurnDetection::to_json),
                },
                "output": {"format": self.output_format.to_json(), "voice": self.voice, "speed": self.speed},
            },
            "tools": self.tools, "tool_choice": self.tool_choice,
            "max_output_tokens": token_limit_json(self.max_output_tokens),
            "truncation": self.truncation, "tracing": self.tracing, "prompt": self.prompt, "include": self.include,
        });
        if !self.reasoning.is_null() {
            session["reasoning"] = self.reasoning.clone();
        }
        if let Some(switch) = self.parallel_tool_calls {
            session["parallel_tool_calls"] = json!(switch);
        }
        session
    }
}

impl Modality {
    pub(super) fn parse(value: &Value, path: &str) -> Result<Self, Refusal> {
        match value.as_array().map(Vec::as_slice) {
            Some([only]) if only == "audio" => Ok(Self::Audio),
            Some([only]) if only == "text" => Ok(Self::Text),
            _ => Err(Refusal::invalid(path, "[\"audio\"] or [\"text\"]")),
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Audio => "audio",
            Self::Text => "text",
        }
    }
}

impl TurnDetection {
    fn parse(value: &Value) -> Result<Option<Self>, Refusal> {
        const PATH: &str = "session.audio.input.turn_detection";
        if value.is_null() {
            return Ok(None);
        }
        let fields = Fields::of(value, PATH, DETECTION_FIELDS)?;
        let kind = match fields.required_text("type")? {
            "server_vad" => {
                Fields::of(value, PATH, SERVER_VAD_FIELDS)?;
                DetectionKind::Server {
                    threshold: fields.number("threshold", 0.0, 1.0)?.unwrap_or(0.5),
                    padding_ms: fields.whole("prefix_padding_ms", 0, 10_000)?.unwrap_or(300),
                    silence_ms: fields.whole("silence_duration_ms", 0, 60_000)?.unwrap_or(500),
                    idle_timeout_ms: fields.whole("idle_timeout_ms", 5000, 30_000)?,
                }
            }
            "semantic_vad" => {
                Fields::of(value, PATH, SEMANTIC_VAD_FIELDS)?;
                let eagerness =
                    fields.word("eagerness", &["low", "medium", "high", "auto"])?.unwrap_or("auto");
                DetectionKind::Semantic { eagerness: eagerness.to_owned() }
            }
            _ => return Err(Refusal::invalid(fields.path_of("type"), "server_vad or semantic_vad")),
        };
        Ok(Some(Self {
            kind,
            create_response: fields.switch("create_response")?.unwrap_or(true),
            interrupt_response: fields.switch("interrupt_response")?.unwrap_or(true),
        }))
    }

    /// The detection as numbers. Semantic detection is played by patience: the sentences of the simulated callers are
    /// complete, so the real one would decide long before its limits of two to eight seconds.
    pub(super) fn activity(&self) -> VoiceActivity {
        match &self.kind {
            DetectionKind::Server { threshold, padding_ms, silence_ms, .. } => VoiceActivity {
                loudness: (threshold * LOUDNESS_AT_FULL_THRESHOLD) as u32,
                padding_ms: *padding_ms,
                silence_ms: *silence_ms,
            },
            DetectionKind::Semantic { eagerness } => {
                let silence_ms = match eagerness.as_str() {
                    "low" => 1000,
                    "high" => 400,
                    _ => 600,
                };
                VoiceActivity {
                    loudness: (0.5 * LOUDNESS_AT_FULL_THRESHOLD) as u32,
                    padding_ms: 300,
                    silence_ms,
                }
            }
        }
    }

    /// How long nobody may speak before the model goes on.
    pub(super) fn idle_timeout(&self) -> Option<Duration> {
        match self.kind {
            DetectionKind::Server { idle_timeout_ms, .. } => idle_timeout_ms.map(Duration::from_millis),
            DetectionKind::Semantic { .. } => None,
        }
    }

    fn to_json(&self) -> Value {
        let (create, interrupt) = (self.create_response, self.interrupt_response);
        match &self.kind {
            DetectionKind::Server { threshold, padding_ms, silence_ms, idle_timeout_ms } => json!({
                "type": "server_vad", "threshold": threshold, "prefix_padding_ms": padding_ms,
                "silence_duration_ms": silence_ms, "idle_timeout_ms": idle_timeout_ms,
                "create_response": create, "interrupt_response": interrupt,
            }),
            DetectionKind::Semantic { eagerness } => json!({
                "type": "semantic_vad", "eagerness": eagerness,
                "create_response": create, "interrupt_response": interrupt,
            }),
        }
    }
}

/// A voice by name or by id.
pub(super) fn parse_voice(value: &Value, path: &str) -> Result<Value, Refusal> {
    let is_known = value.as_str().is_some_and(|name| VOICES.contains(&name))
        || value.get("id").and_then(Value::as_str).is_some_and(|id| id.starts_with("voice_"));
    if is_known { Ok(value.clone()) } else { Err(Refusal::invalid(path, "a known voice")) }
}

/// 1 to 4096 or `"inf"`.
pub(super) fn parse_token_limit(value: &Value, path: &str) -> Result<Option<u64>, Refusal> {
    match (value.as_str(), value.as_u64()) {
        (Some("inf"), _) => Ok(None),
        (_, Some(limit @ 1..=4096)) => Ok(Some(limit)),
        _ => Err(Refusal::invalid(path, "an integer from 1 to 4096 or \"inf\"")),
    }
}

/// The limit as the API writes it.
pub(super) fn token_limit_json(limit: Option<u64>) -> Value {
    limit.map_or_else(|| json!("inf"), |tokens| json!(tokens))
}

fn parse_noise_reduction(value: &Value) -> Result<Value, Refusal> {
    if !value.is_null() {
        let fields = Fields::of(value, "session.audio.input.noise_reduction", &["type", "strength"])?;
        fields.required("type")?;
        fields.word("type", &["near_field", "far_field"])?;
        fields.number("strength", f64::MIN, f64::MAX)?; // its range is not published
    }
    Ok(value.clone())
}

fn parse_truncation(value: &Value) -> Result<Value, Refusal> {
    const PATH: &str = "session.truncation";
    if value.is_object() {
        let fields = Fields::of(value, PATH, &["type", "retention_ratio", "token_limits"])?;
        fields.required("type")?;
        fields.word("type", &["retention_ratio"])?;
        fields.number("retention_ratio", 0.0, 1.0)?;
        if let Some(limits) = fields.value("token_limits") {
            let limits = Fields::of(limits, "session.truncation.token_limits", &["post_instructions"])?;
            limits.whole("post_instructions", 0, u64::MAX)?;
        }
    } else if !matches!(value.as_str(), Some("auto" | "disabled")) {
        return Err(Refusal::invalid(PATH, "auto, disabled or a retention ratio"));
    }
    Ok(value.clone())
}

/// Models that reason and call tools in parallel: `gpt-realtime-2` and later, by no means those of the year 2025.
fn is_reasoning(model: &str) -> bool {
    let rest = model.strip_prefix("gpt-realtime-2");
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '-']))
}

fn parse_transcription(value: &Value) -> Result<Value, Refusal> {
    if !value.is_null() {
        let known = ["model", "language", "languages", "prompt", "keywords", "delay"];
        let fields = Fields::of(value, "session.audio.input.transcription", &known)?;
        let model = fields.required_text("model")?;
        if !TRANSCRIPTION_MODELS.iter().any(|name| model.starts_with(name)) {
            return Err(Refusal::invalid(fields.path_of("model"), "a transcription model"));
        }
        fields.text("language")?;
        fields.text("prompt")?;
        fields.list("languages")?;
        fields.list("keywords")?;
        let stranger = if model == LIVE_TRANSCRIPTION { "prompt" } else { "delay" };
        if fields.value(stranger).is_some_and(|value| !value.is_null()) {
            return Err(Refusal::unknown(fields.path_of(stranger)));
        }
        fields.word("delay", &["minimal", "low", "medium", "high", "xhigh"])?;
    }
    Ok(value.clone())
}

/// Takes a delay and no prompt, and detects no turns.
const LIVE_TRANSCRIPTION: &str = "gpt-realtime-whisper";

/// `temperature` is not among them: it went with the beta.
const SESSION_FIELDS: &[&str] = &[
    "type",
    "model",
    "output_modalities",
    "instructions",
    "audio",
    "tools",
    "tool_choice",
    "max_output_tokens",
    "truncation",
    "tracing",
    "prompt",
    "include",
    "reasoning",
    "parallel_tool_calls",
];

const DETECTION_FIELDS: &[&str] = &[
    "type",
    "threshold",
    "prefix_padding_ms",
    "silence_duration_ms",
    "idle_timeout_ms",
    "eagerness",
    "create_response",
    "interrupt_response",
];

const SERVER_VAD_FIELDS: &[&str] = &[
    "type",
    "threshold",
    "prefix_padding_ms",
    "silence_duration_ms",
    "idle_timeout_ms",
    "create_response",
    "interrupt_response",
];

const SEMANTIC_VAD_FIELDS: &[&str] = &["type", "eagerness", "create_response", "interrupt_response"];

const VOICES: &[&str] =
    &["alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse", "marin", "cedar"];

/// By their beginnings: dated versions count.
const TRANSCRIPTION_MODELS: &[&str] = &[
    "gpt-transcribe",
    "gpt-live-transcribe",
    "gpt-realtime-whisper",
    "whisper-1",
    "gpt-4o-transcribe",
    "gpt-4o-mini-transcribe",
];

/// Threshold 0.5 is energy 500, -36 dBFS: above line noise, below any spoken vowel.
const LOUDNESS_AT_FULL_THRESHOLD: f64 = 1000.0;
