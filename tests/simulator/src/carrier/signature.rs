//! `X-Twilio-Signature`, the signing side (protocols: webhook signature, algorithm and WebSocket upgrade).
//!
//! Written from the published algorithm, independently of the product's verifier: when both agree with the published
//! vectors they agree with each other. Signs exactly the URL it is given, minus the fragment.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha1::Sha1;

/// The URL forms a WebSocket upgrade may be signed over; which one the carrier uses is not published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StreamUrlForm {
    /// The URL of the TwiML.
    #[default]
    AsIs,
    /// With a slash appended.
    TrailingSlash,
    /// With the default port added.
    Port,
    /// With both.
    PortAndTrailingSlash,
}

impl StreamUrlForm {
    /// The string that is signed for a stream URL.
    pub fn apply(self, url: &str) -> String {
        let with_port = |url: &str| match url.split_once("://") {
            Some((scheme, rest)) => {
                let (host, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
                let port = if host.contains(':') { "" } else { ":443" };
                format!("{scheme}://{host}{port}{path}")
            }
            None => url.to_owned(),
        };
        match self {
            Self::AsIs => url.to_owned(),
            Self::TrailingSlash => format!("{url}/"),
            Self::Port => with_port(url),
            Self::PortAndTrailingSlash => format!("{}/", with_port(url)),
        }
    }
}

/// The signature over `url` and, for a form POST, its parameters: sorted by name, values of a repeated name without
/// duplicates and sorted, names and values concatenated.
pub fn sign(auth_token: &str, url: &str, parameters: &[(String, String)]) -> String {
    let mut sorted: Vec<&(String, String)> = parameters.iter().collect();
    sorted.sort();
    sorted.dedup();
    let mut data = without_fragment(url).to_owned();
    for (name, value) in sorted {
        data.push_str(name);
        data.push_str(value);
    }
    let mut mac =
        Hmac::<Sha1>::new_from_slice(auth_token.as_bytes()).expect("HMAC takes a key of any length");
    mac.update(data.as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}

/// A URL as it is requested: the fragment holds the carrier's own overrides and is never sent.
pub fn without_fragment(url: &str) -> &str {
    url.split_once('#').map_or(url, |(before, _)| before)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(url: &str, parameters: &[(&str, &str)]) -> String {
        let owned: Vec<_> = parameters.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        sign("12345", url, &owned)
    }

    #[test]
    fn published_vectors_hold() {
        let v1 = [
            ("CallSid", "CA1234567890ABCDE"),
            ("Caller", "+14158675310"),
            ("Digits", "1234"),
            ("From", "+14158675310"),
            ("To", "+18005551212"),
        ];
        assert_eq!(signed("https://example.com/myapp.php?foo=1&bar=2", &v1), "L/OH5YylLD5NRKLltdqwSvS0BnU=");
        let v2 = [
            ("Sid", "CA123"),
            ("SidAccount", "AC123"),
            ("Digits", "5678"),
            ("Digits", "1234"),
            ("Digits", "1234"),
            ("digits", "8"),
        ];
        assert_eq!(signed("https://example.com/voice", &v2), "G+W7JeKUljxjTtCUnO63Z8jEg48=");
        let v3 = [
            ("CallSid", "CA0123456789abcdef0123456789abcdef"),
            ("CallerName", "Zoë Müller"),
            ("From", "+4915112345678"),
            ("SpeechResult", "Grüße aus München, 東京 ☎"),
            ("To", "+498912345678"),
        ];
        assert_eq!(signed("https://example.com/voice", &v3), "NW8Xn2xreJuW/iGmg+Tw0VmHg0Y=");
        let v8 = [("CallerName", ""), ("Caller", " 12 34 "), ("Called", "+1 (415)"), ("x", "&=")];
        assert_eq!(signed("https://example.com/voice", &v8), "Nx2ES9dZW2dJ9cxc2LeJt7pMRI0=");
        let v4 = "https://example.com/voice?CallSid=CA1&From=%2B14158675310&To=%2B18005551212";
        assert_eq!(signed(v4, &[]), "XBPTuVVwGkGT6+MJra70LUCcF7Q=");
        let v6 = [
            ("https://example.com/voice", "7kudyaTQh+NyYH/ui/OOeke6ryw="),
            ("https://example.com:443/voice", "7VijVDHsP1z6B3VOCq3ax1HFxso="),
            ("https://example.com:8443/voice", "zpYuQX8EuwqMtOuoFJMXyrJ+OPU="),
            ("https://EXAMPLE.com/voice", "ic1f23vVRDUd0KxShwnA1KIz/FQ="),
        ];
        for (url, signature) in v6 {
            assert_eq!(signed(url, &[("CallSid", "CA1")]), signature, "{url}");
        }
    }

    #[test]
    fn published_vectors_of_the_upgrade_hold_in_every_url_form() {
        let url = "wss://example.com/media";
        let forms = [
            (StreamUrlForm::AsIs, "7PR3qMkpDyEJtMrVOY/LDyNq8J8="),
            (StreamUrlForm::TrailingSlash, "T+WBXwUXC0/CyoZ1DA+p9ilZORs="),
            (StreamUrlForm::Port, "zyyJQiPZXIGCLy3HYdHEfry0yDg="),
        ];
        for (form, signature) in forms {
            assert_eq!(signed(&form.apply(url), &[]), signature, "{form:?}");
        }
        assert_eq!(StreamUrlForm::PortAndTrailingSlash.apply(url), "wss://example.com:443/media/");
        assert_eq!(StreamUrlForm::Port.apply("wss://example.com:8443/media"), "wss://example.com:8443/media");
    }

    #[test]
    fn the_fragment_is_not_signed() {
        let plain = signed("https://example.com/voice", &[("CallSid", "CA1")]);
        assert_eq!(signed("https://example.com/voice#rc=2&rp=5xx", &[("CallSid", "CA1")]), plain);
    }
}
