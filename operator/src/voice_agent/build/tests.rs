//! What an agent is made of: small snapshots for whole objects, asserts for behaviour.

use call_session::agent_file::{AgentFile, NumberRoutes, Overflow, OverflowForward, OverflowMessage};
use crds::{ConfigMapKeyRef, VoiceAgent, VoiceGateway};
use k8s_openapi::api::core::v1::{Container, PodSpec};
use serde_json::json;

use super::*;
use crate::phone_number::routes::KnownAgent;
use crate::references::Missing;
use crate::testing::{self, AgentVerbs as _, GatewayVerbs as _};
use crate::voice_agent::agent_file::{Invalid, OverflowAgent, secret_keys};
use crate::voice_agent::dereference::absent_overflow_agent;
use crate::voice_agent::validate::{Resolved, validate};

fn try_built(agent: &VoiceAgent, gateway: &VoiceGateway, instructions: &str) -> Result<Children, Invalid> {
    let surroundings = testing::surroundings();
    let image = agent.spec.image.clone().unwrap_or_else(|| surroundings.media_image.clone());
    let night = |name: &str| {
        (name == "night").then(|| KnownAgent { name: name.to_owned(), gateway: "default".to_owned() })
    };
    let absent = absent_overflow_agent(&agent.spec, night);
    let resolved = Resolved {
        agent,
        gateway,
        instructions: instructions.to_owned(),
        numbers: Vec::<NumberRoutes>::new(),
        overflow_agent: OverflowAgent::of(absent.as_ref()),
        image,
        surroundings: &surroundings,
    };
    validate(resolved).map(|agent| build(&agent))
}

fn built(agent: &VoiceAgent) -> Children {
    try_built(agent, &testing::gateway(), "Sell.").unwrap()
}

fn pod(children: &Children) -> PodSpec {
    children.deployment.spec.clone().unwrap().template.spec.unwrap()
}

fn media(children: &Children) -> Container {
    pod(children).containers.into_iter().find(|c| c.name == "media").unwrap()
}

fn file(children: &Children) -> AgentFile {
    serde_json::from_str(&children.config_map.data.as_ref().unwrap()["agent.json"]).unwrap()
}

#[test]
fn the_pod_is_restricted_and_mounts_only_named_keys() {
    let agent = testing::agent().with_realtime_engine();
    insta::assert_yaml_snapshot!(pod(&built(&agent)));
}

#[test]
fn the_ingress_has_one_path_on_the_gateways_host() {
    insta::assert_yaml_snapshot!(built(&testing::agent()).ingress);
}

#[test]
fn the_autoscaler_counts_calls_per_pod() {
    insta::assert_yaml_snapshot!(built(&testing::agent()).hpa.unwrap().spec);
}

#[test]
fn calls_without_a_slot_go_where_the_overflow_says() {
    let rendered = |overflow: serde_json::Value| {
        let agent = testing::agent()
            .with("/transferTargets", json!([{"name": "office", "phoneNumber": "+15551230009"}]))
            .with("/overflow", overflow);
        try_built(&agent, &testing::gateway(), "Sell.").map(|children| file(&children).overflow)
    };
    let message = json!({"type": "Message", "message": {"text": "Busy."}});
    let said = Overflow::Message { message: OverflowMessage { text: "Busy.".to_owned() } };
    assert_eq!(rendered(message), Ok(said));
    let night = json!({"type": "Agent", "agent": {"agentRef": {"name": "night"}}});
    let asked =
        Overflow::Agent { agent: call_session::agent_file::OverflowAgent { name: "night".to_owned() } };
    assert_eq!(rendered(night), Ok(asked));
    let office = json!({"type": "Forward", "forward": {"transferTarget": "office"}});
    let called = Overflow::Forward { forward: OverflowForward { transfer_target: "office".to_owned() } };
    assert_eq!(rendered(office), Ok(called));

    // An agent that is not there is no reason to hold back everything else; a contradiction is.
    let gone = json!({"type": "Agent", "agent": {"agentRef": {"name": "gone"}}});
    assert_eq!(rendered(gone), Ok(Overflow::default()));
    let attic = json!({"type": "Forward", "forward": {"transferTarget": "attic"}});
    assert_eq!(rendered(attic), Err(Invalid::TransferTarget("attic".to_owned())));
    for kind in ["Agent", "Forward"] {
        assert!(matches!(rendered(json!({"type": kind})), Err(Invalid::MissingMember { .. })), "{kind}");
    }
}

