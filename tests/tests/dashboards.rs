//! The chart's dashboards: generated, current, and as Grafana and their readers need them. That their queries yield data
//! is tried on the cluster (`observability`).

use std::collections::BTreeSet;
use std::fs;

use e2e::dashboards::{self, Dashboard};
use e2e::installation::repository;
use serde_json::Value;

fn file_of(dashboard: &Dashboard) -> String {
    let path = repository().join(format!("charts/switchboard/dashboards/{}.json", dashboard.name));
    fs::read_to_string(&path).unwrap_or_default()
}

fn rendered() -> Vec<Value> {
    dashboards::all().iter().map(Dashboard::render).collect()
}

fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    dashboard["panels"].as_array().into_iter().flatten()
}

#[test]
fn the_files_are_what_the_descriptions_render_to() {
    for dashboard in dashboards::all() {
        assert!(
            file_of(&dashboard) == dashboard.to_json(),
            "{} is stale: run `make generate`",
            dashboard.name
        );
    }
    let folder = repository().join("charts/switchboard/dashboards");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let files: BTreeSet<String> = files.filter(|name| name.ends_with(".json")).collect();
    let known = dashboards::all().iter().map(|d| format!("{}.json", d.name)).collect();
    assert_eq!(files, known, "no file without a description");
}

#[test]
fn grafana_finds_what_it_needs() {
    let mut identities = BTreeSet::new();
    for dashboard in rendered() {
        let uid = dashboard["uid"].as_str().unwrap();
        assert!(uid.len() <= 40 && identities.insert(uid.to_owned()), "{uid}");
        assert_eq!(dashboard["schemaVersion"], 39);
        assert!(dashboard["id"].is_null(), "an id belongs to one Grafana");
        let variables = dashboard["templating"]["list"].as_array().unwrap();
        assert_eq!(
            (&variables[0]["name"], &variables[0]["type"]),
            (&"datasource".into(), &"datasource".into())
        );
        let names: BTreeSet<&str> = variables.iter().map(|v| v["name"].as_str().unwrap()).collect();
        let mut ids = BTreeSet::new();
        for panel in panels(&dashboard) {
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "two panels with one id: {panel:#}");
            let targets = panel["targets"].as_array().map(Vec::as_slice).unwrap_or_default();
            assert!(panel["type"] == "row" || !targets.is_empty(), "{panel:#}");
            for target in targets {
                assert_eq!(target["datasource"]["uid"], "${datasource}");
                assert_eq!(panel["datasource"]["uid"], "${datasource}");
                let query = target["expr"].as_str().unwrap();
                assert!(!query.contains("{pods") && !query.contains("{operator}"), "{query}");
                for variable in ["namespace", "agent"] {
                    let is_used = query.contains(&format!("${variable}"));
                    assert!(
                        !is_used || names.contains(variable),
                        "{query} uses a variable that is not there"
                    );
                }
            }
        }
    }
}

#[test]
fn a_reader_finds_what_a_panel_says_and_in_which_unit() {
    const UNITS: [&str; 5] = ["short", "s", "percentunit", "ops", "bytes"];
    for dashboard in rendered() {
        let about = dashboard["description"].as_str().unwrap();
        assert!(!about.is_empty(), "{}", dashboard["title"]);
        let mut titles = BTreeSet::new();
        for panel in panels(&dashboard).filter(|panel| panel["type"] != "row") {
            let title = panel["title"].as_str().unwrap();
            assert!(titles.insert(title), "two panels are called {title}");
            assert!(panel["description"].as_str().unwrap().len() > 20, "{title} is not described");
            let unit = panel["fieldConfig"]["defaults"]["unit"].as_str().unwrap();
            assert!(UNITS.contains(&unit), "{title} has the unit {unit}");
            let targets = panel["targets"].as_array().unwrap();
            let legends: BTreeSet<&str> =
                targets.iter().map(|t| t["legendFormat"].as_str().unwrap()).collect();
            assert_eq!(legends.len(), targets.len(), "two lines of {title} have one name");
        }
    }
}

#[test]
fn no_panel_lies_over_another_or_beside_the_edge() {
    for dashboard in rendered() {
        let mut taken = BTreeSet::new();
        for panel in panels(&dashboard) {
            let side = |name: &str| panel["gridPos"][name].as_u64().unwrap();
            assert!(side("x") + side("w") <= 24 && side("w") > 0 && side("h") > 0, "{panel:#}");
            for x in side("x")..side("x") + side("w") {
                for y in side("y")..side("y") + side("h") {
                    assert!(taken.insert((x, y)), "{} lies over another panel", panel["title"]);
                }
            }
        }
    }
}
