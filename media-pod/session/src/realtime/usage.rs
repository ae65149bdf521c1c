//! What a response cost, as the server counts it (protocol sheet 5.5): every count is optional, and none of them may
//! make the end of a response unreadable.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::io::Usage;
use crate::twilio::Number;

/// Every count is optional. Without details a total counts as text: the cheaper guess, but not nothing.
pub(super) fn usage(raw: &RawValue) -> Option<Usage> {
    let body: UsageBody = serde_json::from_str::<Option<UsageBody>>(raw.get()).ok()??;
    let count = |number: Number| number.0.unwrap_or(0);
    let input = body
        .input_token_details
        .unwrap_or_else(|| InputTokens { text_tokens: body.input_tokens, ..InputTokens::default() });
    let output = body
        .output_token_details
        .unwrap_or_else(|| OutputTokens { text_tokens: body.output_tokens, ..OutputTokens::default() });
    let (text, audio) = (count(input.text_tokens), count(input.audio_tokens));
    let (text_cached, audio_cached) = match input.cached_tokens_details {
        Some(cached) => (count(cached.text_tokens).min(text), count(cached.audio_tokens).min(audio)),
        None => {
            let cached = count(input.cached_tokens);
            (cached.min(text), cached.saturating_sub(text).min(audio))
        }
    };
    Some(Usage {
        text_in: text - text_cached,
        text_cached,
        audio_in: audio - audio_cached,
        audio_cached,
        text_out: count(output.text_tokens),
        audio_out: count(output.audio_tokens),
    })
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct UsageBody {
    input_tokens: Number,
    output_tokens: Number,
    input_token_details: Option<InputTokens>,
    output_token_details: Option<OutputTokens>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct InputTokens {
    text_tokens: Number,
    audio_tokens: Number,
    cached_tokens: Number,
    cached_tokens_details: Option<OutputTokens>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OutputTokens {
    text_tokens: Number,
    audio_tokens: Number,
}
