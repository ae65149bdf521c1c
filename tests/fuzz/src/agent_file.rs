//! The documents a pod is configured by, as JSON and as YAML.

use call_session::agent_file::{AgentFile, Keyring};
use call_session::plan::{Plan, Variables};
use call_session::{Call, Epoch, Ms, Start};
use media_pod::agent::parse;

/// Whatever people write is refused or makes a call that can begin, and written again it is read the same.
pub(crate) fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let _ = parse::<Keyring>(&text);
    let Ok(agent) = parse::<AgentFile>(&text) else { return };
    let again = serde_json::to_string(&agent).expect("an agent file is JSON");
    assert_eq!(parse::<AgentFile>(&again).expect("what was accepted is accepted again"), agent);
    let variables = Variables::default().with("caller", "{{caller}}");
    let plan = Plan::new(&agent, &variables);
    let mut call = Call::new(plan.into(), Epoch(1), Start::Fresh, Ms::ZERO, 1);
    crate::call::drain(&mut call, &mut |_| {});
}
