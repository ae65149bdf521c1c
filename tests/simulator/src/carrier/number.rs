//! Incoming phone numbers: the resource and its rules for changes (protocols: IncomingPhoneNumbers).
//!
//! Pure: [`Number::update`] takes the form of a request and either applies all of it or refuses with the carrier's code.
//! `VoiceUrl` stays what it is but is ignored while an application or a trunk is set, and one of the two removes the other.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::callback::date;
use super::twiml::Callback;
use crate::violations::Rule;

/// A number of the account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Number {
    /// `PN…`.
    pub sid: String,
    /// E.164.
    pub phone_number: String,
    /// Shown to people.
    pub friendly_name: String,
    fields: Fields,
    created: Timestamp,
    updated: Timestamp,
    /// Unset URLs are `null` here and `""` there; both happen at the carrier.
    unset_is_null: bool,
}

/// Everything a request may change; empty is unset.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fields(Vec<(&'static str, String)>);

/// Kinds of fields.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Url,
    Method,
    Sid(&'static str),
    Flag,
    Text,
}

/// Form name, JSON name, kind; the order of the documentation.
const FIELDS: &[(&str, &str, Kind)] = &[
    ("VoiceUrl", "voice_url", Kind::Url),
    ("VoiceMethod", "voice_method", Kind::Method),
    ("VoiceFallbackUrl", "voice_fallback_url", Kind::Url),
    ("VoiceFallbackMethod", "voice_fallback_method", Kind::Method),
    ("StatusCallback", "status_callback", Kind::Url),
    ("StatusCallbackMethod", "status_callback_method", Kind::Method),
    ("VoiceApplicationSid", "voice_application_sid", Kind::Sid("AP")),
    ("TrunkSid", "trunk_sid", Kind::Sid("TK")),
    ("VoiceCallerIdLookup", "voice_caller_id_lookup", Kind::Flag),
    ("VoiceReceiveMode", "voice_receive_mode", Kind::Text),
    ("SmsUrl", "sms_url", Kind::Url),
    ("SmsMethod", "sms_method", Kind::Method),
    ("SmsFallbackUrl", "sms_fallback_url", Kind::Url),
    ("SmsFallbackMethod", "sms_fallback_method", Kind::Method),
    ("SmsApplicationSid", "sms_application_sid", Kind::Sid("AP")),
];

/// Documented fields that the simulator takes and does not keep.
const TAKEN: &[&str] =
    &["EmergencyStatus", "EmergencyAddressSid", "IdentitySid", "AddressSid", "BundleSid", "ApiVersion"];

/// A request the carrier refuses, and the rule the product broke with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RefusedField {
    pub(super) rule: Rule,
    pub(super) code: u32,
    pub(super) message: String,
}

impl Number {
    /// A number as the account holder bought it.
    pub fn new(sid: &str, phone_number: &str) -> Self {
        let initial = |(form, _, kind): &(&'static str, &str, Kind)| {
            let value = match kind {
                Kind::Method => "POST",
                Kind::Flag => "false",
                Kind::Text => "voice",
                Kind::Url | Kind::Sid(_) => "",
            };
            (*form, value.to_owned())
        };
        let now = Timestamp::now();
        Self {
            unset_is_null: sid.bytes().last().is_some_and(|byte| byte % 2 == 1),
            sid: sid.to_owned(),
            phone_number: phone_number.to_owned(),
            friendly_name: phone_number.to_owned(),
            fields: Fields(FIELDS.iter().map(initial).collect()),
            created: now,
            updated: now,
        }
    }

    /// Sets fields by their names in camel case (`voiceUrl`), as the account holder had them before the product came.
    ///
    /// # Errors
    /// A sentence about the field that does not exist or does not take its value.
    pub fn set_fields(&mut self, fields: &std::collections::BTreeMap<String, String>) -> Result<(), String> {
        let mut form = Vec::new();
        for (name, value) in fields {
            let known = FIELDS.iter().map(|(known, _, _)| *known).find(|known| {
                known[..1].eq_ignore_ascii_case(name.get(..1).unwrap_or_default())
                    && known.get(1..) == name.get(1..)
            });
            let known = known.ok_or_else(|| format!("`{name}` is not a field of a number"))?;
            form.push((known.to_owned(), value.clone()));
        }
        self.update(&form).map(|_| ()).map_err(|refused| refused.message)
    }

