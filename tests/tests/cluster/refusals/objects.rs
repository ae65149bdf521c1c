//! Valid objects: with every field, with as much as fits, and with as little as is needed.

use serde_json::{Value, json};

pub(crate) const VERSION: &str = "v1alpha1";
pub(crate) const SID: &str = "PN000000000000000000000000000000ff";
const ACCOUNT: &str = "AC00000000000000000000000000000001";

/// Every field of every kind is in one of these at least.
pub(super) fn all() -> Vec<Value> {
    let agents = [agent(), manual_agent(), builtin_agent(), external_agent(), forwarding_agent()];
    let numbers = [number(), number_by_sid(), number_to_buy()];
    [&[gateway(), routed_gateway()], &agents[..], &numbers].concat()
}

pub(super) fn gateway() -> Value {
    object(
        "VoiceGateway",
        "refused",
        json!({
            "publicUrl": "https://voice.example.com",
            "exposure": {"type": "Ingress", "drainSeconds": 300, "ingress": {
                "className": "nginx", "tlsSecretName": "voice-tls", "annotations": {"a.example/b": "c"},
            }},
            "carrier": {"type": "Twilio", "twilio": {
                "accountSid": ACCOUNT,
                "authTokenSecretRefs": [secret("twilio"), secret("twilio-next")],
                "apiKey": {"sid": "SK00000000000000000000000000000001", "secretRef": secret("twilio-api")},
                "apiBaseUrl": "http://10.240.0.1:4010",
            }},
            "streamKeys": {"maxAgeDays": 30},
            "store": {"type": "Redis", "redis": {"urlSecretRef": secret("redis")}},
        }),
    )
}

pub(super) fn routed_gateway() -> Value {
    let mut gateway = gateway();
    gateway["spec"]["exposure"] = json!({"type": "HTTPRoute", "httpRoute": {
        "parentRefs": [{"name": "edge", "namespace": "infra", "sectionName": "https"}],
    }});
    gateway
}

pub(super) fn agent() -> Value {
    object(
        "VoiceAgent",
        "refused",
        json!({
            "gatewayRef": {"name": "default"},
            "image": "registry.example.com/media:1",
            "persona": {
                "language": "en-US",
                "instructions": {"configMapKeyRef": {"name": "prompt", "key": "prompt.txt"}},
                "greeting": {"text": "Hello.", "interruption": "Disallowed"},
            },
            "engines": [
                {"name": "primary", "type": "Realtime", "realtime": {
                    "url": "wss://model.example.com/v1/realtime",
                    "model": "gpt-realtime-2.1",
                    "voice": "marin",
                    "apiKeySecretRef": secret("openai"),
                    "warmSessionsPerPod": 2,
                    "noiseReduction": "NearField",
                    "transcription": {"model": "gpt-transcribe"},
                    "turnDetection": {"type": "ServerVAD", "serverVAD": {
                        "thresholdPercent": 50, "prefixPaddingMilliseconds": 300, "silenceMilliseconds": 500,
                    }},
                }},
                {"name": "spare", "type": "Simulated", "simulated": {"replies": ["Sorry."]}},
            ],
            "interruption": {"mode": "Confirmed", "minSpeechMilliseconds": 200},
            "limits": {
                "maxCallSeconds": 600, "silenceSeconds": 30, "maxConcurrentCalls": 60,
                "maxCallsPerCallerPerHour": 10, "maxMinutesPerDay": 1000,
            },
            "overflow": {"type": "Message", "waitSeconds": 30, "message": {"text": "Busy."}},
            "recovery": {"type": "WithContext", "attempts": 2},
            "scaling": {"type": "Autoscaler", "maxCallsPerPod": 30, "autoscaler": {
                "minReplicas": 2, "maxReplicas": 10, "targetCallsPerPod": 20,
                "scaleDown": {"stabilizationSeconds": 300, "podsPerMinute": 1},
            }},
            "drain": {"windowSeconds": 270},
            "suspend": false,
            "transferTargets": [{"name": "dispatch", "phoneNumber": "+15551230009"}],
            "api": {"bearerTokenSecretRef": secret("api")},
            "networkPolicy": {"type": "Doors", "doors": {
                "publicNamespaces": ["edge"], "apiNamespaces": ["crm"], "adminNamespaces": ["monitoring"],
            }},
            "monitoring": {"type": "PodMonitor", "podMonitor": {
                "intervalSeconds": 15, "labels": {"release": "prometheus"},
            }},
            "updatePolicy": {"type": "OnSpecChange"},
            "podTemplate": {"spec": {"priorityClassName": "high"}},
        }),
    )
}

