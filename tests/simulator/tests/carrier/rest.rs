//! The REST API over the wire, as a client of the product sees it.

use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use simulator::caller::{Patience, Step};
use simulator::carrier::{Account, Answers, Callee, Carrier};
use simulator::violations::Rule;
use tokio::net::TcpListener;

use crate::product::{NUMBER, PUBLIC, Product, Script, start, start_with};

const PN: &str = "PN00000000000000000000000000000001";

struct Rest {
    http: Client,
    base: String,
    account: Account,
}

impl Rest {
    async fn of(carrier: &Carrier) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let router = carrier.router();
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let account = Account::demo();
        Self { http: Client::builder().no_proxy().build().unwrap(), base, account }
    }

    async fn send(&self, method: Method, path: &str, form: &[(&str, &str)]) -> (StatusCode, Value) {
        let url = format!("{}/2010-04-01/Accounts/{}{path}", self.base, self.account.sid);
        let query = if method == Method::GET { form } else { &[] };
        let url = reqwest::Url::parse_with_params(&url, query).unwrap();
        let request = self.http.request(method.clone(), url);
        let request = request.basic_auth(&self.account.sid, Some(&self.account.auth_token));
        let request = if method == Method::GET { request } else { request.form(form) };
        let response = request.send().await.unwrap();
        (response.status(), response.json().await.unwrap_or_default())
    }

    async fn get(&self, path: &str, query: &[(&str, &str)]) -> (StatusCode, Value) {
        self.send(Method::GET, path, query).await
    }

    async fn post(&self, path: &str, form: &[(&str, &str)]) -> (StatusCode, Value) {
        self.send(Method::POST, path, form).await
    }
}

async fn prepared(script: Script) -> (Carrier, Product, Rest) {
    let (carrier, product) = start(script).await;
    let rest = Rest::of(&carrier).await;
    (carrier, product, rest)
}

#[tokio::test]
async fn every_request_is_logged_as_it_was_answered() {
    let (_, _, rest) = prepared(Script::default()).await;
    rest.get("/IncomingPhoneNumbers.json", &[("PhoneNumber", "5551230001")]).await;
    rest.post(&format!("/IncomingPhoneNumbers/{PN}.json"), &[("VoiceUrl", "https://a.example/v")]).await;
    rest.post(&format!("/IncomingPhoneNumbers/{PN}.json"), &[("VoiceMethod", "PUT")]).await;
    let log = async |skip: u32| -> Value {
        let url = format!("{}/_sim/requests?skip={skip}", rest.base);
        rest.http.get(url).send().await.unwrap().json().await.unwrap()
    };
    let path = format!("/2010-04-01/Accounts/{}/IncomingPhoneNumbers/{PN}.json", rest.account.sid);
    let all = log(0).await;
    assert_eq!((&all["count"], all["requests"].as_array().map(Vec::len)), (&json!(3), Some(3)));
    assert_eq!(all["requests"][0]["fields"], json!([["PhoneNumber", "5551230001"]]));
    let written = json!({
        "method": "POST", "path": path, "fields": [["VoiceUrl", "https://a.example/v"]], "status": 200,
    });
    let mut told = log(1).await["requests"][0].take();
    let when = told.as_object_mut().and_then(|told| told.remove("atMilliseconds"));
    assert!(when.is_some_and(|when| when.as_i64() > Some(0)));
    told.as_object_mut().and_then(|told| told.remove("from"));
    assert_eq!(told, written);
    assert_eq!(log(2).await["requests"][0]["status"], 400);
    assert_eq!(log(3).await, json!({"count": 3, "requests": []}));
}

#[tokio::test]
async fn a_number_is_found_changed_and_read_back() {
    let (carrier, _, rest) = prepared(Script::default()).await;
    let (status, list) = rest.get("/IncomingPhoneNumbers.json", &[("PhoneNumber", "5551230001")]).await;
    assert_eq!((status, &list["incoming_phone_numbers"][0]["sid"]), (StatusCode::OK, &json!(PN)));
    assert_eq!(list["next_page_uri"], Value::Null);
    let (_, none) = rest.get("/IncomingPhoneNumbers.json", &[("PhoneNumber", "+49")]).await;
    assert_eq!(none["incoming_phone_numbers"], json!([]));
    let path = format!("/IncomingPhoneNumbers/{PN}.json");
    let form = [("VoiceUrl", "https://new.test/voice"), ("VoiceMethod", "GET"), ("StatusCallback", "")];
    let (status, changed) = rest.post(&path, &form).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        (&changed["voice_url"], &changed["voice_method"]),
        (&json!("https://new.test/voice"), &json!("GET"))
    );
    assert_eq!(rest.get(&path, &[]).await.1, changed);
    assert_eq!(carrier.violations().list(), vec![]);
}

