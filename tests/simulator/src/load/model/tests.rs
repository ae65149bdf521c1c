//! What does not reach the lean model as it was said is counted, and so is what the model never said.

use tokio::io::DuplexStream;
use tokio_tungstenite::client_async;

use super::*;

type Client = WebSocketStream<DuplexStream>;

fn shared() -> Arc<Shared> {
    let reply = DELTA * 2;
    Arc::new(Shared::new(Arc::new(Board::new(1)), Violations::default(), reply, None))
}

/// A session that is set up.
async fn session(shared: &Arc<Shared>) -> Client {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    tokio::spawn(converse(theirs, Arc::clone(shared)));
    let (mut socket, _) = client_async("ws://model.test/v1/realtime", ours).await.unwrap();
    let input = json!({"format": {"type": "audio/pcmu"}, "turn_detection": {"create_response": false}});
    say(
        &mut socket,
        json!({"type": "session.update", "session": {"type": "realtime", "audio": {"input": input}}}),
    )
    .await;
    until(&mut socket, "session.updated").await;
    socket
}

async fn say(socket: &mut Client, event: Value) {
    socket.send(Message::text(event.to_string())).await.unwrap();
}

async fn until(socket: &mut Client, kind: &str) -> Value {
    loop {
        let message = socket.next().await.unwrap().unwrap();
        let event: Value = serde_json::from_str(message.to_text().unwrap()).unwrap();
        if event["type"] == kind {
            return event;
        }
    }
}

/// These frames, and waits until the model has read them.
async fn append(socket: &mut Client, frames: impl IntoIterator<Item = String>) {
    for audio in frames {
        say(socket, json!({"type": "input_audio_buffer.append", "audio": audio})).await;
    }
    say(socket, json!({"type": "conversation.item.create", "item": {}})).await;
    until(socket, "conversation.item.done").await;
}

fn frame(call: u32, sequence: u32) -> String {
    let tag = Tag { sound: Sound::Silence, line: 0, call, sequence, sent: Duration::ZERO };
    tag.frame(&Filler::of_caller(Sound::Silence))
}

/// Missing and altered frames so far.
fn counted(shared: &Shared) -> (u64, u64) {
    let figures = shared.board.figures();
    let missing = figures.arrived.iter().map(|arrived| arrived.missing()).sum::<u64>();
    (figures.frames_missing + missing, figures.frames_altered)
}

#[tokio::test]
async fn a_session_that_replaces_another_may_hear_frames_again_but_may_miss_none() {
    let shared = shared();
    append(&mut session(&shared).await, (0..100).map(|nth| frame(1, nth))).await;
    append(&mut session(&shared).await, (50..150).map(|nth| frame(1, nth))).await;
    assert_eq!(counted(&shared), (0, 0));
    append(&mut session(&shared).await, [frame(1, 153)]).await;
    assert_eq!(counted(&shared), (3, 0));
    append(&mut session(&shared).await, [frame(2, 0), frame(2, 2)]).await;
    assert_eq!(counted(&shared), (4, 0), "the next call's, too");
}

#[tokio::test]
async fn frames_that_are_cut_changed_repeated_or_anothers_are_altered() {
    let shared = shared();
    let mut socket = session(&shared).await;
    let whole = frame(1, 1);
    let cut = whole[..whole.len() - 4].to_owned();
    let changed = format!("{}AAA=", &whole[..whole.len() - 4]);
    append(&mut socket, [frame(1, 0), cut, changed, frame(1, 0), frame(2, 1), whole]).await;
    assert_eq!(counted(&shared), (0, 4));
}

#[tokio::test]
async fn a_truncation_stays_within_its_own_item() {
    let shared = shared();
    let mut socket = session(&shared).await;
    let mut truncate = async |item: Option<&Value>, end: u64| {
        let item = match item {
            Some(item) => item.clone(),
            None => {
                say(&mut socket, json!({"type": "response.create"})).await;
                until(&mut socket, "response.done").await["response"]["output"][0]["id"].clone()
            }
        };
        let event = json!({"type": "conversation.item.truncate", "item_id": item, "audio_end_ms": end});
        say(&mut socket, event).await;
        until(&mut socket, "conversation.item.truncated").await;
        (item, shared.violations.count())
    };
    let (first, broken) = truncate(None, 200).await;
    assert_eq!(broken, 0, "to its end");
    let (_, broken) = truncate(None, 300).await;
    assert_eq!(broken, 1, "both together are longer, it is not");
    assert_eq!(truncate(Some(&first), 100).await.1, 1);
    assert_eq!(truncate(Some(&json!("item_of_nobody")), 0).await.1, 2);
    assert_eq!(shared.violations.rules(), [Rule::ModelTruncate; 2]);
}
