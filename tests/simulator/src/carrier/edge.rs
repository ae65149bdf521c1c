//! The edge between the public internet and the product: where a public URL is really sent.
//!
//! A request is signed over its public URL and sent to the upstream of the longest public base it starts with. With a
//! plain upstream, TLS ends before it, as behind a load balancer; an upstream with TLS is the edge itself, and takes the
//! place of the name's address in DNS. Whatever no edge maps cannot be reached, as a name without an address could not.

use std::net::SocketAddr;
use std::str::FromStr;

/// One mapping, `https://voice.example.com/prefix=http://10.96.0.7:8080` or `https://voice.example.com=https://203.0.113.7:443`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Public scheme-less base: host, optional port and path prefix.
    public: String,
    secure: bool,
    upstream: Upstream,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Upstream {
    Plain(String),
    Tls(SocketAddr),
}

/// Whether an upstream is spoken to in the clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// TLS ended before it.
    Plain,
    /// TLS ends there.
    Tls,
}

/// A mapping that is neither `https://public=http://upstream` nor `https://public=https://address`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "an edge is `https://host[:port][/prefix]=http://host:port`, or `https://host[:port]=https://address:port`, not `{0}`"
)]
pub struct InvalidEdge(String);

impl FromStr for Edge {
    type Err = InvalidEdge;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidEdge(text.to_owned());
        let (public, upstream) = text.split_once('=').ok_or_else(invalid)?;
        let (scheme, public) = public.split_once("://").ok_or_else(invalid)?;
        let public = public.trim_end_matches('/');
        let secure = match scheme {
            "https" => true,
            "http" => false,
            _ => return Err(invalid()),
        };
        let (upstream, fits) = if let Some(plain) = upstream.strip_prefix("http://") {
            let plain = plain.trim_end_matches('/');
            (Upstream::Plain(plain.to_owned()), !plain.is_empty() && !plain.contains('/'))
        } else {
            let address = upstream.strip_prefix("https://").and_then(|address| address.parse().ok());
            // A name has one address, whatever the path.
            (Upstream::Tls(address.ok_or_else(invalid)?), secure && !public.contains('/'))
        };
        if public.is_empty() || !fits {
            return Err(invalid());
        }
        Ok(Self { public: public.to_owned(), secure, upstream })
    }
}

impl Edge {
    /// A name and the address that stands for it, where TLS ends.
    pub(crate) fn tls_address(&self) -> Option<(&str, SocketAddr)> {
        match self.upstream {
            Upstream::Plain(_) => None,
            Upstream::Tls(address) => Some((name_of(&self.public), address)),
        }
    }
}

/// Where a public URL is really sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `host:port` to connect to.
    pub upstream: String,
    /// How it is spoken to.
    pub security: Security,
    /// What the `Host` header says.
    pub host: String,
    /// Path and query, as in the URL.
    pub path: String,
}

impl Target {
    /// The host without its port: what a certificate is for.
    pub(crate) fn name(&self) -> &str {
        name_of(&self.host)
    }

    /// What an HTTP client is given; the client knows the address of a name with TLS.
    pub(crate) fn http_url(&self) -> String {
        let Self { upstream, security, host: _, path } = self;
        match security {
            Security::Plain => format!("http://{upstream}{path}"),
            Security::Tls => {
                let port = upstream.rsplit(':').next().unwrap_or_default();
                format!("https://{}:{port}{path}", self.name())
            }
        }
    }
}

/// Finds the upstream of a public URL (`https`, `http`, `wss` or `ws`).
pub fn resolve(edges: &[Edge], url: &str) -> Option<Target> {
    let (scheme, rest) = super::signature::without_fragment(url).split_once("://")?;
    let secure = match scheme {
        "https" | "wss" => true,
        "http" | "ws" => false,
        _ => return None,
    };
    let edge = edges
        .iter()
        .filter(|edge| edge.secure == secure && starts_with_base(rest, &edge.public))
        .max_by_key(|edge| edge.public.len())?;
    let (host, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let (upstream, security) = match &edge.upstream {
        Upstream::Plain(upstream) => (upstream.clone(), Security::Plain),
        Upstream::Tls(address) => (address.to_string(), Security::Tls),
    };
    Some(Target { upstream, security, host: host.to_owned(), path })
}

fn name_of(host: &str) -> &str {
    host.split(':').next().unwrap_or_default()
}

fn starts_with_base(rest: &str, base: &str) -> bool {
    let head = rest.get(..base.len()).is_some_and(|head| head.eq_ignore_ascii_case(base));
    head && matches!(rest.as_bytes().get(base.len()), None | Some(b'/' | b'?'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edges(texts: &[&str]) -> Vec<Edge> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_longest_public_base_wins_and_the_path_is_kept() {
        let edges = edges(&[
            "https://a.example=http://127.0.0.1:1",
            "https://a.example/moving/sales=http://127.0.0.1:2/",
        ]);
        let target = |url| resolve(&edges, url).map(|t| (t.upstream, t.host, t.path));
        let to =
            |upstream: &str, path: &str| Some((upstream.to_owned(), "a.example".to_owned(), path.to_owned()));
        assert_eq!(
            target("https://a.example/moving/sales/twilio/voice?x=1#rc=2"),
            to("127.0.0.1:2", "/moving/sales/twilio/voice?x=1")
        );
        assert_eq!(target("wss://a.example/moving/sales2"), to("127.0.0.1:1", "/moving/sales2"));
        assert_eq!(target("https://a.example"), to("127.0.0.1:1", "/"));
        for unmapped in
            ["https://b.example/", "http://a.example/", "https://a.example:8443/", "ftp://a.example/", "x"]
        {
            assert_eq!(target(unmapped), None, "{unmapped}");
        }
    }

    #[test]
    fn an_upstream_with_tls_is_reached_under_its_public_name() {
        let edges = edges(&["https://a.example=https://10.0.0.1:8443"]);
        assert_eq!(edges[0].tls_address(), Some(("a.example", "10.0.0.1:8443".parse().unwrap())));
        let target = resolve(&edges, "wss://a.example/moving/sales/twilio/stream").unwrap();
        assert_eq!((target.upstream.as_str(), target.security), ("10.0.0.1:8443", Security::Tls));
        assert_eq!(target.http_url(), "https://a.example:8443/moving/sales/twilio/stream");
        assert_eq!((target.name(), target.host.as_str()), ("a.example", "a.example"));
    }

    #[test]
    fn a_wrong_mapping_is_refused_with_a_sentence() {
        for text in [
            "",
            "https://a",
            "a=http://b",
            "https://a=https://b",
            "https://a=https://10.0.0.1",
            "https://a/b=https://10.0.0.1:443",
            "http://a=https://10.0.0.1:443",
            "https://a=ftp://10.0.0.1:443",
            "https://=http://b",
            "https://a=http://b/c",
        ] {
            assert!(text.parse::<Edge>().is_err(), "{text}");
        }
    }
}