#[tokio::test]
async fn pages_are_followed_by_their_uri() {
    let (carrier, _) = start_with(Script::default(), |settings| {
        for index in 2..=5 {
            let sid = format!("PN0000000000000000000000000000000{index}");
            settings.numbers.push(simulator::carrier::Number::new(&sid, &format!("+1555123000{index}")));
        }
    })
    .await;
    let rest = Rest::of(&carrier).await;
    let (_, first) = rest.get("/IncomingPhoneNumbers.json", &[("PageSize", "2")]).await;
    let (mut found, mut next) = (Vec::new(), Some(first));
    while let Some(page) = next {
        found.extend(page["incoming_phone_numbers"].as_array().unwrap().clone());
        next = match page["next_page_uri"].as_str() {
            Some(uri) => {
                let request = rest.http.get(format!("{}{uri}", rest.base));
                let request = request.basic_auth(&rest.account.sid, Some(&rest.account.auth_token));
                Some(request.send().await.unwrap().json().await.unwrap())
            }
            None => None,
        };
    }
    let found: Vec<_> =
        found.iter().map(|number| number["phone_number"].as_str().unwrap().to_owned()).collect();
    assert_eq!(found, (1..=5).map(|index| format!("+1555123000{index}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_the_real_api_refuses_is_refused_with_its_code_and_recorded() {
    let number = format!("/IncomingPhoneNumbers/{PN}.json");
    let twiml = ("Twiml", "<Response/>");
    let long = "1".repeat(4001);
    let (to, from) = (("To", "+15558675310"), ("From", NUMBER));
    type Refusal<'a> = (&'a str, Vec<(&'a str, &'a str)>, u16, u32, Rule);
    let table: Vec<Refusal<'_>> = vec![
        (&number, vec![("VoiceUrl", "nowhere")], 400, 21402, Rule::RestValue),
        (&number, vec![("VoiceMethod", "PATCH")], 400, 21403, Rule::RestValue),
        (&number, vec![("FriendlyName", &long[..65])], 400, 20422, Rule::RestValue),
        ("/IncomingPhoneNumbers.json", vec![], 400, 20422, Rule::RestValue),
        ("/IncomingPhoneNumbers.json", vec![("PhoneNumber", "911")], 400, 21421, Rule::RestValue),
        ("/Calls.json", vec![from, twiml], 400, 21201, Rule::RestValue),
        ("/Calls.json", vec![("To", "911"), from, twiml], 400, 21211, Rule::RestValue),
        ("/Calls.json", vec![to, ("From", "+15550000000"), twiml], 400, 21210, Rule::RestValue),
        ("/Calls.json", vec![to, from], 400, 21205, Rule::RestValue),
        (
            "/Calls.json",
            vec![to, from, twiml, ("StatusCallbackEvent", "initiated answered")],
            400,
            20422,
            Rule::RestValue,
        ),
        ("/Calls.json", vec![to, from, ("Twiml", &long)], 400, 20422, Rule::RestValue),
        ("/Calls.json", vec![to, from, twiml, ("SendDigits", &long[..33])], 400, 20422, Rule::RestValue),
        ("/Calls.json", vec![to, from, twiml, ("Timeout", "601")], 400, 20422, Rule::RestValue),
        ("/Calls.json", vec![to, from, ("Url", "/voice")], 400, 21205, Rule::RestValue),
        ("/Queues.json", vec![], 404, 20404, Rule::RestPath),
    ];
    for (path, form, status, code, rule) in table {
        let (carrier, _, rest) = prepared(Script::default()).await;
        let (answered, error) = rest.post(path, &form).await;
        assert_eq!(
            (answered.as_u16(), &error["code"], &error["status"]),
            (status, &json!(code), &json!(status)),
            "{path} {form:?}"
        );
        assert_eq!(carrier.violations().rules(), vec![rule], "{path} {form:?}");
    }
}

#[tokio::test]
async fn an_unknown_field_or_a_json_body_is_ignored_and_recorded_and_a_wrong_password_is_only_refused() {
    let (carrier, _, rest) = prepared(Script::default()).await;
    let path = format!("/IncomingPhoneNumbers/{PN}.json");
    assert_eq!(rest.post(&path, &[("VoiceURL", "https://a/b")]).await.0, StatusCode::OK);
    let url = format!("{}/2010-04-01/Accounts/{}{path}", rest.base, rest.account.sid);
    let json = rest.http.post(&url).basic_auth(&rest.account.sid, Some(&rest.account.auth_token));
    json.json(&json!({"VoiceUrl": "https://a/b"})).send().await.unwrap();
    let wrong = rest.http.get(&url).basic_auth(&rest.account.sid, Some("wrong")).send().await.unwrap();
    assert_eq!(wrong.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(rest.get("/IncomingPhoneNumbers/PN1.json", &[]).await.0, StatusCode::NOT_FOUND);
    assert_eq!(rest.get(&path, &[]).await.1["voice_url"], format!("{PUBLIC}/voice"));
    assert_eq!(carrier.violations().rules(), vec![Rule::RestField, Rule::RestBody]);
}

#[tokio::test]
async fn a_running_call_is_redirected_and_an_ended_one_is_not() {
    let (carrier, product, rest) = prepared(Script::default()).await;
    let steps = vec![Step::ExpectHangUp(Patience { seconds: 10 })];
    let record = carrier.place_inbound("+15557654321", NUMBER, steps).unwrap();
    let path = format!("/Calls/{}.json", record.sid);
    let streaming = async {
        while !product.seen.lock().unwrap().messages.iter().any(|message| message["event"] == "media") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), streaming).await.unwrap();
    let (status, call) = rest.post(&path, &[("Twiml", "<Response><Say>Bye.</Say></Response>")]).await;
    assert_eq!((status, &call["status"]), (StatusCode::OK, &json!("in-progress")));
    let view = record.finished().await;
    assert_eq!(product.paths(), vec!["/voice", "/status"]);
    let last = product.seen.lock().unwrap().messages.last().unwrap().clone();
    assert_eq!(last["event"], "stop");
    assert_eq!(view.failed_step, None);
    let (status, error) = rest.post(&path, &[("Status", "completed")]).await;
    assert_eq!((status, &error["code"]), (StatusCode::BAD_REQUEST, &json!(21220)));
    let (_, call) = rest.get(&path, &[]).await;
    assert_eq!((&call["status"], call["duration"].is_string()), (&json!("completed"), true));
    assert_eq!(carrier.violations().list(), vec![]);
}

#[tokio::test]
async fn an_outbound_call_reports_its_progress_and_runs_its_twiml() {
    for (answers, expected) in [(Answers::Yes, "completed"), (Answers::No, "no-answer")] {
        let callee = Callee { number: "+15558675310".into(), answers, after_milliseconds: 50, steps: vec![] };
        let callee = Callee { steps: vec![Step::ExpectHangUp(Patience { seconds: 5 })], ..callee };
        let (carrier, product) =
            start_with(Script::default(), |settings| settings.callees.push(callee)).await;
        let rest = Rest::of(&carrier).await;
        let callback = format!("{PUBLIC}/status");
        let form = [
            ("To", "+15558675310"),
            ("From", NUMBER),
            ("Twiml", "<Response><Say>Hello.</Say></Response>"),
            ("Timeout", "1"),
            ("StatusCallback", callback.as_str()),
            ("StatusCallbackEvent", "answered"),
            ("StatusCallbackEvent", "completed"),
        ];
        let (status, call) = rest.post("/Calls.json", &form).await;
        assert_eq!((status, &call["direction"]), (StatusCode::CREATED, &json!("outbound-api")));
        carrier.call(call["sid"].as_str().unwrap()).unwrap().finished().await;
        let answered = usize::from(answers == Answers::Yes);
        assert_eq!(product.paths().len(), 1 + answered);
        let (_, call) = rest.get(&format!("/Calls/{}.json", call["sid"].as_str().unwrap()), &[]).await;
        assert_eq!(call["status"], expected);
        assert_eq!(carrier.violations().list(), vec![]);
    }
}