/// What excludes what [`agent`] has.
fn manual_agent() -> Value {
    let mut agent = agent();
    agent["spec"]["persona"]["instructions"] = json!({"text": "Be brief."});
    agent["spec"]["scaling"] = json!({"type": "Manual", "manual": {"replicas": 3}, "maxCallsPerPod": 30});
    agent["spec"]["engines"][0]["realtime"]["turnDetection"] =
        json!({"type": "SemanticVAD", "semanticVAD": {"eagerness": "High"}});
    agent["spec"]["overflow"] = json!({"type": "Agent", "agent": {"agentRef": {"name": "night"}}});
    agent
}

/// And what excludes both.
fn forwarding_agent() -> Value {
    let mut agent = agent();
    agent["spec"]["overflow"] = json!({"type": "Forward", "forward": {"transferTarget": "dispatch"}});
    agent
}

pub(super) fn builtin_agent() -> Value {
    let mut agent = agent();
    agent["spec"]["scaling"] = json!({"type": "Builtin", "maxCallsPerPod": 30, "builtin": {
        "minReplicas": 2, "maxReplicas": 10, "targetCallsPerPod": 20,
        "scaleDown": {"stabilizationSeconds": 300, "podsPerMinute": 1},
    }});
    agent
}

fn external_agent() -> Value {
    let mut agent = agent();
    agent["spec"]["scaling"] =
        json!({"type": "External", "maxCallsPerPod": 30, "external": {"initialReplicas": 2}});
    agent
}

pub(super) fn number() -> Value {
    object(
        "PhoneNumber",
        "refused",
        json!({
            // A gateway that does not exist, so that nobody asks a carrier about these.
            "gatewayRef": {"name": "nowhere"},
            "source": {"type": "E164", "e164": "+15559990001"},
            "routes": [
                {"agentRef": {"name": "sales"}, "weight": 90},
                {"agentRef": {"name": "canary"}, "weight": 10},
            ],
            "claimPolicy": "Force",
            "driftPolicy": "Warn",
            "deletionPolicy": "Retain",
            "fallbackUrl": "https://static.example.com/sorry.xml",
        }),
    )
}

fn number_by_sid() -> Value {
    let mut number = number();
    number["spec"]["source"] = json!({"type": "SID", "sid": SID});
    number
}

fn number_to_buy() -> Value {
    let mut number = number();
    number["spec"]["source"] = json!({"type": "Purchase", "purchase": {
        "country": "US", "numberType": "TollFree", "areaCode": 833, "contains": "555*",
    }});
    number["spec"]["deletionPolicy"] = json!("Release");
    number
}

/// As much as the schemas allow, because CEL's budget is counted at run time too.
pub(super) fn longest() -> [Value; 3] {
    let mut gateway = gateway();
    let annotations = (0..64).map(|i| (format!("a.example/annotation-{i}"), json!("x".repeat(200))));
    gateway["spec"]["exposure"]["ingress"]["annotations"] = Value::Object(annotations.collect());
    gateway["metadata"]["name"] = json!("g".repeat(40));
    let mut agent = manual_agent();
    agent["metadata"]["name"] = json!("a".repeat(40));
    agent["spec"]["persona"]["instructions"] = json!({"text": "x".repeat(32768)});
    let replies = vec!["y".repeat(2000); 64];
    let mut engines = vec![agent["spec"]["engines"][0].clone()];
    engines[0]["realtime"]["url"] = json!(format!("wss://{}", "u".repeat(250)));
    engines.extend((1..4).map(
        |i| json!({"name": format!("spare-{i}"), "type": "Simulated", "simulated": {"replies": replies}}),
    ));
    agent["spec"]["engines"] = json!(engines);
    let targets = (0..32)
        .map(|i| json!({"name": format!("{i:t>64}"), "phoneNumber": "+155512300091234"}))
        .collect::<Vec<_>>();
    agent["spec"]["transferTargets"] = json!(targets);
    let namespaces = (0..16).map(|i| json!(format!("{i:n>63}"))).collect::<Vec<_>>();
    agent["spec"]["networkPolicy"]["doors"] =
        json!({"publicNamespaces": namespaces, "apiNamespaces": namespaces, "adminNamespaces": namespaces});
    let mut number = number();
    let routes = (0..16).map(|i| json!({"agentRef": {"name": format!("{i:a>40}")}, "weight": 1000}));
    number["spec"]["routes"] = routes.collect();
    [gateway, agent, number]
}

