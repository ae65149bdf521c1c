//! What must happen at the carrier: a pure comparison of what is there with what should be.
//!
//! The carrier's side belongs to others too: another Switchboard may use the number, somebody may change it by hand.
//! Whose a URL is follows from the URL itself and from what was last written, never from memory of the process.

use crds::{ClaimPolicy, DriftPolicy, NumberWebhooks};
use twilio::rest::{NumberUpdate, VoiceConfiguration};

/// What the webhooks should be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Desired {
    /// The entry agent's webhooks: `<publicUrl>/<namespace>/<agent>/twilio`.
    pub base: String,
    /// Asked when that does not answer.
    pub fallback_url: Option<String>,
}

impl Desired {
    /// Asked when a call comes in.
    pub fn voice_url(&self) -> String {
        format!("{}{VOICE}", self.base)
    }

    /// The eight fields.
    pub fn configuration(&self) -> VoiceConfiguration {
        let post = || Some("POST".to_owned());
        VoiceConfiguration {
            voice_url: Some(self.voice_url()),
            voice_method: post(),
            voice_fallback_url: self.fallback_url.clone(),
            voice_fallback_method: self.fallback_url.as_ref().and_then(|_| post()),
            status_callback: Some(format!("{}/status", self.base)),
            status_callback_method: post(),
            voice_application_sid: None,
            trunk_sid: None,
        }
    }

    /// What writes them: the voice URL is ignored unless application and trunk are cleared in the same breath.
    pub fn update(&self) -> NumberUpdate {
        NumberUpdate {
            voice_application_sid: Some(String::new()),
            trunk_sid: Some(String::new()),
            ..NumberUpdate::restoring(&self.configuration())
        }
    }

    /// Whether the carrier's side is so already. The method of an absent fallback means nothing.
    pub fn is_met_by(&self, observed: &VoiceConfiguration) -> bool {
        let mut observed = observed.clone();
        if self.fallback_url.is_none() && observed.voice_fallback_url.is_none() {
            observed.voice_fallback_method = None;
        }
        observed == self.configuration()
    }
}

/// Everything the decision needs.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// The carrier's side.
    pub observed: &'a VoiceConfiguration,
    /// What it should be.
    pub desired: &'a Desired,
    /// Its voice URL is one that it was told for this object.
    pub is_told: bool,
    /// It once was as it should be now: what differs was changed by somebody else.
    pub was_in_sync: bool,
    /// About numbers of another Switchboard.
    pub claim: ClaimPolicy,
    /// About changes of others.
    pub drift: DriftPolicy,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Nothing.
    Keep,
    /// Write what is desired, for the first time or because that changed.
    Write,
    /// Write it again over somebody else's change.
    Undo,
    /// Leave somebody else's change.
    LeaveDrifted,
    /// Leave the number to another Switchboard.
    Refuse,
}

impl Plan {
    /// Every plan.
    pub const ALL: [Self; 5] = [Self::Keep, Self::Write, Self::Undo, Self::LeaveDrifted, Self::Refuse];

    /// The metric's label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Write => "write",
            Self::Undo => "undo",
            Self::LeaveDrifted => "leave_drifted",
            Self::Refuse => "refuse",
        }
    }
}

/// Decides.
pub fn plan(situation: Situation<'_>) -> Plan {
    let Situation { observed, desired, is_told, was_in_sync, claim, drift } = situation;
    if desired.is_met_by(observed) {
        return Plan::Keep;
    }
    if claim == ClaimPolicy::IfUnclaimed && owner(observed, &desired.base, is_told) == Owner::OtherSwitchboard
    {
        return Plan::Refuse;
    }
    match (was_in_sync, drift) {
        (false, _) => Plan::Write,
        (true, DriftPolicy::Enforce) => Plan::Undo,
        (true, DriftPolicy::Warn) => Plan::LeaveDrifted,
    }
}

/// Whose a number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// This namespace's.
    Ours,
    /// Another Switchboard's, or another namespace's.
    OtherSwitchboard,
    /// Anybody's or nobody's.
    Elsewhere,
}

