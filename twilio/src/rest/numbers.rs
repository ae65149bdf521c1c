//! Phone numbers: those of the account (`IncomingPhoneNumbers`) and those for sale (`AvailablePhoneNumbers`).
//!
//! Unset URL fields come back as `null` or as an empty string; both read as `None` here. An empty string sent clears a
//! field, an absent one leaves it as it is.

use std::fmt;
use std::str::FromStr;

use reqwest::Method;
use serde::{Deserialize, Deserializer, Serialize};

use super::{Client, Error, Form, Page};
use crate::{AccountSid, NumberSid};

/// A phone number of the account.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct IncomingPhoneNumber {
    /// Its identifier.
    pub sid: NumberSid,
    /// The account (or subaccount) it belongs to.
    pub account_sid: AccountSid,
    /// E.164.
    pub phone_number: String,
    /// The owner's label.
    #[serde(default, deserialize_with = "empty_as_none")]
    pub friendly_name: Option<String>,
    /// Who is asked when it rings.
    #[serde(flatten)]
    pub voice: VoiceConfiguration,
    /// What it can do.
    #[serde(default)]
    pub capabilities: Capabilities,
}

/// The eight fields that decide where a number's calls go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VoiceConfiguration {
    /// Asked for TwiML, unless an application or a trunk is set.
    #[serde(deserialize_with = "empty_as_none")]
    pub voice_url: Option<String>,
    /// `GET` or `POST`.
    #[serde(deserialize_with = "empty_as_none")]
    pub voice_method: Option<String>,
    /// Asked when the first fails.
    #[serde(deserialize_with = "empty_as_none")]
    pub voice_fallback_url: Option<String>,
    /// `GET` or `POST`.
    #[serde(deserialize_with = "empty_as_none")]
    pub voice_fallback_method: Option<String>,
    /// Told when a call ended.
    #[serde(deserialize_with = "empty_as_none")]
    pub status_callback: Option<String>,
    /// `GET` or `POST`.
    #[serde(deserialize_with = "empty_as_none")]
    pub status_callback_method: Option<String>,
    /// A TwiML application that answers instead of `voice_url`.
    #[serde(deserialize_with = "empty_as_none")]
    pub voice_application_sid: Option<String>,
    /// A SIP trunk that takes the calls instead of `voice_url`.
    #[serde(deserialize_with = "empty_as_none")]
    pub trunk_sid: Option<String>,
}

/// What a number can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    /// Calls.
    pub voice: bool,
    /// Text messages.
    #[serde(alias = "SMS")]
    pub sms: bool,
}

/// What to change of a number: `None` is not sent, `Some("")` clears.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NumberUpdate {
    /// The owner's label, up to 64 characters.
    pub friendly_name: Option<String>,
    /// See [`VoiceConfiguration::voice_url`]. It is ignored by Twilio while an application or trunk is set: clear both
    /// in the same update, and read back.
    pub voice_url: Option<String>,
    /// `GET` or `POST`.
    pub voice_method: Option<String>,
    /// See [`VoiceConfiguration::voice_fallback_url`].
    pub voice_fallback_url: Option<String>,
    /// `GET` or `POST`.
    pub voice_fallback_method: Option<String>,
    /// See [`VoiceConfiguration::status_callback`].
    pub status_callback: Option<String>,
    /// `GET` or `POST`.
    pub status_callback_method: Option<String>,
    /// See [`VoiceConfiguration::voice_application_sid`]. Setting it clears the trunk.
    pub voice_application_sid: Option<String>,
    /// See [`VoiceConfiguration::trunk_sid`]. Setting it clears the application.
    pub trunk_sid: Option<String>,
}

impl NumberUpdate {
    /// What makes a number equal to `voice` again: URLs that were unset are cleared, methods that were unset are left.
    pub fn restoring(voice: &VoiceConfiguration) -> Self {
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
        // Of application and trunk, setting one clears the other; naming the other as empty beside it could clear both.
        let (voice_application_sid, trunk_sid) = match (voice_application_sid, trunk_sid) {
            (_, Some(trunk)) => (None, Some(trunk)),
            (Some(application), None) => (Some(application), None),
            (None, None) => (Some(String::new()), Some(String::new())),
        };
        Self {
            friendly_name: None,
            voice_url: Some(voice_url.unwrap_or_default()),
            voice_method,
            voice_fallback_url: Some(voice_fallback_url.unwrap_or_default()),
            voice_fallback_method,
            status_callback: Some(status_callback.unwrap_or_default()),
            status_callback_method,
            voice_application_sid,
            trunk_sid,
        }
    }

    pub(super) fn form(&self) -> Form {
        let Self {
            friendly_name,
            voice_url,
            voice_method,
            voice_fallback_url,
            voice_fallback_method,
            status_callback,
            status_callback_method,
            voice_application_sid,
            trunk_sid,
        } = self;
        Form::default()
            .set_some("FriendlyName", friendly_name.as_deref())
            .set_some("VoiceUrl", voice_url.as_deref())
            .set_some("VoiceMethod", voice_method.as_deref())
            .set_some("VoiceFallbackUrl", voice_fallback_url.as_deref())
            .set_some("VoiceFallbackMethod", voice_fallback_method.as_deref())
            .set_some("StatusCallback", status_callback.as_deref())
            .set_some("StatusCallbackMethod", status_callback_method.as_deref())
            .set_some("VoiceApplicationSid", voice_application_sid.as_deref())
            .set_some("TrunkSid", trunk_sid.as_deref())
    }
}