#[test]
fn callers_wait_for_a_slot_unless_somebody_else_answers() {
    let rendered = |overflow: serde_json::Value| {
        file(&built(&testing::agent().with("/overflow", overflow))).overflow_wait_seconds
    };
    let night = json!({"agentRef": {"name": "night"}});
    assert_eq!(rendered(json!({"type": "Message", "message": {"text": "Busy."}})), 30);
    assert_eq!(rendered(json!({"type": "Message", "waitSeconds": 0})), 0);
    assert_eq!(rendered(json!({"type": "Agent", "agent": night})), 0);
    assert_eq!(rendered(json!({"type": "Agent", "agent": night, "waitSeconds": 45})), 45);
}

#[test]
fn an_overflow_agent_must_be_on_the_same_gateway() {
    let agent = testing::agent()
        .with("/overflow", json!({"type": "Agent", "agent": {"agentRef": {"name": "night"}}}));
    let on = |gateway: &str| Some(KnownAgent { name: "night".to_owned(), gateway: gateway.to_owned() });
    assert_eq!(absent_overflow_agent(&agent.spec, |_| on("default")), None);
    let elsewhere = Missing::AgentElsewhere { agent: "night".to_owned(), gateway: "default".to_owned() };
    assert_eq!(absent_overflow_agent(&agent.spec, |_| on("second")), Some(elsewhere));
    assert_eq!(absent_overflow_agent(&agent.spec, |_| None), Some(Missing::Agent("night".to_owned())));
    assert_eq!(absent_overflow_agent(&testing::agent().spec, |_| None), None);
}

#[test]
fn every_child_is_named_labelled_and_owned() {
    let children = built(&testing::agent());
    let Children {
        service_account,
        config_map,
        deployment,
        replicas: _,
        service,
        pdb,
        hpa,
        ingress,
        http_route,
        network_policy,
        pod_monitor,
    } = children;
    assert_eq!((http_route, pod_monitor), (None, None), "one way in, and the chart's PodMonitor");
    let all = [
        service_account.metadata,
        config_map.metadata,
        deployment.metadata,
        service.metadata,
        pdb.metadata,
        hpa.unwrap().metadata,
        ingress.unwrap().metadata,
        network_policy.unwrap().metadata,
    ];
    for metadata in all {
        assert_eq!(metadata.name.as_deref(), Some("sales-media"));
        assert_eq!(metadata.namespace.as_deref(), Some("moving"));
        assert_eq!(metadata.labels.unwrap()[AGENT_LABEL], "sales");
        let owner = metadata.owner_references.unwrap().remove(0);
        assert_eq!(
            (owner.kind.as_str(), owner.name.as_str(), owner.controller),
            ("VoiceAgent", "sales", Some(true))
        );
    }
}

#[test]
fn a_change_of_configuration_changes_the_config_map_alone() {
    let before = built(&testing::agent());
    let changes = [
        ("/persona/language", json!("de-DE")),
        ("/persona/greeting", json!({"text": "Hello."})),
        ("/limits/silenceSeconds", json!(20)),
        ("/suspend", json!(true)),
        ("/scaling/maxCallsPerPod", json!(40)),
        ("/engines/0/simulated/replies", json!(["No."])),
    ];
    for (pointer, value) in changes {
        let after = built(&testing::agent().with(pointer, value));
        assert_ne!(file(&after).revision, file(&before).revision, "{pointer}");
        assert_eq!(after.deployment, before.deployment, "{pointer}");
    }
    assert_eq!(file(&built(&testing::agent())).revision, file(&before).revision);
}

#[test]
fn the_drain_window_sets_grace_period_and_environment_together() {
    let children = built(&testing::agent().with("/drain/windowSeconds", json!(100)));
    assert_eq!(pod(&children).termination_grace_period_seconds, Some(130));
    let env = media(&children).env.unwrap();
    let window = env.iter().find(|e| e.name == "SWITCHBOARD_DRAIN_WINDOW_SECONDS").unwrap();
    assert_eq!(window.value.as_deref(), Some("100"));
}

#[test]
fn the_deployment_never_carries_replicas() {
    let autoscaled = built(&testing::agent());
    assert_eq!(autoscaled.replicas, Replicas::Begin(2));
    assert_eq!(autoscaled.deployment.spec.unwrap().replicas, None);
    let manual =
        built(&testing::agent().with("/scaling", json!({"type": "Manual", "manual": {"replicas": 7}})));
    assert_eq!(manual.replicas, Replicas::Fixed(7));
    assert_eq!(manual.deployment.spec.unwrap().replicas, None);
    assert_eq!(manual.hpa, None);
}

