//! Clips: a few words in the agent's own voice, rendered ahead of calls, for the moments without a model.
//!
//! *Flow*: when a configuration is loaded, each Realtime engine that keeps warm sessions is asked once to say "one
//! moment, please" in the agent's language; what it says is kept as μ-law. Other engines, languages without a phrase
//! here, and a model that is away: two soft tones, which need nobody.
//!
//! *Guarantees*: a clip is short ([`LONGEST`]); a rendering never touches a call; a failed one is tried again later.
//!
//! *Caveats*: a rendering costs one short reply per pod and voice.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use call_session::agent_file::{AgentFile, EngineKind, RealtimeEngine};
use call_session::audio::Payload;
use call_session::io::{ModelCommand, ModelEvent, ReplyOutcome, Speech};
use call_session::plan::{Plan, Variables};
use call_session::{Ms, Redacted};
use tokio::sync::watch;

use super::{Engines, Session};
use crate::comfort::tone;
use crate::drain::Phase;

/// The longest clip that is kept: whatever comes next waits for it.
const LONGEST: Ms = Ms(3000);

/// The longest a rendering may take: a cold session and a short reply, with room.
const RENDERING: Duration = Duration::from_secs(20);

/// Pause after a failed rendering; the tones do meanwhile.
const AGAIN: Duration = Duration::from_secs(60);

/// What is said, by language.
const PHRASES: [(&str, &str); 12] = [
    ("da", "Et øjeblik."),
    ("de", "Einen Moment, bitte."),
    ("en", "One moment, please."),
    ("es", "Un momento, por favor."),
    ("fr", "Un instant, s'il vous plaît."),
    ("it", "Un momento, per favore."),
    ("ja", "少々お待ちください。"),
    ("nl", "Een ogenblik, alstublieft."),
    ("pl", "Chwileczkę, proszę."),
    ("pt", "Um momento, por favor."),
    ("sv", "Ett ögonblick, tack."),
    ("zh", "请稍等。"),
];

/// The clips of a pod.
pub(super) struct Clips {
    tone: Payload,
    rendered: Mutex<Vec<(Voice, Payload)>>,
}

/// Who says what.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Voice {
    url: String,
    model: String,
    voice: String,
    words: &'static str,
}

impl Clips {
    pub(super) fn new() -> Self {
        Self { tone: tone(), rendered: Mutex::default() }
    }

    /// The clip of a call: in the voice of the first engine that has one.
    pub(super) fn of(&self, plan: &Plan) -> Payload {
        let rendered = self.rendered();
        let known = plan.engines.iter().find_map(|engine| {
            let EngineKind::Realtime { realtime } = &engine.kind else { return None };
            let voice = Voice::of(realtime, &plan.language)?;
            rendered.iter().find(|(known, _)| *known == voice).map(|(_, clip)| clip.clone())
        });
        known.unwrap_or_else(|| self.tone.clone())
    }

    /// The voices of an agent that are not rendered yet, with an engine for each; clips of other voices are forgotten.
    fn missing(&self, agent: &AgentFile) -> Vec<(Voice, RealtimeEngine)> {
        let wanted: Vec<_> = agent
            .engines
            .iter()
            .filter_map(|engine| match &engine.kind {
                EngineKind::Realtime { realtime } if realtime.warm_sessions_per_pod > 0 => {
                    Some((Voice::of(realtime, &agent.persona.language)?, realtime.clone()))
                }
                EngineKind::Realtime { .. } | EngineKind::Simulated { .. } => None,
            })
            .collect();
        let mut rendered = self.rendered();
        rendered.retain(|(known, _)| wanted.iter().any(|(voice, _)| voice == known));
        wanted.into_iter().filter(|(voice, _)| rendered.iter().all(|(known, _)| known != voice)).collect()
    }

