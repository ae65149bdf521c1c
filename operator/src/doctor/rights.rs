//! What the operator's account must be allowed to do: the rules it is installed with, as the doctor asks for them.
//!
//! A test compares this table with the installed roles, so neither can be changed alone.

use std::fmt;

/// One verb on one resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// API group; empty is the core one.
    pub group: String,
    /// Plural, with the subresource: `voiceagents/status`.
    pub resource: String,
    /// Verb.
    pub verb: String,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group, resource, verb } = self;
        let (plural, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let dot = if group.is_empty() { "" } else { "." };
        let slash = if subresource.is_empty() { "" } else { "/" };
        write!(f, "{verb} {plural}{dot}{group}{slash}{subresource}")
    }
}

type Rule = (&'static str, &'static [&'static str], &'static [&'static str]);

/// In every namespace with resources of ours, or in the whole cluster.
const EVERYWHERE: &[Rule] = &[
    ("switchboard.dev", &["voicegateways", "voiceagents", "phonenumbers"], &["get", "list", "watch"]),
    ("switchboard.dev", &["voiceagents", "phonenumbers"], &["patch"]),
    ("switchboard.dev", &["voicegateways/status", "voiceagents/status", "phonenumbers/status"], &["patch"]),
    ("switchboard.dev", &["voicegateways/finalizers", "voiceagents/finalizers"], &["update"]),
    ("", &["secrets"], &["get", "list", "watch", "create", "patch"]),
    ("", &["configmaps", "services", "serviceaccounts"], &["get", "list", "watch", "create", "patch"]),
    ("", &["pods"], &["list", "watch", "patch"]),
    ("apps", &["deployments"], &["get", "list", "watch", "create", "patch"]),
    ("apps", &["deployments/scale"], &["patch"]),
    ("policy", &["poddisruptionbudgets"], &["get", "list", "watch", "create", "patch"]),
    ("autoscaling", &["horizontalpodautoscalers"], &["get", "list", "watch", "create", "patch", "delete"]),
    (
        "networking.k8s.io",
        &["ingresses", "networkpolicies"],
        &["get", "list", "watch", "create", "patch", "delete"],
    ),
    // Asked for also where the cluster lacks the API: the right is what an agent needs once somebody installs it.
    ("gateway.networking.k8s.io", &["httproutes"], &["get", "list", "watch", "create", "patch", "delete"]),
    ("monitoring.coreos.com", &["podmonitors"], &["get", "list", "watch", "create", "patch", "delete"]),
    ("events.k8s.io", &["events"], &["create", "patch"]),
];

/// In the operator's own namespace: the Lease.
const AT_HOME: &[Rule] = &[("coordination.k8s.io", &["leases"], &["create", "get", "update"])];

/// What is needed in every namespace with resources of ours.
pub fn everywhere() -> Vec<Right> {
    expand(EVERYWHERE)
}

/// What is needed in the operator's namespace.
pub fn at_home() -> Vec<Right> {
    expand(AT_HOME)
}

/// Which objects a right may be limited to: the operator asks for its Lease by name.
pub fn name_of(right: &Right) -> Option<&'static str> {
    (right.resource == "leases" && right.verb != "create").then_some("switchboard-operator")
}

fn expand(rules: &[Rule]) -> Vec<Right> {
    let mut rights = Vec::new();
    for (group, resources, verbs) in rules {
        for resource in *resources {
            rights.extend(verbs.iter().map(|verb| Right {
                group: (*group).to_owned(),
                resource: (*resource).to_owned(),
                verb: (*verb).to_owned(),
            }));
        }
    }
    rights
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    #[test]
    fn the_doctor_asks_for_exactly_what_the_manifests_grant() {
        let mut granted = BTreeSet::new();
        for file in std::fs::read_dir("../manifests").unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "yaml") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            for document in serde_saphyr::from_multiple::<Value>(&text).unwrap() {
                let is_role = ["ClusterRole", "Role"].iter().any(|kind| document["kind"] == *kind);
                if is_role && document["metadata"]["name"] == "switchboard-operator" {
                    granted.extend(rules(&document));
                }
            }
        }
        let asked: BTreeSet<_> = everywhere().into_iter().chain(at_home()).collect();
        let text =
            |rights: &mut dyn Iterator<Item = &Right>| rights.map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(text(&mut granted.difference(&asked)), Vec::<String>::new(), "granted and not asked for");
        assert_eq!(text(&mut asked.difference(&granted)), Vec::<String>::new(), "asked for and not granted");
    }

    fn rules(role: &Value) -> Vec<Right> {
        let words = |value: &Value| -> Vec<String> {
            value.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
        };
        let mut rights = Vec::new();
        for rule in role["rules"].as_array().unwrap() {
            for group in words(&rule["apiGroups"]) {
                for resource in words(&rule["resources"]) {
                    for verb in words(&rule["verbs"]) {
                        rights.push(Right { group: group.clone(), resource: resource.clone(), verb });
                    }
                }
            }
        }
        rights
    }

    #[test]
    fn a_right_reads_as_kubectl_writes_it() {
        let right = |group: &str, resource: &str| Right {
            group: group.to_owned(),
            resource: resource.to_owned(),
            verb: "patch".to_owned(),
        };
        assert_eq!(right("", "pods").to_string(), "patch pods");
        assert_eq!(
            right("switchboard.dev", "voiceagents/status").to_string(),
            "patch voiceagents.switchboard.dev/status"
        );
    }
}