#[test]
fn the_users_pod_template_is_merged_last_but_cannot_break_the_selector() {
    let template = json!({
        "metadata": {"labels": {
            "team": "sales", "switchboard.dev/agent": "other", "app.kubernetes.io/managed-by": "Helm",
        }},
        "spec": {
            "nodeSelector": {"pool": "voice"},
            "containers": [
                {"name": "media", "resources": {"requests": {"cpu": "500m"}}, "env": [{"name": "SWITCHBOARD_LOG", "value": "debug"}]},
                {"name": "sidecar", "image": "registry.example/sidecar:1"},
            ],
        },
    });
    let children = built(&testing::agent().with_pod_template(template));
    let labels = children.deployment.spec.clone().unwrap().template.metadata.unwrap().labels.unwrap();
    assert_eq!((labels["team"].as_str(), labels[AGENT_LABEL].as_str()), ("sales", "sales"));
    assert_eq!(
        labels["app.kubernetes.io/managed-by"], "switchboard",
        "or the operator's watch would lose them"
    );
    let (pod, media) = (pod(&children), media(&children));
    assert_eq!(pod.node_selector.unwrap()["pool"], "voice");
    assert_eq!(pod.containers.len(), 2);
    let requests = media.resources.unwrap().requests.unwrap();
    assert_eq!((requests["cpu"].0.as_str(), requests["memory"].0.as_str()), ("500m", "64Mi"));
    let names: Vec<_> = media.env.unwrap().into_iter().map(|e| e.name).collect();
    assert_eq!(names, ["SWITCHBOARD_POD_NAME", "SWITCHBOARD_DRAIN_WINDOW_SECONDS", "SWITCHBOARD_LOG"]);
}

#[test]
fn a_pod_template_that_is_none_is_refused() {
    let agent = testing::agent().with_pod_template(json!({"spec": {"containers": "media"}}));
    assert!(matches!(try_built(&agent, &testing::gateway(), "Sell."), Err(Invalid::PodTemplate(_))));
}

#[test]
fn a_pod_template_that_has_pods_killed_in_their_drain_window_is_refused() {
    let verdict = |spec: serde_json::Value| {
        let agent = testing::agent()
            .with("/drain", json!({"windowSeconds": 60}))
            .with_pod_template(json!({"spec": spec}));
        try_built(&agent, &testing::gateway(), "Sell.").map(drop)
    };
    let grace = |seconds: i64| verdict(json!({"containers": [], "terminationGracePeriodSeconds": seconds}));
    assert_eq!(grace(89), Err(Invalid::GracePeriod { pod: 90, grace: 89 }));
    assert_eq!((grace(90), grace(900)), (Ok(()), Ok(())));
    let variable = json!([{"name": "SWITCHBOARD_DRAIN_WINDOW_SECONDS", "value": "5"}]);
    let told_otherwise = verdict(json!({"containers": [{"name": "media", "env": variable}]}));
    assert_eq!(told_otherwise, Err(Invalid::DrainWindow));
}

