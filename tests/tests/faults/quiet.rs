//! The second caller of a trial: on the same pod, talking all the while, to whom nothing may happen.

use anyhow::{Result, bail, ensure};
use e2e::wait_for;
use serde_json::{Value, json};

use crate::pod::Pod;
use crate::stage::{CALL, PATIENCE, Stage, events};

/// A call that asks and listens again and again. An answer that does not come in 30 s ends it, and so the trial.
pub(crate) struct QuietCall<'a> {
    stage: &'a Stage,
    pod: &'a Pod,
    sid: String,
}

/// What nobody else asks: by it the model's sessions show which of them was this caller's.
pub(crate) const QUESTION: &str = "Where is my order number forty two?";

/// More turns than any trial takes time for.
const TURNS: usize = 60;

impl<'a> QuietCall<'a> {
    /// Dials, and waits until the first question was answered.
    pub(crate) async fn begin(stage: &'a Stage, pod: &'a Pod) -> Result<Self> {
        let listen = json!({"waitForAgent": {"seconds": 30}});
        let mut steps = vec![listen.clone()];
        for _ in 0..TURNS {
            steps.extend([json!({"say": QUESTION}), listen.clone()]);
        }
        let sid = stage.place("+15559990000", &Value::Array(steps)).await?;
        let call = Self { stage, pod, sid };
        call.answered_again(0).await?;
        Ok(call)
    }

    /// What is known of it. An error once it is over.
    async fn look(&self) -> Result<Value> {
        let call = self.stage.call(&self.sid).await?;
        ensure!(call["finished"] == false && call["endReason"].is_null(), "the quiet call is over: {call:#}");
        Ok(call)
    }

    /// Waits for another whole turn beyond so many.
    async fn answered_again(&self, turns: usize) -> Result<()> {
        let waited = wait_for("the quiet call to go on", CALL, async || {
            Ok(match self.look().await {
                Ok(call) => (answered(&call) > turns).then_some(Ok(())),
                Err(over) => Some(Err(over)),
            })
        });
        waited.await?
    }

    /// It goes on, has had one stream and one model session of its own, and every question was answered; then it ends.
    pub(crate) async fn ensure_undisturbed(self) -> Result<()> {
        let turns = answered(&self.look().await?);
        self.answered_again(turns).await?;
        let call = self.look().await?;
        let unheard = |name: &str| ensure_none(&call, name);
        ensure!(events(&call, "streamStarted").len() == 1, "the quiet call lost its stream: {call:#}");
        unheard("streamEnded")?;
        unheard("webhookFailed")?;
        self.ensure_one_session(answered(&call)).await?;
        self.pod.hang_up(&self.sid).await?;
        let over = async || Ok((self.stage.call(&self.sid).await?["finished"] == true).then_some(()));
        wait_for("the quiet call's end", PATIENCE, over).await?;
        let ended = self.pod.call(&self.sid).await?;
        ensure!(ended["endReason"] == "operator_hung_up", "{ended:#}");
        Ok(())
    }
}

impl QuietCall<'_> {
    /// One session of the model, still open, heard every question: neither a second one nor the spare engine, whose
    /// sentence would sound like an answer, too.
    async fn ensure_one_session(&self, answered: usize) -> Result<()> {
        let sessions = self.stage.sessions_of(|words| words.contains(QUESTION)).await?;
        let [session] = sessions.as_slice() else {
            bail!("the quiet call had {} model sessions: {sessions:#?}", sessions.len());
        };
        ensure!(session.is_open, "the quiet call lost its model session: {session:#?}");
        let asked = session.heard().filter(|words| *words == QUESTION).count();
        ensure!(asked >= answered, "{asked} questions of {answered} were heard: {session:#?}");
        Ok(())
    }
}

fn ensure_none(call: &Value, name: &str) -> Result<()> {
    ensure!(events(call, name).is_empty(), "the quiet call had {name}: {call:#}");
    Ok(())
}

/// Questions that were followed by an answer to its end.
fn answered(call: &Value) -> usize {
    let mut asked = false;
    let mut answered = 0;
    for event in call["timeline"].as_array().into_iter().flatten() {
        match event["event"].as_str() {
            Some("callerStoppedSpeaking") => asked = true,
            Some("agentStoppedSpeaking") if asked => {
                asked = false;
                answered += 1;
            }
            _ => {}
        }
    }
    answered
}