    /// Applies a request's form; unknown fields are returned, the carrier ignores them.
    pub(super) fn update(&mut self, form: &[(String, String)]) -> Result<Vec<String>, RefusedField> {
        let mut changed = self.clone();
        let mut unknown = Vec::new();
        for (name, value) in form {
            if name == "FriendlyName" {
                if value.chars().count() > 64 {
                    return Err(invalid(20422, "FriendlyName is longer than 64 characters"));
                }
                changed.friendly_name.clone_from(value);
                continue;
            }
            let Some((known, _, kind)) = FIELDS.iter().find(|(known, _, _)| known == name) else {
                if !TAKEN.contains(&name.as_str()) {
                    unknown.push(name.clone());
                }
                continue;
            };
            check(known, *kind, value)?;
            let other = match *known {
                "VoiceApplicationSid" => Some("TrunkSid"),
                "TrunkSid" => Some("VoiceApplicationSid"),
                _ => None,
            };
            if let Some(other) = other
                && !value.is_empty()
            {
                changed.fields.set(other, "");
            }
            changed.fields.set(known, value);
        }
        changed.updated = Timestamp::now();
        *self = changed;
        Ok(unknown)
    }

    /// Who is asked about a call; `None` while nothing is set, or an application or trunk is.
    pub(super) fn voice(&self) -> Option<Callback> {
        if !self.fields.value("VoiceApplicationSid").is_empty() || !self.fields.value("TrunkSid").is_empty() {
            return None;
        }
        self.callback("VoiceUrl", "VoiceMethod")
    }

    pub(super) fn fallback(&self) -> Option<Callback> {
        self.callback("VoiceFallbackUrl", "VoiceFallbackMethod")
    }

    pub(super) fn status_callback(&self) -> Option<Callback> {
        self.callback("StatusCallback", "StatusCallbackMethod")
    }

    fn callback(&self, url: &str, method: &str) -> Option<Callback> {
        let url = self.fields.value(url);
        (!url.is_empty())
            .then(|| Callback { url: url.to_owned(), is_get: self.fields.value(method) == "GET" })
    }

    /// The resource.
    pub(super) fn json(&self, account_sid: &str) -> Value {
        let mut json = json!({
            "sid": self.sid,
            "account_sid": account_sid,
            "phone_number": self.phone_number,
            "friendly_name": self.friendly_name,
            "capabilities": {"voice": true, "sms": true, "mms": true, "fax": false},
            "emergency_status": "Active",
            "emergency_address_sid": null,
            "emergency_address_status": "unregistered",
            "address_requirements": "none",
            "address_sid": null,
            "bundle_sid": null,
            "identity_sid": null,
            "beta": false,
            "origin": "twilio",
            "status": "in-use",
            "type": "local",
            "api_version": "2010-04-01",
            "date_created": date(self.created),
            "date_updated": date(self.updated),
            "uri": format!("/2010-04-01/Accounts/{account_sid}/IncomingPhoneNumbers/{}.json", self.sid),
        });
        for (form, name, kind) in FIELDS {
            let value = self.fields.value(form);
            json[*name] = match kind {
                Kind::Flag => json!(value == "true"),
                Kind::Url | Kind::Sid(_) if value.is_empty() && self.unset_is_null => Value::Null,
                Kind::Url | Kind::Sid(_) | Kind::Method | Kind::Text => json!(value),
            };
        }
        json
    }
}

impl Fields {
    fn value(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
    }

    fn set(&mut self, name: &str, value: &str) {
        if let Some((_, old)) = self.0.iter_mut().find(|(known, _)| *known == name) {
            value.clone_into(old);
        }
    }
}