#[test]
fn an_edge_that_drains_for_less_than_the_pods_is_refused() {
    let verdict = |window: u32, edge: u32| {
        let agent = testing::agent().with("/drain", json!({"windowSeconds": window}));
        let gateway = testing::gateway().with("/exposure/drainSeconds", json!(edge));
        try_built(&agent, &gateway, "Sell.").map(drop)
    };
    assert_eq!(verdict(120, 149), Err(Invalid::EdgeDrain { pod: 150, edge: 149 }));
    assert_eq!((verdict(120, 150), verdict(119, 149)), (Ok(()), Ok(())));
    let message = Invalid::EdgeDrain { pod: 150, edge: 149 }.to_string();
    for words in ["takes 150 s", "for 149 s", "shorten the window by 1 s", "exposure.drainSeconds"] {
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn without_exposure_there_is_no_way_in() {
    let gateway = testing::gateway().with("/exposure", json!({"type": "None"}));
    let children = try_built(&testing::agent(), &gateway, "Sell.").unwrap();
    assert_eq!((children.ingress, children.http_route), (None, None));
}

#[test]
fn a_route_of_the_gateway_api_takes_the_place_of_the_ingress() {
    let parents = json!([{"name": "edge", "namespace": "infra", "sectionName": "https"}]);
    let exposure = json!({"type": "HTTPRoute", "httpRoute": {"parentRefs": parents}});
    let gateway = testing::gateway().with("/exposure", exposure);
    let children = try_built(&testing::agent(), &gateway, "Sell.").unwrap();
    assert_eq!(children.ingress, None);
    let route = serde_json::to_value(children.http_route.unwrap()).unwrap();
    let rule = json!({
        "matches": [{"path": {"type": "PathPrefix", "value": "/moving/sales/twilio"}}],
        "timeouts": {"request": "0s"},
        "backendRefs": [{"name": "sales-media", "port": 8080}],
    });
    assert_eq!(
        route["spec"],
        json!({"parentRefs": parents, "hostnames": ["voice.example.com"], "rules": [rule]})
    );
}

/// The rules of the NetworkPolicy as `port: from`.
fn doors(agent: &VoiceAgent) -> Vec<String> {
    let policy = built(agent).network_policy.unwrap().spec.unwrap();
    let rules = policy.ingress.unwrap().into_iter().map(|rule| {
        let rule = serde_json::to_value(rule).unwrap();
        format!("{}: {}", rule["ports"][0]["port"], rule["from"])
    });
    rules.collect()
}

#[test]
fn every_door_is_open_to_those_who_need_it() {
    let of = |names: &[&str]| match names {
        [name] => json!([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}]),
        names => json!([{"namespaceSelector": {"matchExpressions": [
            {"key": "kubernetes.io/metadata.name", "operator": "In", "values": names},
        ]}}]),
    };
    let usual = [
        "8080: null".to_owned(),
        r#"8081: [{"namespaceSelector":{}}]"#.to_owned(),
        format!("9090: {}", of(&["switchboard-system", "monitoring"])),
    ];
    assert_eq!(doors(&testing::agent()), usual);
    let narrow = json!({"publicNamespaces": ["edge"], "apiNamespaces": ["crm", "shop"], "adminNamespaces": ["prometheus"]});
    let agent = testing::agent().with("/networkPolicy", json!({"type": "Doors", "doors": narrow}));
    let wanted = [
        format!("8080: {}", of(&["edge"])),
        format!("8081: {}", of(&["crm", "shop"])),
        format!("9090: {}", of(&["switchboard-system", "prometheus"])),
    ];
    assert_eq!(doors(&agent), wanted);
}

#[test]
fn what_is_switched_off_is_not_built() {
    let off = testing::agent().with("/networkPolicy", json!({"type": "None"}));
    assert_eq!(built(&off).network_policy, None);
}

#[test]
fn a_pod_monitor_has_the_users_labels_and_ours() {
    let labels = json!({"release": "prometheus", "switchboard.dev/agent": "other"});
    let monitoring = json!({"type": "PodMonitor", "podMonitor": {"intervalSeconds": 5, "labels": labels}});
    let monitor = built(&testing::agent().with("/monitoring", monitoring)).pod_monitor.unwrap();
    let labels = monitor.metadata.labels.unwrap();
    assert_eq!((labels["release"].as_str(), labels[AGENT_LABEL].as_str()), ("prometheus", "sales"));
    let endpoint = &monitor.spec.pod_metrics_endpoints[0];
    assert_eq!(endpoint.interval, "5s");
    let relabelled = serde_json::to_value(&endpoint.relabelings).unwrap();
    let agent = json!([{"sourceLabels": ["__meta_kubernetes_pod_label_switchboard_dev_agent"], "targetLabel": "agent"}]);
    assert_eq!(relabelled, agent);
}

#[test]
fn instructions_from_a_config_map_are_in_the_agent_file() {
    let reference = ConfigMapKeyRef { name: "prompt".to_owned(), key: "prompt.txt".to_owned() };
    let agent = testing::agent().with_instructions_from(reference);
    let children = try_built(&agent, &testing::gateway(), "From the ConfigMap.").unwrap();
    assert_eq!(file(&children).persona.instructions, "From the ConfigMap.");
}

#[test]
fn every_secret_the_agent_file_names_is_mounted() {
    let agent = testing::agent()
        .with_realtime_engine()
        .with("/api", json!({"bearerTokenSecretRef": {"name": "sales-api", "key": "token"}}));
    let gateway = testing::gateway()
        .with("/store", json!({"type": "Redis", "redis": {"urlSecretRef": {"name": "redis", "key": "url"}}}));
    let names: Vec<_> = secret_keys(&agent.spec, &gateway.spec).into_iter().map(|r| r.name).collect();
    assert_eq!(names, ["openai", "redis", "sales-api", "twilio"]);
    let children = try_built(&agent, &gateway, "Sell.").unwrap();
    let document = children.config_map.data.unwrap().remove("agent.json").unwrap();
    for name in names {
        assert!(document.contains(&format!("\"{name}\"")), "{name}");
    }
}