/// Tells it from the voice URL, and from whether the carrier was told that one. `base` is one of our own webhook bases.
pub fn owner(observed: &VoiceConfiguration, base: &str, is_told: bool) -> Owner {
    let Some(url) = observed.voice_url.as_deref() else { return Owner::Elsewhere };
    if is_told {
        return Owner::Ours;
    }
    match (tenant(url), tenant(&format!("{base}{VOICE}"))) {
        (None, _) => Owner::Elsewhere,
        (theirs, ours) if theirs == ours => Owner::Ours,
        (Some(_), _) => Owner::OtherSwitchboard,
    }
}

/// The part of a Switchboard voice URL before the agent: public URL and namespace.
fn tenant(url: &str) -> Option<&str> {
    let (tenant, agent) = url.strip_suffix(VOICE)?.strip_suffix("/twilio")?.rsplit_once('/')?;
    let (public_url, namespace) = tenant.rsplit_once('/')?;
    let is_segment = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    (is_segment(agent) && is_segment(namespace) && public_url.contains("://") && !public_url.ends_with('/'))
        .then_some(tenant)
}

const VOICE: &str = "/voice";

/// What to put back one day. Our own URLs are never put back: a status that was lost is no reason to keep the number,
/// and what somebody forgot to clear beside the voice URL is none either.
pub fn original(observed: &VoiceConfiguration, base: &str, is_told: bool) -> NumberWebhooks {
    let mut webhooks = match owner(observed, base, is_told) {
        Owner::Ours => NumberWebhooks::default(),
        Owner::OtherSwitchboard | Owner::Elsewhere => to_webhooks(observed),
    };
    for url in [&mut webhooks.voice_fallback_url, &mut webhooks.status_callback] {
        if is_below(url, base) {
            url.clear();
        }
    }
    webhooks
}

/// Whether a URL is a webhook of an agent of the same public URL and namespace as `base`.
fn is_below(url: &str, base: &str) -> bool {
    let ours = format!("{base}{VOICE}");
    let Some(rest) = tenant(&ours).and_then(|t| url.strip_prefix(t)).and_then(|r| r.strip_prefix('/')) else {
        return false;
    };
    rest.split_once('/').is_some_and(|(_agent, path)| path.starts_with("twilio/"))
}

fn to_webhooks(voice: &VoiceConfiguration) -> NumberWebhooks {
    let VoiceConfiguration {
        voice_url,
        voice_method,
        voice_fallback_url,
        voice_fallback_method,
        status_callback,
        status_callback_method,
        voice_application_sid,
        trunk_sid,
    } = voice.clone();
    NumberWebhooks {
        voice_url: voice_url.unwrap_or_default(),
        voice_method: voice_method.unwrap_or_default(),
        voice_fallback_url: voice_fallback_url.unwrap_or_default(),
        voice_fallback_method: voice_fallback_method.unwrap_or_default(),
        status_callback: status_callback.unwrap_or_default(),
        status_callback_method: status_callback_method.unwrap_or_default(),
        voice_application_sid: voice_application_sid.unwrap_or_default(),
        trunk_sid: trunk_sid.unwrap_or_default(),
    }
}

