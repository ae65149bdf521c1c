//! Against a small real server on loopback that remembers what it was asked.

use std::collections::VecDeque;
use std::sync::Mutex;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method as HttpMethod, StatusCode as HttpStatus, Uri};
use tokio::net::TcpListener;

use super::*;
use crate::signature::parse_form;
use crate::{CallSid, NumberSid};

const ACCOUNT: &str = "AC0123456789abcdef0123456789abcdef";
const NUMBER: &str = "PN0123456789abcdef0123456789abcdef";
const CALL: &str = "CA0123456789abcdef0123456789abcdef";
/// `AC…:token` in base64.
const BASIC: &str = "Basic QUMwMTIzNDU2Nzg5YWJjZGVmMDEyMzQ1Njc4OWFiY2RlZjp0b2tlbg==";

struct Answer {
    status: u16,
    retry_after: Option<&'static str>,
    body: String,
}

fn ok(body: impl Into<String>) -> Answer {
    Answer { status: 200, retry_after: None, body: body.into() }
}

fn refusal(status: u16, code: u32) -> Answer {
    let message = "The 'To' number +15550009999 is not valid";
    let body = format!(r#"{{"code":{code},"message":"{message}","more_info":"x","status":{status}}}"#);
    Answer { status, retry_after: None, body }
}

#[derive(Debug, PartialEq)]
struct Asked {
    line: String,
    authorization: String,
    form: Vec<(String, String)>,
}

#[derive(Default)]
struct Script {
    answers: Mutex<VecDeque<Answer>>,
    asked: Mutex<Vec<Asked>>,
}

impl Script {
    fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    fn lines(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.line).collect()
    }
}

async fn answer(
    State(script): State<Arc<Script>>,
    method: HttpMethod,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (HttpStatus, HeaderMap, String) {
    let authorization = headers.get("authorization").map_or("", |value| value.to_str().unwrap()).to_owned();
    let asked = Asked { line: format!("{method} {uri}"), authorization, form: parse_form(&body) };
    script.asked.lock().unwrap().push(asked);
    let answer =
        script.answers.lock().unwrap().pop_front().expect("the script has an answer for this request");
    let mut headers = HeaderMap::new();
    if let Some(seconds) = answer.retry_after {
        headers.insert("retry-after", seconds.parse().unwrap());
    }
    (HttpStatus::from_u16(answer.status).unwrap(), headers, answer.body)
}

async fn twilio_answering(answers: impl IntoIterator<Item = Answer>) -> (Arc<Script>, Client) {
    let script = Arc::new(Script { answers: Mutex::new(answers.into_iter().collect()), ..Script::default() });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/", listener.local_addr().unwrap());
    let app = axum::Router::new().fallback(answer).with_state(Arc::clone(&script));
    tokio::spawn(async move { axum::serve(listener, app).await });
    let credentials = Credentials::AuthToken(Secret::new("token"));
    let client = Client::new(Transport::new(None).unwrap(), &base, ACCOUNT.parse().unwrap(), credentials);
    (script, client)
}

fn number_json(phone_number: &str, more: &str) -> String {
    format!(
        r#"{{"sid":"{NUMBER}","account_sid":"{ACCOUNT}","phone_number":"{phone_number}","friendly_name":"",
        "voice_url":null,"voice_method":"POST","voice_fallback_url":"","voice_fallback_method":"POST",
        "status_callback":"","status_callback_method":"POST","voice_application_sid":"","trunk_sid":null,
        "capabilities":{{"voice":true,"sms":false,"mms":true,"fax":false}},"beta":null{more}}}"#
    )
}

fn number_sid() -> NumberSid {
    NUMBER.parse().unwrap()
}

