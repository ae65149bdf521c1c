//! The Grafana dashboards as short descriptions; `charts/switchboard/dashboards` holds what they are rendered to.
//!
//! A description says what a panel is for, its unit and its queries. Layout, ids, data source and the variables
//! `namespace` and `agent` are the same everywhere, and follow from it. In a query `{pods}` stands for the pods of the
//! agents chosen in the variables, `{pods,reason="full"}` for some of their series, and `{operator}` for every operator.
//! JSON after Grafana's "Dashboard JSON model", schema version 39 (Grafana 10.4 and newer).

mod call_load;
mod conversation;
mod operator;

use serde_json::{Value, json};

/// One dashboard.
pub struct Dashboard {
    /// File name without its ending, and the end of the dashboard's stable identity.
    pub name: &'static str,
    title: &'static str,
    description: &'static str,
    chosen_by: ChosenBy,
    rows: Vec<Row>,
}

/// What a dashboard's variables choose.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ChosenBy {
    /// Namespaces and agents.
    Agent,
    /// Nothing: there is one operator.
    Nothing,
}

/// Panels beside each other, under a heading.
struct Row {
    title: &'static str,
    height: u32,
    panels: Vec<Panel>,
}

/// One picture.
struct Panel {
    title: &'static str,
    description: &'static str,
    kind: Kind,
    unit: &'static str,
    queries: Vec<(&'static str, String)>,
}

enum Kind {
    /// The newest number, large; red from the second bound on, yellow from the first.
    Stat { bounds: Option<(f64, f64)> },
    /// Lines over time.
    Lines,
    /// Areas that add up.
    Stack,
    /// How values are spread, over time.
    Heatmap,
}

/// Every dashboard.
#[must_use]
pub fn all() -> [Dashboard; 3] {
    [call_load::dashboard(), conversation::dashboard(), operator::dashboard()]
}

impl Panel {
    const fn new(kind: Kind, title: &'static str, unit: &'static str, description: &'static str) -> Self {
        Self { title, description, kind, unit, queries: Vec::new() }
    }

    const fn stat(title: &'static str, unit: &'static str, description: &'static str) -> Self {
        Self::new(Kind::Stat { bounds: None }, title, unit, description)
    }

    const fn lines(title: &'static str, unit: &'static str, description: &'static str) -> Self {
        Self::new(Kind::Lines, title, unit, description)
    }

    const fn stack(title: &'static str, unit: &'static str, description: &'static str) -> Self {
        Self::new(Kind::Stack, title, unit, description)
    }

    /// How the values of a histogram are spread.
    fn heatmap(title: &'static str, histogram: &str, selector: &str, description: &'static str) -> Self {
        let query = format!("sum by (le) (increase({histogram}_bucket{selector}[$__rate_interval]))");
        Self::new(Kind::Heatmap, title, "s", description).query("{{le}}", &query)
    }

    /// Yellow and red from these values on.
    const fn warns(mut self, yellow: f64, red: f64) -> Self {
        self.kind = Kind::Stat { bounds: Some((yellow, red)) };
        self
    }

    fn query(mut self, legend: &'static str, promql: &str) -> Self {
        let chosen = r#"{namespace=~"$namespace",agent=~"$agent""#;
        let promql = promql.replace("{pods", chosen).replace("{operator}", "");
        self.queries.push((legend, promql));
        self
    }

    /// Quantiles of a histogram over an agent's pods.
    fn quantiles(mut self, histogram: &str, selector: &str) -> Self {
        for (legend, quantile) in [("half", "0.5"), ("95 %", "0.95"), ("99 %", "0.99")] {
            let rate = format!("sum by (le) (rate({histogram}_bucket{selector}[$__rate_interval]))");
            self = self.query(legend, &format!("histogram_quantile({quantile}, {rate})"));
        }
        self
    }

    fn render(&self, id: usize, x: u32, y: u32, width: u32, height: u32) -> Value {
        let is_heatmap = matches!(self.kind, Kind::Heatmap);
        let targets = self.queries.iter().zip('A'..='Z').map(|((legend, query), letter)| {
            json!({
                "datasource": datasource(),
                "expr": query,
                "format": if is_heatmap { "heatmap" } else { "time_series" },
                "legendFormat": legend,
                "refId": letter.to_string(),
            })
        });
        let targets: Vec<_> = targets.collect();
        let (kind, options, defaults) = self.look();
        json!({
            "id": id,
            "type": kind,
            "title": self.title,
            "description": self.description,
            "datasource": datasource(),
            "gridPos": {"x": x, "y": y, "w": width, "h": height},
            "fieldConfig": {"defaults": defaults, "overrides": []},
            "options": options,
            "targets": targets,
        })
    }

