//! Tables of documents that are accepted and documents that are not.

use super::*;

const BASE: &str = "https://voice.example.com/moving/sales/twilio/voice";

fn read(body: &str) -> Twiml {
    parse(&format!("<Response>{body}</Response>"), Some(BASE)).unwrap()
}

fn post(url: &str) -> Callback {
    Callback { url: url.to_owned(), is_get: false }
}

#[test]
fn the_published_sample_is_read_in_full() {
    let text = r#"<?xml version="1.0" encoding="UTF-8"?>
<Response>
  <Connect action="https://api.example.com/twilio/after?call=1&amp;x=2" method="POST">
    <Stream name="agent" statusCallback="https://api.example.com/twilio/stream" statusCallbackMethod="POST" url="wss://media.example.com/twilio/media/abc">
      <Parameter name="agent" value="sales-&quot;A&quot; &amp; &lt;B&gt;" />
    </Stream>
  </Connect>
  <Say language="en-US" voice="Polly.Joanna">Zoë, bye</Say>
  <Hangup />
</Response>"#;
    let stream = Stream {
        url: "wss://media.example.com/twilio/media/abc".into(),
        name: Some("agent".into()),
        status_callback: Some(post("https://api.example.com/twilio/stream")),
        parameters: vec![("agent".into(), "sales-\"A\" & <B>".into())],
    };
    let verbs = vec![
        Verb::Connect { action: Some(post("https://api.example.com/twilio/after?call=1&x=2")), stream },
        Verb::Say { text: "Zoë, bye".into(), times: 1 },
        Verb::Hangup,
    ];
    assert_eq!(parse(text, Some(BASE)), Ok(Twiml { verbs, problems: vec![] }));
}