fn call_sid() -> CallSid {
    CALL.parse().unwrap()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn the_account_is_fetched_with_basic_authentication() {
    let (script, client) =
        twilio_answering([ok(format!(r#"{{"sid":"{ACCOUNT}","status":"active","type":"Full"}}"#))]).await;
    let account = client.fetch_account().await.unwrap();
    assert_eq!(account, Account { sid: ACCOUNT.parse().unwrap(), status: AccountStatus::Active });
    let line = format!("GET /2010-04-01/Accounts/{ACCOUNT}.json");
    assert_eq!(script.asked(), [Asked { line, authorization: BASIC.to_owned(), form: Vec::new() }]);
}

#[tokio::test]
async fn an_api_key_authenticates_by_its_own_sid_under_the_account_s_path() {
    let (script, mut client) =
        twilio_answering([ok(format!(r#"{{"sid":"{ACCOUNT}","status":"new"}}"#))]).await;
    client.credentials = Credentials::ApiKey { sid: "SK1".to_owned(), secret: Secret::new("s") };
    assert_eq!(client.fetch_account().await.unwrap().status, AccountStatus::Unknown);
    assert_eq!(script.asked()[0].authorization, "Basic U0sxOnM=");
}

#[tokio::test]
async fn a_number_is_found_exactly_over_all_pages() {
    let next = format!("/2010-04-01/Accounts/{ACCOUNT}/IncomingPhoneNumbers.json?Page=1&PageToken=PA%2B1");
    let first = number_json("+155511122223", "");
    let second = number_json("+15551112222", r#","extra":{"unknown":1}"#);
    let pages = [
        ok(format!(r#"{{"incoming_phone_numbers":[{first}],"next_page_uri":"{next}"}}"#)),
        ok(format!(r#"{{"incoming_phone_numbers":[{second}],"next_page_uri":null}}"#)),
    ];
    let (script, client) = twilio_answering(pages).await;
    let found = client.find_number("+15551112222").await.unwrap().unwrap();
    assert_eq!(found.phone_number, "+15551112222");
    assert_eq!(found.friendly_name, None);
    assert_eq!(found.capabilities, Capabilities { voice: true, sms: false });
    let unset = VoiceConfiguration {
        voice_method: Some("POST".to_owned()),
        voice_fallback_method: Some("POST".to_owned()),
        status_callback_method: Some("POST".to_owned()),
        ..VoiceConfiguration::default()
    };
    assert_eq!(found.voice, unset);
    let list =
        format!("GET /2010-04-01/Accounts/{ACCOUNT}/IncomingPhoneNumbers.json?PhoneNumber=%2B15551112222");
    assert_eq!(script.lines(), [list, format!("GET {next}")]);
}

#[tokio::test]
async fn a_number_of_which_only_a_part_matches_is_not_found() {
    let page = format!(r#"{{"incoming_phone_numbers":[{}]}}"#, number_json("+155511122223", ""));
    let (_script, client) = twilio_answering([ok(page)]).await;
    assert_eq!(client.find_number("+15551112222").await.unwrap(), None);
}

#[tokio::test]
async fn a_next_page_elsewhere_is_not_followed() {
    for elsewhere in ["https://evil.example.com/x", "@evil.example.com/x"] {
        let page = format!(r#"{{"incoming_phone_numbers":[],"next_page_uri":"{elsewhere}"}}"#);
        let (script, client) = twilio_answering([ok(page)]).await;
        let error = client.find_number("+15551112222").await.unwrap_err();
        assert_eq!(error.fault(), Fault::Us);
        assert_eq!(script.asked().len(), 1);
    }
}

#[tokio::test]
async fn an_update_sends_only_the_fields_it_names_and_an_empty_one_clears() {
    let (script, client) = twilio_answering([ok(number_json("+15551112222", ""))]).await;
    let update = NumberUpdate {
        voice_url: Some("https://voice.example.com/a/b?x=1&y=2".to_owned()),
        voice_method: Some("POST".to_owned()),
        voice_application_sid: Some(String::new()),
        trunk_sid: Some(String::new()),
        ..NumberUpdate::default()
    };
    client.update_number(&number_sid(), &update).await.unwrap();
    let asked = script.asked();
    assert_eq!(
        asked[0].line,
        format!("POST /2010-04-01/Accounts/{ACCOUNT}/IncomingPhoneNumbers/{NUMBER}.json")
    );
    let sent = [
        ("VoiceUrl", "https://voice.example.com/a/b?x=1&y=2"),
        ("VoiceMethod", "POST"),
        ("VoiceApplicationSid", ""),
        ("TrunkSid", ""),
    ];
    assert_eq!(asked[0].form, pairs(&sent));
}

#[test]
fn restoring_puts_back_all_eight_fields_and_never_names_the_second_of_application_and_trunk() {
    let plain = VoiceConfiguration {
        voice_url: Some("https://old.example.com".to_owned()),
        voice_method: Some("GET".to_owned()),
        ..VoiceConfiguration::default()
    };
    let restored = NumberUpdate::restoring(&plain);
    let form = [
        ("VoiceUrl", "https://old.example.com"),
        ("VoiceMethod", "GET"),
        ("VoiceFallbackUrl", ""),
        ("StatusCallback", ""),
        ("VoiceApplicationSid", ""),
        ("TrunkSid", ""),
    ];
    assert_eq!(parse_form(restored.form().encode().as_bytes()), pairs(&form));

    let trunk = VoiceConfiguration { trunk_sid: Some("TK1".to_owned()), ..plain.clone() };
    assert_eq!(NumberUpdate::restoring(&trunk).voice_application_sid, None);
    let application = VoiceConfiguration { voice_application_sid: Some("AP1".to_owned()), ..plain };
    assert_eq!(NumberUpdate::restoring(&application).trunk_sid, None);
}

#[tokio::test]
async fn numbers_are_searched_bought_fetched_and_released() {
    let available = r#"{"available_phone_numbers":[{"phone_number":"+18089251571","iso_country":"US",
        "capabilities":{"mms":true,"SMS":true,"voice":true},"address_requirements":"none"}]}"#;
    let number = number_json("+18089251571", "");
    let released = Answer { status: 204, retry_after: None, body: String::new() };
    let labelled = number.replace(r#""friendly_name":"""#, r#""friendly_name":"switchboard 1""#);
    let owned = format!(r#"{{"incoming_phone_numbers":[{number},{labelled}],"next_page_uri":null}}"#);
    let answers =
        [ok(available), Answer { status: 201, ..ok(number.clone()) }, ok(owned), ok(number), released];
    let (script, client) = twilio_answering(answers).await;
    let search = NumberSearch {
        country: "US".parse().unwrap(),
        kind: NumberKind::Local,
        area_code: Some(808),
        contains: None,
        region: None,
        locality: Some("Hilo Bay".to_owned()),
    };
    let found = client.search_numbers(&search).await.unwrap();
    assert_eq!(found[0].capabilities, Capabilities { voice: true, sms: true });
    let bought = client.buy_number(&found[0].phone_number, "switchboard 1").await.unwrap();
    let labelled = client.find_labelled("switchboard 1").await.unwrap().unwrap();
    assert_eq!(labelled.friendly_name.as_deref(), Some("switchboard 1"));
    assert_eq!(client.fetch_number(&bought.sid).await.unwrap(), bought);
    client.release_number(&bought.sid).await.unwrap();
    let root = format!("/2010-04-01/Accounts/{ACCOUNT}");
    let lines = [
        format!(
            "GET {root}/AvailablePhoneNumbers/US/Local.json?VoiceEnabled=true&AreaCode=808&InLocality=Hilo+Bay"
        ),
        format!("POST {root}/IncomingPhoneNumbers.json"),
        format!("GET {root}/IncomingPhoneNumbers.json?FriendlyName=switchboard+1"),
        format!("GET {root}/IncomingPhoneNumbers/{NUMBER}.json"),
        format!("DELETE {root}/IncomingPhoneNumbers/{NUMBER}.json"),
    ];
    assert_eq!(script.lines(), lines);
}

#[tokio::test]
async fn a_call_is_created_with_repeated_event_keys_redirected_and_fetched() {
    let call = format!(r#"{{"sid":"{CALL}","status":"queued","direction":"outbound-api","duration":null}}"#);
    let answers = [Answer { status: 201, ..ok(call.clone()) }, ok(call.clone()), ok(call)];
    let (script, client) = twilio_answering(answers).await;
    let create = CreateCall {
        to: "+15550000001".to_owned(),
        from: "+15550000002".to_owned(),
        instructions: CallInstructions::Url("https://voice.example.com/v".to_owned()),
        status_callback: Some("https://voice.example.com/s".to_owned()),
        timeout_seconds: Some(30),
    };
    let created = client.create_call(&create).await.unwrap();
    assert_eq!(created.status, CallStatus::Queued);
    client.redirect_call(&created.sid, &CallInstructions::Twiml("<Response/>".to_owned())).await.unwrap();
    client.fetch_call(&created.sid).await.unwrap();
    let asked = script.asked();
    let form = [
        ("To", "+15550000001"),
        ("From", "+15550000002"),
        ("Url", "https://voice.example.com/v"),
        ("Method", "POST"),
        ("StatusCallback", "https://voice.example.com/s"),
        ("StatusCallbackEvent", "initiated"),
        ("StatusCallbackEvent", "ringing"),
        ("StatusCallbackEvent", "answered"),
        ("StatusCallbackEvent", "completed"),
        ("Timeout", "30"),
    ];
    assert_eq!(asked[0].form, pairs(&form));
    assert_eq!(asked[1].form, pairs(&[("Twiml", "<Response/>")]));
}

#[tokio::test]
async fn hanging_up_a_call_that_is_over_is_no_error() {
    let live = ok(format!(r#"{{"sid":"{CALL}","status":"completed"}}"#));
    let answers = [live, refusal(400, 21220), refusal(404, 20404), refusal(401, 20003)];
    let (_script, client) = twilio_answering(answers).await;
    assert_eq!(client.hang_up(&call_sid()).await.unwrap(), HangUp::Ended);
    assert_eq!(client.hang_up(&call_sid()).await.unwrap(), HangUp::AlreadyOver);
    assert_eq!(client.hang_up(&call_sid()).await.unwrap(), HangUp::AlreadyOver);
    assert!(matches!(client.hang_up(&call_sid()).await, Err(Error::Authentication { .. })));
}

#[tokio::test]
async fn a_message_is_sent() {
    let (script, client) =
        twilio_answering([ok(r#"{"sid":"SM1","status":"queued","num_segments":"1"}"#)]).await;
    let message =
        CreateMessage { to: "+1555".to_owned(), from: "+1556".to_owned(), body: "See you & bye".to_owned() };
    assert_eq!(client.create_message(&message).await.unwrap().sid, "SM1");
    assert_eq!(
        script.asked()[0].form,
        pairs(&[("To", "+1555"), ("From", "+1556"), ("Body", "See you & bye")])
    );
}

#[tokio::test]
async fn refusals_are_classified_by_whose_fault_they_are_and_quote_no_number() {
    let limited = Answer { retry_after: Some("7"), ..refusal(429, 20429) };
    let gateway = Answer { status: 502, retry_after: None, body: "<html>bad gateway</html>".to_owned() };
    let cases = [
        (
            refusal(401, 20003),
            Fault::User,
            "Twilio refused the credentials: authentication failed or permission denied (code 20003)",
        ),
        (
            refusal(400, 20005),
            Fault::User,
            "Twilio refused the credentials: the account is not active (code 20005)",
        ),
        (refusal(404, 20404), Fault::User, "Twilio does not know it: not found (code 20404)"),
        (
            refusal(400, 21211),
            Fault::User,
            "Twilio refused the request with status 400: the called number is missing, invalid or not allowed (code 21211)",
        ),
        (refusal(400, 99999), Fault::User, "Twilio refused the request with status 400: code 99999"),
        (limited, Fault::Twilio, "Twilio is asked too often"),
        (gateway, Fault::Twilio, "Twilio is unavailable, status 502"),
        (
            Answer { status: 302, ..ok("") },
            Fault::Us,
            "unexpected answer from Twilio: neither a success nor an error status",
        ),
        (ok("{}"), Fault::Us, "unexpected answer from Twilio: the answer is not the expected JSON"),
    ];
    for (answer, fault, text) in cases {
        let (_script, client) = twilio_answering([answer]).await;
        let error = client.fetch_call(&call_sid()).await.unwrap_err();
        assert_eq!(error.to_string(), text);
        assert_eq!(error.fault(), fault, "{text}");
        assert!(!format!("{error:?}").contains("+1555"));
    }
}

#[tokio::test]
async fn retry_after_is_honoured_in_seconds_and_not_required() {
    let date = Answer { retry_after: Some("Wed, 21 Oct 2026 07:28:00 GMT"), ..refusal(503, 20503) };
    let answers = [Answer { retry_after: Some("7"), ..refusal(429, 20429) }, refusal(429, 20429), date];
    let (_script, client) = twilio_answering(answers).await;
    let mut waits = Vec::new();
    for _ in 0..3 {
        waits.push(client.fetch_account().await.unwrap_err().retry_after());
    }
    assert_eq!(waits, [Some(Duration::from_secs(7)), None, None]);
}

#[tokio::test]
async fn nobody_listening_is_a_transport_error_without_the_url() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let credentials = Credentials::AuthToken(Secret::new("token"));
    let client = Client::new(Transport::new(None).unwrap(), &base, ACCOUNT.parse().unwrap(), credentials);
    let error = client.find_number("+15551112222").await.unwrap_err();
    assert!(matches!(error, Error::Transport { failure: TransportFailure::Connect, .. }), "{error:?}");
    assert!(!format!("{error:?}").contains("5551112222"));
}

#[test]
fn an_extra_ca_that_is_no_certificate_is_refused() {
    for pem in [&b"nonsense"[..], b"-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n"] {
        assert!(matches!(Transport::new(Some(pem)), Err(TransportError::ExtraCertificates)));
    }
}

#[test]
fn a_country_that_would_leave_its_path_segment_is_refused() {
    for text in ["", "U", "us", "../", "U/", "USA", "Ü"] {
        assert_eq!(text.parse::<CountryCode>(), Err(InvalidCountryCode), "{text}");
    }
}

/// A server with a certificate of its own authority, which answers every request with an account.
async fn https_twilio() -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = rcgen::CertifiedIssuer::self_signed(parameters, key).unwrap();
    let server_key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()])
        .unwrap()
        .signed_by(&server_key, &authority)
        .unwrap();
    let private = rustls_pki_types::PrivateKeyDer::try_from(server_key.serialize_der()).unwrap();
    let config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)
            .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            // A peer that does not trust us gives up here.
            let Ok(mut socket) = acceptor.accept(socket).await else { continue };
            let body = format!(r#"{{"sid":"{ACCOUNT}","status":"active"}}"#);
            let mut request = [0; 2048];
            let _ = tokio::io::AsyncReadExt::read(&mut socket, &mut request).await;
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            let _ = tokio::io::AsyncWriteExt::write_all(&mut socket, answer.as_bytes()).await;
            let _ = tokio::io::AsyncWriteExt::shutdown(&mut socket).await;
        }
    });
    (base, authority.pem())
}

#[tokio::test]
async fn an_extra_ca_is_trusted_and_without_it_the_server_is_not() {
    let (base, authority) = https_twilio().await;
    let fetch = async |extra: Option<&[u8]>| {
        let credentials = Credentials::AuthToken(Secret::new("token"));
        let transport = Transport::new(extra).unwrap();
        Client::new(transport, &base, ACCOUNT.parse().unwrap(), credentials).fetch_account().await
    };
    assert_eq!(fetch(Some(authority.as_bytes())).await.unwrap().status, AccountStatus::Active);
    let error = fetch(None).await.unwrap_err();
    assert!(matches!(error, Error::Transport { failure: TransportFailure::Connect, .. }), "{error:?}");
}