    /// The panel's type, its options and the defaults of its fields.
    fn look(&self) -> (&'static str, Value, Value) {
        let legend = json!({"displayMode": "list", "placement": "bottom", "showLegend": self.queries.len() > 1
            || self.queries.iter().any(|(legend, _)| legend.contains("{{"))});
        let tooltip = json!({"mode": "multi", "sort": "desc"});
        match self.kind {
            Kind::Stat { bounds } => {
                let mut steps = vec![json!({"color": "green", "value": null})];
                if let Some((yellow, red)) = bounds {
                    steps.push(json!({"color": "yellow", "value": yellow}));
                    steps.push(json!({"color": "red", "value": red}));
                }
                let options = json!({"colorMode": "value", "graphMode": "area",
                    "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": false}});
                let thresholds = json!({"mode": "absolute", "steps": steps});
                ("stat", options, json!({"unit": self.unit, "min": 0, "thresholds": thresholds}))
            }
            Kind::Lines => (
                "timeseries",
                json!({"legend": legend, "tooltip": tooltip}),
                json!({"unit": self.unit, "min": 0, "custom": {"lineWidth": 2, "fillOpacity": 8}}),
            ),
            Kind::Stack => (
                "timeseries",
                json!({"legend": legend, "tooltip": tooltip}),
                json!({"unit": self.unit, "min": 0,
                       "custom": {"lineWidth": 1, "fillOpacity": 40, "stacking": {"mode": "normal", "group": "A"}}}),
            ),
            Kind::Heatmap => (
                "heatmap",
                json!({"calculate": false, "yAxis": {"unit": self.unit}, "cellGap": 1, "legend": {"show": false},
                       "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64},
                       "tooltip": {"mode": "single", "yHistogram": false}}),
                json!({"unit": self.unit}),
            ),
        }
    }
}

/// Grafana's width.
const COLUMNS: u32 = 24;

impl Dashboard {
    /// The dashboard as Grafana imports it.
    ///
    /// # Panics
    /// When a row has no panel, or more than fit beside each other: a mistake in a description, found by its test.
    #[must_use]
    pub fn render(&self) -> Value {
        let mut panels = Vec::new();
        let mut y = 0;
        for row in &self.rows {
            panels.push(json!({
                "id": panels.len() + 1,
                "type": "row",
                "title": row.title,
                "collapsed": false,
                "panels": [],
                "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1},
            }));
            y += 1;
            let width = u32::try_from(row.panels.len()).ok().and_then(|count| COLUMNS.checked_div(count));
            let width = width.filter(|width| *width >= 3).expect("one to eight panels fit into a row");
            for (panel, x) in row.panels.iter().zip((0..).step_by(width as usize)) {
                panels.push(panel.render(panels.len() + 1, x, y, width, row.height));
            }
            y += row.height;
        }
        json!({
            "_generated": "by `make generate` from tests/src/dashboards; change it there",
            "uid": format!("switchboard-{}", self.name),
            "title": self.title,
            "description": self.description,
            "tags": ["switchboard"],
            "schemaVersion": 39,
            "version": 1,
            "editable": true,
            "graphTooltip": 1,
            "time": {"from": "now-1h", "to": "now"},
            "refresh": "10s",
            "templating": {"list": self.variables()},
            "annotations": {"list": []},
            "links": [{"type": "dashboards", "title": "Switchboard", "tags": ["switchboard"], "asDropdown": false,
                       "includeVars": true, "keepTime": true, "targetBlank": false}],
            "panels": panels,
        })
    }

    /// What stands in the file.
    #[must_use]
    pub fn to_json(&self) -> String {
        format!("{:#}\n", self.render())
    }

    fn variables(&self) -> Vec<Value> {
        let source = json!({"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus",
            "current": {}, "hide": 0});
        let choice = |name: &str, label: &str, query: &str| {
            json!({"name": name, "label": label, "type": "query", "datasource": datasource(), "refresh": 2, "sort": 1,
                   "multi": true, "includeAll": true, "allValue": ".*", "current": {"text": "All", "value": "$__all"},
                   "definition": query, "query": {"query": query, "refId": name}, "hide": 0})
        };
        match self.chosen_by {
            ChosenBy::Nothing => vec![source],
            ChosenBy::Agent => vec![
                source,
                choice("namespace", "Namespace", "label_values(switchboard_active_calls, namespace)"),
                choice(
                    "agent",
                    "Agent",
                    r#"label_values(switchboard_active_calls{namespace=~"$namespace"}, agent)"#,
                ),
            ],
        }
    }
}

/// What a counter of media pods counts each second, over all of them.
fn per_second(counter: &str) -> String {
    format!("sum(rate({counter}{{pods}}[$__rate_interval]))")
}

/// The same, apart by a label.
fn per_second_by(label: &str, counter: &str) -> String {
    format!("sum by ({label}) (rate({counter}{{pods}}[$__rate_interval]))")
}

fn datasource() -> Value {
    json!({"type": "prometheus", "uid": "${datasource}"})
}