    fn rendered(&self) -> MutexGuard<'_, Vec<(Voice, Payload)>> {
        self.rendered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Voice {
    fn of(engine: &RealtimeEngine, language: &str) -> Option<Self> {
        let words = phrase(language)?;
        let RealtimeEngine { url, model, voice, .. } = engine;
        Some(Self { url: url.clone(), model: model.clone(), voice: voice.clone(), words })
    }
}

/// The phrase in the language of a BCP 47 tag.
fn phrase(tag: &str) -> Option<&'static str> {
    let language = tag.split(['-', '_']).next().unwrap_or_default();
    PHRASES.iter().find(|(known, _)| known.eq_ignore_ascii_case(language)).map(|(_, words)| *words)
}

/// Renders what is missing after each change of the agent file, until `phase` admits no more calls.
pub(super) async fn keep(
    engines: Engines,
    mut agent: watch::Receiver<Arc<AgentFile>>,
    mut phase: watch::Receiver<Phase>,
) {
    while phase.borrow_and_update().admits() {
        let current = agent.borrow_and_update().clone();
        let render = async {
            let mut has_failed = false;
            for (voice, engine) in engines.clips.missing(&current) {
                match tokio::time::timeout(RENDERING, render(&engines, &engine, &current, voice.words)).await
                {
                    Ok(Some(clip)) => engines.clips.rendered().push((voice, clip)),
                    Ok(None) | Err(_) => has_failed = true,
                }
            }
            if has_failed {
                tracing::debug!("a clip was not rendered; callers without a model hear tones");
                tokio::time::sleep(AGAIN).await;
            } else {
                std::future::pending().await
            }
        };
        tokio::select! {
            () = render => {}
            Ok(()) = agent.changed() => {}
            changed = phase.changed() => if changed.is_err() { return },
        }
    }
}

/// Lets an engine say the words; `None` when it does not, or not briefly.
async fn render(
    engines: &Engines,
    engine: &RealtimeEngine,
    agent: &AgentFile,
    words: &str,
) -> Option<Payload> {
    let mut plan = Plan::new(agent, &Variables::default());
    plan.greeting = None;
    plan.transfer_targets.clear();
    let mut session = engines.open_aside(engine, &plan);
    let clip = listen(engines, &mut session, words).await;
    session.close().await;
    clip
}

async fn listen(engines: &Engines, session: &mut Session, words: &str) -> Option<Payload> {
    let mut mulaw = Vec::new();
    loop {
        match session.next_event().await {
            ModelEvent::Ready => {
                session.send(ModelCommand::Speak(Speech::Verbatim(Redacted::new(words.to_owned()))));
            }
            ModelEvent::Audio { audio, .. } => {
                mulaw.extend(audio.to_mulaw());
                if Payload::from_mulaw(&mulaw).duration() > LONGEST {
                    return None;
                }
            }
            ModelEvent::ReplyEnded { outcome: ReplyOutcome::Completed, .. } if !mulaw.is_empty() => {
                return Some(Payload::from_mulaw(&mulaw));
            }
            ModelEvent::ReplyEnded { .. } => return None,
            ModelEvent::Lost { reason } => {
                engines.metrics.provider_failures.inc(reason);
                return None;
            }
            ModelEvent::Refused { class } => engines.metrics.provider_refusals.inc(class),
            ModelEvent::Usage(usage) => engines.metrics.add_usage(&usage),
            ModelEvent::SpeechStarted
            | ModelEvent::SpeechStopped
            | ModelEvent::ReplyStarted { .. }
            | ModelEvent::Working { .. }
            | ModelEvent::AudioDone { .. }
            | ModelEvent::AgentTranscript { .. }
            | ModelEvent::CallerTranscript { .. }
            | ModelEvent::ToolCall { .. }
            | ModelEvent::Expiring => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_phrase_follows_the_language_and_an_unknown_one_has_none() {
        assert_eq!(phrase("en-US"), Some("One moment, please."));
        assert_eq!(phrase("DE"), Some("Einen Moment, bitte."));
        assert_eq!(phrase("zh_Hant"), Some("请稍等。"));
        assert_eq!(phrase("tlh"), None);
        assert_eq!(phrase(""), None);
    }
}