/// A number for sale.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct AvailableNumber {
    /// E.164.
    pub phone_number: String,
    /// What it can do.
    #[serde(default)]
    pub capabilities: Capabilities,
    /// `none`, `any`, `local` or `foreign`: an address the buyer must have on file.
    #[serde(default)]
    pub address_requirements: Option<String>,
}

/// Which numbers for sale to look for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumberSearch {
    /// Where.
    pub country: CountryCode,
    /// Which kind.
    pub kind: NumberKind,
    /// North American area code.
    pub area_code: Option<u32>,
    /// 2–16 characters, `*` stands for one digit.
    pub contains: Option<String>,
    /// State or province.
    pub region: Option<String>,
    /// City.
    pub locality: Option<String>,
}

/// A country as ISO 3166-1 alpha-2 names it, in upper case: `US`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountryCode([u8; 2]);

/// Not a country code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a country code: expected two upper-case letters")]
pub struct InvalidCountryCode;

impl FromStr for CountryCode {
    type Err = InvalidCountryCode;
    fn from_str(text: &str) -> Result<Self, InvalidCountryCode> {
        let letters: [u8; 2] = text.as_bytes().try_into().map_err(|_| InvalidCountryCode)?;
        if letters.iter().all(u8::is_ascii_uppercase) { Ok(Self(letters)) } else { Err(InvalidCountryCode) }
    }
}

impl fmt::Display for CountryCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second] = self.0.map(char::from);
        write!(f, "{first}{second}")
    }
}

/// Kinds of numbers for sale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumberKind {
    /// Geographic.
    Local,
    /// Free for the caller.
    TollFree,
    /// Mobile.
    Mobile,
    /// Nationwide.
    National,
}

impl NumberKind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "Local",
            Self::TollFree => "TollFree",
            Self::Mobile => "Mobile",
            Self::National => "National",
        }
    }
}

impl Client {
    /// The account's number with exactly this E.164. Twilio's filter matches parts of numbers, so its answers are
    /// compared.
    pub async fn find_number(&self, phone_number: &str) -> Result<Option<IncomingPhoneNumber>, Error> {
        let query = Form::default().set("PhoneNumber", phone_number).encode();
        let first = self.path(&format!("IncomingPhoneNumbers.json?{query}"));
        let found = self.list::<IncomingNumbersPage>(first).await?;
        Ok(found.into_iter().find(|number| number.phone_number == phone_number))
    }

    /// The account's number with exactly this label (`FriendlyName`).
    pub async fn find_labelled(&self, label: &str) -> Result<Option<IncomingPhoneNumber>, Error> {
        let query = Form::default().set("FriendlyName", label).encode();
        let first = self.path(&format!("IncomingPhoneNumbers.json?{query}"));
        let found = self.list::<IncomingNumbersPage>(first).await?;
        Ok(found.into_iter().find(|number| number.friendly_name.as_deref() == Some(label)))
    }

    /// One number.
    pub async fn fetch_number(&self, sid: &NumberSid) -> Result<IncomingPhoneNumber, Error> {
        self.ask(self.request(Method::GET, &self.path(&format!("IncomingPhoneNumbers/{sid}.json")))).await
    }

    /// Changes the fields that `update` names; returns the number as it is now.
    pub async fn update_number(
        &self,
        sid: &NumberSid,
        update: &NumberUpdate,
    ) -> Result<IncomingPhoneNumber, Error> {
        self.ask(self.post(&format!("IncomingPhoneNumbers/{sid}.json"), &update.form())).await
    }

    /// Numbers for sale: the first page of what Twilio offers.
    pub async fn search_numbers(&self, search: &NumberSearch) -> Result<Vec<AvailableNumber>, Error> {
        let NumberSearch { country, kind, area_code, contains, region, locality } = search;
        let query = Form::default()
            .set("VoiceEnabled", "true")
            .set_some("AreaCode", area_code.map(|code| code.to_string()).as_deref())
            .set_some("Contains", contains.as_deref())
            .set_some("InRegion", region.as_deref())
            .set_some("InLocality", locality.as_deref())
            .encode();
        let resource = format!("AvailablePhoneNumbers/{country}/{}.json?{query}", kind.as_str());
        let page: AvailableNumbersPage = self.ask(self.request(Method::GET, &self.path(&resource))).await?;
        Ok(page.available_phone_numbers)
    }

    /// Buys a number under a label of at most 64 characters. There is no idempotency key: after an unclear end,
    /// [`Client::find_labelled`] first.
    pub async fn buy_number(&self, phone_number: &str, label: &str) -> Result<IncomingPhoneNumber, Error> {
        let form = Form::default().set("PhoneNumber", phone_number).set("FriendlyName", label);
        self.ask(self.post("IncomingPhoneNumbers.json", &form)).await
    }

    /// Gives a number back for good.
    pub async fn release_number(&self, sid: &NumberSid) -> Result<(), Error> {
        let path = self.path(&format!("IncomingPhoneNumbers/{sid}.json"));
        self.send(self.request(Method::DELETE, &path)).await.map(drop)
    }
}

#[derive(Deserialize)]
struct IncomingNumbersPage {
    incoming_phone_numbers: Vec<IncomingPhoneNumber>,
    #[serde(default)]
    next_page_uri: Option<String>,
}

impl Page for IncomingNumbersPage {
    type Item = IncomingPhoneNumber;
    fn into_parts(self) -> (Vec<IncomingPhoneNumber>, Option<String>) {
        (self.incoming_phone_numbers, self.next_page_uri)
    }
}

#[derive(Deserialize)]
struct AvailableNumbersPage {
    available_phone_numbers: Vec<AvailableNumber>,
}

fn empty_as_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty()))
}