fn check(name: &str, kind: Kind, value: &str) -> Result<(), RefusedField> {
    let is_valid = match kind {
        Kind::Url => value.is_empty() || is_absolute_url(value),
        Kind::Method => matches!(value, "GET" | "POST"),
        Kind::Sid(prefix) => value.is_empty() || is_sid(value, prefix),
        Kind::Flag => matches!(value, "true" | "false"),
        Kind::Text => matches!(value, "voice" | "fax"),
    };
    if is_valid {
        return Ok(());
    }
    let code = match kind {
        Kind::Url => 21402,
        Kind::Method => 21403,
        Kind::Sid(_) | Kind::Flag | Kind::Text => 20422,
    };
    Err(invalid(code, &format!("{name} is not valid")))
}

fn invalid(code: u32, message: &str) -> RefusedField {
    RefusedField { rule: Rule::RestValue, code, message: message.to_owned() }
}

/// An `http` or `https` URL with a host.
pub(super) fn is_absolute_url(text: &str) -> bool {
    reqwest::Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

/// A prefix and 32 hexadecimal digits.
pub(super) fn is_sid(text: &str, prefix: &str) -> bool {
    text.strip_prefix(prefix).is_some_and(|digits| {
        digits.len() == 32
            && digits.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SID: &str = "PN00000000000000000000000000000001";

    fn form(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn only_fields_sent_are_changed_and_empty_clears() {
        let mut number = Number::new(SID, "+15551230001");
        number.update(&form(&[("VoiceUrl", "https://a/b"), ("StatusCallback", "https://a/s")])).unwrap();
        assert_eq!(
            number.update(&form(&[("VoiceMethod", "GET"), ("Colour", "red")])),
            Ok(vec!["Colour".into()])
        );
        assert_eq!(number.voice(), Some(Callback { url: "https://a/b".into(), is_get: true }));
        number.update(&form(&[("VoiceUrl", "")])).unwrap();
        assert_eq!(number.voice(), None);
        assert_eq!(number.status_callback().map(|callback| callback.url), Some("https://a/s".into()));
    }

    #[test]
    fn an_application_or_trunk_hides_the_voice_url_and_each_removes_the_other() {
        let (app, trunk) = (format!("AP{}", "0".repeat(32)), format!("TK{}", "0".repeat(32)));
        let mut number = Number::new(SID, "+15551230001");
        number.update(&form(&[("VoiceUrl", "https://a/b"), ("VoiceApplicationSid", &app)])).unwrap();
        assert_eq!(number.voice(), None);
        number.update(&form(&[("TrunkSid", &trunk)])).unwrap();
        let json = number.json("AC1");
        assert_eq!((&json["trunk_sid"], &json["voice_application_sid"]), (&json!(trunk), &Value::Null));
        assert_eq!(json["voice_url"], "https://a/b");
        number.update(&form(&[("TrunkSid", ""), ("VoiceApplicationSid", "")])).unwrap();
        assert_eq!(number.voice().map(|callback| callback.url), Some("https://a/b".into()));
    }

    #[test]
    fn a_refused_field_changes_nothing() {
        let mut number = Number::new(SID, "+15551230001");
        let before = number.clone();
        for (name, value, code) in [
            ("VoiceUrl", "example.com", 21402),
            ("StatusCallback", "wss://a/b", 21402),
            ("VoiceMethod", "PUT", 21403),
            ("TrunkSid", "TK1", 20422),
            ("VoiceCallerIdLookup", "yes", 20422),
        ] {
            let refused = number.update(&form(&[("VoiceFallbackUrl", "https://a/f"), (name, value)]));
            assert_eq!(refused.map_err(|refused| refused.code), Err(code), "{name}");
            assert_eq!(number, before);
        }
    }

    #[test]
    fn unset_urls_are_null_on_one_number_and_empty_on_another() {
        let odd = Number::new(SID, "+15551230001").json("AC1");
        let even = Number::new("PN00000000000000000000000000000002", "+15551230002").json("AC1");
        assert_eq!((&odd["voice_url"], &even["voice_url"]), (&Value::Null, &json!("")));
    }
}