/// The recorded webhooks as the carrier's fields.
pub fn to_configuration(webhooks: &NumberWebhooks) -> VoiceConfiguration {
    let NumberWebhooks {
        voice_url,
        voice_method,
        voice_fallback_url,
        voice_fallback_method,
        status_callback,
        status_callback_method,
        voice_application_sid,
        trunk_sid,
    } = webhooks.clone();
    let some = |text: String| Some(text).filter(|t| !t.is_empty());
    VoiceConfiguration {
        voice_url: some(voice_url),
        voice_method: some(voice_method),
        voice_fallback_url: some(voice_fallback_url),
        voice_fallback_method: some(voice_fallback_method),
        status_callback: some(status_callback),
        status_callback_method: some(status_callback_method),
        voice_application_sid: some(voice_application_sid),
        trunk_sid: some(trunk_sid),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "https://voice.example.com/moving/sales/twilio/voice";

    fn desired() -> Desired {
        Desired { base: "https://voice.example.com/moving/sales/twilio".to_owned(), fallback_url: None }
    }

    fn pointing_at(url: &str) -> VoiceConfiguration {
        VoiceConfiguration { voice_url: Some(url.to_owned()), ..desired().configuration() }
    }

    #[test]
    fn plans_follow_from_owner_history_and_policies() {
        use ClaimPolicy::{Force, IfUnclaimed};
        use DriftPolicy::{Enforce, Warn};
        let trunk = VoiceConfiguration { trunk_sid: Some("TK1".to_owned()), ..desired().configuration() };
        let other_method =
            VoiceConfiguration { voice_method: Some("GET".to_owned()), ..desired().configuration() };
        let elsewhere = pointing_at("https://old.example.com/voice");
        let other_cluster = pointing_at("https://blue.example.com/moving/sales/twilio/voice");
        let other_namespace = pointing_at("https://voice.example.com/plumbing/sales/twilio/voice");
        let other_agent = pointing_at("https://voice.example.com/moving/support/twilio/voice");
        let same = desired().configuration();
        let unset = VoiceConfiguration::default();
        let cases = [
            ("set as it should be", &same, true, true, IfUnclaimed, Enforce, Plan::Keep),
            ("never set", &unset, false, false, IfUnclaimed, Warn, Plan::Write),
            ("used by an older application", &elsewhere, false, false, IfUnclaimed, Warn, Plan::Write),
            ("on a trunk", &trunk, false, false, IfUnclaimed, Enforce, Plan::Write),
            ("another method", &other_method, true, true, IfUnclaimed, Enforce, Plan::Undo),
            ("changed by hand, enforced", &elsewhere, false, true, IfUnclaimed, Enforce, Plan::Undo),
            ("changed by hand, warned", &elsewhere, false, true, IfUnclaimed, Warn, Plan::LeaveDrifted),
            ("the spec changed", &other_agent, false, false, IfUnclaimed, Warn, Plan::Write),
            ("another cluster's", &other_cluster, false, false, IfUnclaimed, Enforce, Plan::Refuse),
            ("taken by another cluster", &other_cluster, false, true, IfUnclaimed, Enforce, Plan::Refuse),
            ("another cluster's, forced", &other_cluster, false, false, Force, Enforce, Plan::Write),
            ("another namespace's", &other_namespace, false, false, IfUnclaimed, Enforce, Plan::Refuse),
            (
                "ours under a former public URL",
                &other_cluster,
                true,
                false,
                IfUnclaimed,
                Enforce,
                Plan::Write,
            ),
        ];
        for (what, observed, is_told, was_in_sync, claim, drift, expected) in cases {
            let desired = desired();
            let situation = Situation { observed, desired: &desired, is_told, was_in_sync, claim, drift };
            assert_eq!(plan(situation), expected, "{what}");
        }
    }

    #[test]
    fn our_own_url_is_never_what_is_put_back() {
        let base = desired().base;
        assert_eq!(original(&pointing_at(OURS), &base, false), NumberWebhooks::default());
        let forgotten = VoiceConfiguration { voice_url: None, ..desired().configuration() };
        assert_eq!(original(&forgotten, &base, false).status_callback, "");
        let old = VoiceConfiguration {
            status_callback: Some("https://old.example.com/moving/sales/twilio/status".to_owned()),
            ..pointing_at("https://old.example.com/voice")
        };
        assert_eq!(to_configuration(&original(&old, &base, false)), old);
    }

    #[test]
    fn writing_clears_application_and_trunk_and_an_absent_fallback() {
        let update = desired().update();
        assert_eq!(update.voice_application_sid.as_deref(), Some(""));
        assert_eq!(update.trunk_sid.as_deref(), Some(""));
        assert_eq!(update.voice_fallback_url.as_deref(), Some(""));
        assert_eq!(update.voice_url.as_deref(), Some(OURS));
        assert_eq!(
            update.status_callback.as_deref(),
            Some("https://voice.example.com/moving/sales/twilio/status")
        );
    }

    #[test]
    fn the_method_of_an_absent_fallback_is_no_difference() {
        let observed = VoiceConfiguration {
            voice_fallback_method: Some("POST".to_owned()),
            ..desired().configuration()
        };
        assert!(desired().is_met_by(&observed));
    }

    #[test]
    fn only_whole_switchboard_urls_have_a_tenant() {
        assert_eq!(tenant(OURS), Some("https://voice.example.com/moving"));
        assert_eq!(
            tenant("https://a.example/prefix/ns/ag/twilio/voice"),
            Some("https://a.example/prefix/ns")
        );
        for url in [
            "https://a.example/twilio/voice",
            "https://a.example/ag/twilio/voice",
            "https://a.example/a/b/voice",
        ] {
            assert_eq!(tenant(url), None, "{url}");
        }
    }
}