/// The least that is accepted, and the spec that becomes of it.
pub(super) fn smallest() -> [(Value, Value); 3] {
    let twilio = json!({"accountSid": ACCOUNT, "authTokenSecretRefs": [secret("twilio")]});
    let gateway = json!({
        "publicUrl": "https://voice.example.com",
        "carrier": {"type": "Twilio", "twilio": twilio},
        "store": {"type": "Memory"},
    });
    let mut full_gateway = gateway.clone();
    full_gateway["exposure"] = json!({"type": "Ingress"});
    full_gateway["streamKeys"] = json!({"maxAgeDays": 90});
    full_gateway["carrier"]["twilio"]["apiBaseUrl"] = json!("https://api.twilio.com");

    let agent = json!({
        "persona": {"instructions": {"text": "Be brief."}, "greeting": {"text": "Hello."}},
        "engines": [
            {"name": "primary", "type": "Realtime", "realtime": {
                "model": "gpt-realtime-2.1", "apiKeySecretRef": secret("openai"),
            }},
            {"name": "spare", "type": "Simulated", "simulated": {}},
        ],
    });
    let busy = "All lines are busy. Please call again in a moment.";
    let full_agent = json!({
        "gatewayRef": {"name": "default"},
        "persona": {
            "language": "en-US",
            "instructions": {"text": "Be brief."},
            "greeting": {"text": "Hello.", "interruption": "Allowed"},
        },
        "engines": [
            {"name": "primary", "type": "Realtime", "realtime": {
                "url": "wss://api.openai.com/v1/realtime",
                "model": "gpt-realtime-2.1",
                "voice": "marin",
                "apiKeySecretRef": secret("openai"),
                "turnDetection": {"type": "ServerVAD"},
                "warmSessionsPerPod": 0,
            }},
            {"name": "spare", "type": "Simulated", "simulated": {"replies": []}},
        ],
        "interruption": {"mode": "Immediate", "minSpeechMilliseconds": 200},
        "limits": {"maxCallSeconds": 1800, "silenceSeconds": 30},
        "overflow": {"type": "Message", "message": {"text": busy}},
        "recovery": {"type": "WithContext", "attempts": 2},
        "scaling": {"type": "Autoscaler", "maxCallsPerPod": 30},
        "drain": {"windowSeconds": 270},
        "networkPolicy": {"type": "Doors"},
        "monitoring": {"type": "None"},
        "updatePolicy": {"type": "Automatic"},
        "suspend": false,
    });

    let source = json!({"type": "E164", "e164": "+15559990001"});
    let number = json!({"source": source, "routes": [{"agentRef": {"name": "sales"}}]});
    let full_number = json!({
        "gatewayRef": {"name": "default"},
        "source": source,
        "routes": [{"agentRef": {"name": "sales"}, "weight": 100}],
        "claimPolicy": "IfUnclaimed",
        "driftPolicy": "Enforce",
        "deletionPolicy": "Restore",
    });
    [
        (object("VoiceGateway", "default", gateway), full_gateway),
        (object("VoiceAgent", "sales", agent), full_agent),
        (object("PhoneNumber", "main-line", number), full_number),
    ]
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    let version = format!("switchboard.dev/{VERSION}");
    json!({"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec})
}

fn secret(name: &str) -> Value {
    json!({"name": name, "key": "value"})
}
