//! What the simulated model says: a script of turns, and the rule by which a request for exact words is obeyed.
//!
//! ```yaml
//! default: "Sorry, could you say that again?"
//! turns:
//! - heard: opening hours              # a part of what the caller said; `any` for whatever was said
//!   say: We are open from eight to six.
//! - heard: order
//!   call: {tool: lookup_order, arguments: {id: "42"}}
//!   thenSay: "It is on its way: {output}"
//! ```
//!
//! A turn is used once (`repeat: true`: any number of times); the first unused one in order that fits is taken.

use serde::Deserialize;

/// The whole script.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct ModelScript {
    /// Said when nobody has said anything yet and no words are given.
    pub opening: String,
    /// Said when no turn fits.
    pub default: String,
    /// Said when the model is asked to go on and nothing new was said.
    pub idle: String,
    /// In order.
    pub turns: Vec<Turn>,
}

/// One thing heard and what the model does about it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Turn {
    /// A part of what was heard, without regard to case; absent or `any`: whatever was heard.
    pub heard: Option<String>,
    /// Said first. `{heard}` is what was heard.
    pub say: Option<String>,
    /// Then this tool is called.
    pub call: Option<ScriptedCall>,
    /// Said when the tool's output is in. `{output}` is the output.
    pub then_say: Option<String>,
    /// Whether the turn can be used again.
    pub repeat: bool,
}

/// A tool call of the model.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScriptedCall {
    /// The tool's name.
    pub tool: String,
    /// Its arguments.
    #[serde(default)]
    pub arguments: serde_json::Map<String, serde_json::Value>,
}

impl Default for ModelScript {
    fn default() -> Self {
        Self {
            opening: "Hello, how can I help you?".to_owned(),
            default: "Sorry, could you say that again?".to_owned(),
            idle: "Is there anything else I can do for you?".to_owned(),
            turns: Vec::new(),
        }
    }
}

/// One step of a reply.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Act {
    Say(String),
    Call { call: ScriptedCall, then_say: Option<String> },
}

/// One session's place in the script.
#[derive(Debug)]
pub(super) struct Brain {
    script: ModelScript,
    used: Vec<bool>,
    waiting: Vec<(String, Option<String>)>,
}

impl Brain {
    pub(super) fn new(script: ModelScript) -> Self {
        Self { used: vec![false; script.turns.len()], script, waiting: Vec::new() }
    }

    /// Begins the conversation.
    pub(super) fn open(&self) -> Vec<Act> {
        vec![Act::Say(self.script.opening.clone())]
    }

    /// Goes on though nothing new was said.
    pub(super) fn go_on(&self) -> Vec<Act> {
        vec![Act::Say(self.script.idle.clone())]
    }

    /// What to do about what was heard.
    pub(super) fn answer(&mut self, heard: &str) -> Vec<Act> {
        let scripted = self.answer_if_scripted(heard);
        scripted.unwrap_or_else(|| vec![Act::Say(self.script.default.replace("{heard}", heard))])
    }

    /// What the script says about what was heard, if a turn fits.
    pub(super) fn answer_if_scripted(&mut self, heard: &str) -> Option<Vec<Act>> {
        let turns = self.script.turns.iter().zip(&mut self.used);
        let (turn, is_used) = turns.filter(|(_, is_used)| !**is_used).find(|(turn, _)| turn.fits(heard))?;
        *is_used = !turn.repeat;
        let mut acts: Vec<Act> =
            turn.say.iter().map(|words| Act::Say(words.replace("{heard}", heard))).collect();
        acts.extend(turn.call.clone().map(|call| Act::Call { call, then_say: turn.then_say.clone() }));
        Some(acts)
    }

    /// A call was made; its output is awaited.
    pub(super) fn called(&mut self, call_id: &str, then_say: Option<String>) {
        self.waiting.push((call_id.to_owned(), then_say));
    }

    /// What to say about outputs that came in; each once.
    pub(super) fn follow_up(&mut self, output_of: impl Fn(&str) -> Option<String>) -> Vec<Act> {
        let mut acts = Vec::new();
        self.waiting.retain(|(call_id, then_say)| match output_of(call_id) {
            None => true,
            Some(output) => {
                let words = then_say.as_deref().unwrap_or("All right, that is done.");
                acts.push(Act::Say(words.replace("{output}", &output)));
                false
            }
        });
        acts
    }
}