#[test]
fn every_verb_that_is_emitted_is_read() {
    let dial = |action| {
        let (numbers, caller_id) = (vec!["+15558675310".into()], None);
        Verb::Dial(Dial { numbers, action, timeout: 30, caller_id })
    };
    let table = [
        (r#"<Pause length="2"/><Pause/>"#, vec![Verb::Pause { seconds: 2 }, Verb::Pause { seconds: 1 }]),
        (
            r#"<Play loop="0">https://x.example.com/a.wav</Play>"#,
            vec![Verb::Play { url: "https://x.example.com/a.wav".into(), times: 0 }],
        ),
        (
            r#"<Redirect method="GET">../next?a=b</Redirect>"#,
            vec![Verb::Redirect(Callback {
                url: "https://voice.example.com/moving/sales/next?a=b".into(),
                is_get: true,
            })],
        ),
        (
            r#"<Reject/><Reject reason="busy"/>"#,
            vec![Verb::Reject { busy: false }, Verb::Reject { busy: true }],
        ),
        (
            r#"<Dial action="/after"><Number>+15558675310</Number></Dial>"#,
            vec![dial(Some(post("https://voice.example.com/after")))],
        ),
        ("<Dial>+15558675310</Dial>", vec![dial(None)]),
        ("", vec![]),
    ];
    for (body, verbs) in table {
        assert_eq!(read(body), Twiml { verbs, problems: vec![] }, "{body}");
    }
}

#[test]
fn a_relative_stream_url_becomes_wss() {
    let twiml = read(r#"<Connect><Stream url="/media"/></Connect>"#);
    let [Verb::Connect { stream, .. }] = twiml.verbs.as_slice() else { panic!("{twiml:?}") };
    assert_eq!(stream.url, "wss://voice.example.com/media");
}

#[test]
fn what_cannot_be_parsed_is_an_error() {
    for text in
        ["", "hello", "<Response>", "<Reply/>", "<response/>", "<Response/><Response/>", "<Response a=b/>"]
    {
        assert_eq!(parse(text, None).map_err(|refused| refused.rule), Err(Rule::TwimlParse), "{text}");
    }
}

#[test]
fn each_deviation_is_a_problem_of_its_rule() {
    let long = "x".repeat(496);
    let long = format!(
        r#"<Connect><Stream url="wss://a/b"><Parameter name="abcd" value="{long}"/></Stream></Connect>"#
    );
    let eleven = format!("<Dial>{}</Dial>", "<Number>+15558675310</Number>".repeat(11));
    let reason = format!(r#"<Dial callReason="{}">+15558675310</Dial>"#, "x".repeat(51));
    let table = [
        ("text", Rule::TwimlSchema),
        ("<say>hi</say>", Rule::TwimlSchema),
        ("<Gather/>", Rule::TwimlSchema),
        (r#"<Say Voice="x">hi</Say>"#, Rule::TwimlSchema),
        ("<Say></Say>", Rule::TwimlSchema),
        ("<Say>a<Pause/></Say>", Rule::TwimlSchema),
        (r#"<Pause length="soon"/>"#, Rule::TwimlSchema),
        ("<Hangup>now</Hangup>", Rule::TwimlSchema),
        (r#"<Hangup reason="x"/>"#, Rule::TwimlSchema),
        (r#"<Reject reason="tired"/>"#, Rule::TwimlSchema),
        ("<Connect/>", Rule::TwimlSchema),
        ("<Connect><Say>hi</Say></Connect>", Rule::TwimlSchema),
        (r#"<Connect url="x"><Stream url="wss://a/b"/></Connect>"#, Rule::TwimlSchema),
        (r#"<Connect method="PUT"><Stream url="wss://a/b"/></Connect>"#, Rule::TwimlSchema),
        (r#"<Connect><Stream url="wss://a/b"/><Stream url="wss://a/c"/></Connect>"#, Rule::TwimlSchema),
        (r#"<Connect><Stream url="wss://a/b" sampleRate="16000"/></Connect>"#, Rule::TwimlSchema),
        (r#"<Connect><Stream url="wss://a/b"><Parameter name="x"/></Stream></Connect>"#, Rule::TwimlSchema),
        (r#"<Connect><Stream url="wss://a/b"><Say>x</Say></Stream></Connect>"#, Rule::TwimlSchema),
        (r#"<Connect action="ftp://a/b"><Stream url="wss://a/b"/></Connect>"#, Rule::WebhookUrl),
        ("<Redirect>mailto:x</Redirect>", Rule::WebhookUrl),
        (r#"<Connect><Stream url="wss://a/b" statusCallback="/stream"/></Connect>"#, Rule::WebhookUrl),
        (r#"<Connect><Stream url="ws://a/b"/></Connect>"#, Rule::StreamScheme),
        (r#"<Connect><Stream url="https://a/b"/></Connect>"#, Rule::StreamScheme),
        ("<Connect><Stream/></Connect>", Rule::StreamUrl),
        (r#"<Connect><Stream url="wss://"/></Connect>"#, Rule::StreamUrl),
        (r#"<Connect><Stream url="wss://a/b?token=1"/></Connect>"#, Rule::StreamUrlQuery),
        (r#"<Connect><Stream url="wss://a:8443/b"/></Connect>"#, Rule::StreamUrlPort),
        (r#"<Connect><Stream url="wss://a:80/b"/></Connect>"#, Rule::StreamUrlPort),
        (r#"<Connect><Stream url="wss://a/b" track="both_tracks"/></Connect>"#, Rule::StreamTrack),
        (long.as_str(), Rule::StreamParameterTooLong),
        ("<Dial/>", Rule::TwimlSchema),
        (eleven.as_str(), Rule::TwimlSchema),
        (reason.as_str(), Rule::TwimlSchema),
        ("<Dial><Conference>x</Conference>+15558675310</Dial>", Rule::TwimlSchema),
    ];
    for (body, rule) in table {
        let rules: Vec<_> = read(body).problems.iter().map(|problem| problem.rule).collect();
        assert_eq!(rules, vec![rule], "{body}");
    }
    let rules: Vec<_> =
        read("<Dial>5558675310</Dial>").problems.into_iter().map(|problem| problem.rule).collect();
    assert_eq!(rules, vec![Rule::DialNumber, Rule::TwimlSchema]);
}

#[test]
fn without_a_base_a_relative_url_is_a_problem() {
    let twiml = parse("<Response><Redirect>/next</Redirect></Response>", None).unwrap();
    assert_eq!(twiml.verbs, vec![]);
    assert_eq!(twiml.problems.len(), 1);
}
