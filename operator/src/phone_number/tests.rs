//! Writing to the carrier and putting back, against a carrier of one number on a real socket.

use std::sync::{Arc, Mutex};

use axum::extract::{Form, State};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use twilio::rest::{Credentials, Transport, VoiceConfiguration};
use twilio::{NumberSid, Secret};

use super::diff::Desired;
use super::{release, status, write};
use crds::PhoneNumberStatus;
use crds::conditions::Reason;

const OLD: &str = "https://old.example.com/voice";

/// The one number, and whether the carrier keeps what it is told.
struct Carrier {
    fields: Mutex<Value>,
    keeps: bool,
}

/// A carrier whose number asks `OLD`.
async fn carrier(keeps: bool) -> (Arc<Carrier>, twilio::rest::Client) {
    let account = format!("AC{}", "0".repeat(32));
    let fields = json!({
        "sid": sid(), "account_sid": account, "phone_number": "+15551230001", "voice_url": OLD, "voice_method": "GET",
        "voice_application_sid": "", "trunk_sid": null,
    });
    let state = Arc::new(Carrier { fields: Mutex::new(fields), keeps });
    let path = format!("/2010-04-01/Accounts/{account}/IncomingPhoneNumbers/{}.json", sid());
    let router = Router::new().route(&path, get(show).post(update)).with_state(state.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, router).into_future());
    let credentials = Credentials::AuthToken(Secret::new("token"));
    let transport = Transport::new(None).unwrap();
    (state, twilio::rest::Client::new(transport, &base, account.parse().unwrap(), credentials))
}

async fn show(State(carrier): State<Arc<Carrier>>) -> Json<Value> {
    Json(carrier.fields.lock().unwrap().clone())
}

async fn update(State(carrier): State<Arc<Carrier>>, Form(form): Form<Vec<(String, String)>>) -> Json<Value> {
    let mut fields = carrier.fields.lock().unwrap();
    for (name, value) in form.into_iter().filter(|_| carrier.keeps) {
        let snake = name.char_indices().fold(String::new(), |mut snake, (index, letter)| {
            if letter.is_uppercase() && index > 0 {
                snake.push('_');
            }
            snake.push(letter.to_ascii_lowercase());
            snake
        });
        fields[snake] = json!(value);
    }
    Json(fields.clone())
}

fn sid() -> NumberSid {
    format!("PN{}", "0".repeat(32)).parse().unwrap()
}

fn desired() -> Desired {
    Desired { base: "https://voice.example.com/moving/sales/twilio".to_owned(), fallback_url: None }
}

/// The status when the carrier was told what is desired.
fn told() -> PhoneNumberStatus {
    PhoneNumberStatus { voice_url: Some(desired().voice_url()), ..PhoneNumberStatus::default() }
}

#[tokio::test]
async fn what_was_written_is_read_back_and_then_put_back() {
    let (_, client) = carrier(true).await;
    let before = client.fetch_number(&sid()).await.unwrap();
    let finding = write(&client, &before, &desired()).await.unwrap();
    assert_eq!(finding.reason, Reason::WebhooksInSync);

    let status = told();
    let released = release::put_back(&client, &sid(), &status, &before.voice).await.unwrap();
    assert_eq!(released, release::Released::Restored);
    let after: VoiceConfiguration = client.fetch_number(&sid()).await.unwrap().voice;
    assert_eq!(
        (after.voice_url, after.voice_method),
        (before.voice.voice_url.clone(), before.voice.voice_method.clone())
    );
    assert_eq!((after.status_callback, after.trunk_sid), (None, None));
    // Whose answer was lost does not take its own work for somebody else's.
    let again = release::put_back(&client, &sid(), &status, &before.voice).await.unwrap();
    assert_eq!(again, release::Released::Restored);
}

#[tokio::test]
async fn what_a_carrier_has_that_missed_the_last_move_is_put_back_all_the_same() {
    let (_, client) = carrier(true).await;
    let before = client.fetch_number(&sid()).await.unwrap();
    write(&client, &before, &desired()).await.unwrap();
    let mut status = PhoneNumberStatus { entry_agent: Some("sales".to_owned()), ..told() };
    let next = "https://new.example.com/moving/sales/twilio/voice";
    status::aim(&mut status, Some(&desired().voice_url()), "sales", next.to_owned());
    // And then nobody could tell the carrier.
    let released = release::put_back(&client, &sid(), &status, &before.voice).await.unwrap();
    assert_eq!(released, release::Released::Restored);
    assert_eq!(client.fetch_number(&sid()).await.unwrap().voice.voice_url.as_deref(), Some(OLD));
}

#[tokio::test]
async fn a_carrier_that_does_not_keep_a_write_is_told() {
    let (_, client) = carrier(false).await;
    let number = client.fetch_number(&sid()).await.unwrap();
    let finding = write(&client, &number, &desired()).await.unwrap();
    assert_eq!(finding.reason, Reason::WriteNotKept);
}

#[tokio::test]
async fn a_number_that_somebody_else_took_is_left_alone() {
    let (state, client) = carrier(true).await;
    let number = client.fetch_number(&sid()).await.unwrap();
    write(&client, &number, &desired()).await.unwrap();
    state.fields.lock().unwrap()["voice_url"] = json!("https://new.example.com/voice");
    let status = told();
    let released = release::put_back(&client, &sid(), &status, &number.voice).await.unwrap();
    assert_eq!(released, release::Released::UsedByOthers);
    assert_eq!(state.fields.lock().unwrap()["voice_url"], "https://new.example.com/voice");
}