impl Turn {
    fn fits(&self, heard: &str) -> bool {
        match self.heard.as_deref() {
            None | Some("any") => true,
            Some(part) => heard.to_lowercase().contains(&part.to_lowercase()),
        }
    }
}

/// The words a `response.create` asks for by its instructions. The first that fits:
/// 1. "exactly …:" and a line break: all that follows, quotes and all;
/// 2. a colon and a quotation up to the end: the whole of it, quotes inside it too;
/// 3. the longest text in double quotes;
/// 4. "exactly …:": all that follows;
/// 5. everything.
pub(super) fn requested_words(instructions: &str) -> String {
    let text = instructions.trim();
    let from_exactly = text.to_ascii_lowercase().find("exactly").map(|at| &text[at..]);
    if let Some((_, words)) = from_exactly.and_then(|rest| rest.split_once(":\n")) {
        return words.trim().to_owned();
    }
    let marks: Vec<(usize, char)> =
        text.char_indices().filter(|(_, c)| matches!(c, '"' | '“' | '”')).collect();
    let before_last = text.trim_end_matches(['.', ' ']);
    if let [(first, opening), .., (last, closing)] = marks[..]
        && before_last.ends_with(closing)
        && text[..first].trim_end().ends_with(':')
    {
        return unescape(&text[first + opening.len_utf8()..last]);
    }
    let quoted = marks.chunks_exact(2).map(|pair| &text[pair[0].0 + pair[0].1.len_utf8()..pair[1].0]);
    if let Some(longest) = quoted.max_by_key(|words| words.len()).filter(|words| !words.trim().is_empty()) {
        return unescape(longest);
    }
    from_exactly.and_then(|rest| rest.split_once(':')).map_or(text, |(_, words)| words.trim()).to_owned()
}

fn unescape(quoted: &str) -> String {
    quoted.replace("\\\"", "\"").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script() -> ModelScript {
        serde_saphyr::from_str(
            "default: 'You said {heard}'
turns:
- heard: Hours
  say: Eight to six.
- heard: order
  call: {tool: lookup_order, arguments: {id: '42'}}
  thenSay: 'It is {output}.'
- heard: any
  say: Once only.
",
        )
        .expect("parses")
    }

    fn say(words: &str) -> Vec<Act> {
        vec![Act::Say(words.to_owned())]
    }

    #[test]
    fn turns_are_taken_in_order_once_and_then_the_default_answers() {
        let mut brain = Brain::new(script());
        assert_eq!(brain.answer("what are your hours?"), say("Eight to six."));
        assert_eq!(brain.answer("your hours again?"), say("Once only."));
        assert_eq!(brain.answer("hours"), say("You said hours"));
        assert_eq!(brain.open(), say("Hello, how can I help you?"));
    }

    #[test]
    fn a_call_is_followed_up_once_its_output_is_in() {
        let mut brain = Brain::new(script());
        let acts = brain.answer("My ORDER please");
        assert!(matches!(&acts[..], [Act::Call { call, .. }] if call.tool == "lookup_order"), "{acts:?}");
        brain.called("call_1", Some("It is {output}.".to_owned()));
        assert_eq!(brain.follow_up(|_| None), vec![]);
        assert_eq!(brain.follow_up(|_| Some("late".to_owned())), say("It is late."));
        assert_eq!(brain.follow_up(|_| Some("late".to_owned())), vec![]);
    }

    #[test]
    fn requested_words_are_found_in_any_phrasing() {
        let table = [
            ("Say exactly: \"Hello, this is Anna.\"", "Hello, this is Anna."),
            ("Say exactly the following, nothing else: \"Press \"one\" now.\"", "Press \"one\" now."),
            ("Say \"Hi\" and then \"Welcome to Movers\" kindly.", "Welcome to Movers"),
            ("Speak “Guten Tag” to the caller.", "Guten Tag"),
            ("Say exactly these words:\nHello there.", "Hello there."),
            ("Say exactly the words, and nothing \"else\":\n\nPress \"one\": now.", "Press \"one\": now."),
            ("Say exactly this: Hello there.", "Hello there."),
            ("Say: \"He said \\\"no\\\".\"", "He said \"no\"."),
            ("Greet the caller.", "Greet the caller."),
        ];
        for (instructions, words) in table {
            assert_eq!(requested_words(instructions), words, "{instructions}");
        }
    }
}
