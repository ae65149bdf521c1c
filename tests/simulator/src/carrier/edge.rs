//! The edge between the public internet and a plain upstream: TLS ends there in the real world.
//!
//! A request is signed over its public URL and sent to the upstream of the longest public base it starts with. Whatever
//! no edge maps cannot be reached, as a host name without an address could not.

use std::str::FromStr;

/// One mapping, `https://voice.example.com/prefix=http://10.96.0.7:8080`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Public scheme-less base: host, optional port and path prefix.
    public: String,
    secure: bool,
    upstream: String,
}

/// A mapping that is not `https://public=http://upstream`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an edge is `https://host[:port][/prefix]=http://host:port`, not `{0}`")]
pub struct InvalidEdge(String);

impl FromStr for Edge {
    type Err = InvalidEdge;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidEdge(text.to_owned());
        let (public, upstream) = text.split_once('=').ok_or_else(invalid)?;
        let (scheme, public) = public.split_once("://").ok_or_else(invalid)?;
        let upstream = upstream.strip_prefix("http://").ok_or_else(invalid)?.trim_end_matches('/');
        let public = public.trim_end_matches('/');
        let secure = match scheme {
            "https" => true,
            "http" => false,
            _ => return Err(invalid()),
        };
        if public.is_empty() || upstream.is_empty() || upstream.contains('/') {
            return Err(invalid());
        }
        Ok(Self { public: public.to_owned(), secure, upstream: upstream.to_owned() })
    }
}

/// Where a public URL is really sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `host:port` to connect to.
    pub upstream: String,
    /// What the `Host` header says.
    pub host: String,
    /// Path and query, as in the URL.
    pub path: String,
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
    Some(Target { upstream: edge.upstream.clone(), host: host.to_owned(), path })
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
    fn a_wrong_mapping_is_refused_with_a_sentence() {
        for text in [
            "",
            "https://a",
            "a=http://b",
            "https://a=https://b",
            "https://=http://b",
            "https://a=http://b/c",
        ] {
            assert!(text.parse::<Edge>().is_err(), "{text}");
        }
    }
}
