//! Asks what is outside the API server: a gateway's public URL and its Redis. One short question each, with a deadline.

use std::sync::Arc;
use std::time::Duration;

use super::facts::{Found, StoreFacts, UrlFacts};

/// What does not answer within this would not answer a carrier in time either.
const DEADLINE: Duration = Duration::from_secs(5);

/// What a Redis says of itself. The URL holds its password, so no error repeats it.
pub(super) async fn redis(url: &twilio::Secret) -> Found<StoreFacts> {
    let client = redis::Client::open(url.expose()).map_err(|_| "the Secret holds no Redis URL".to_owned())?;
    let asked = async {
        let mut connection = client.get_multiplexed_async_connection().await?;
        let info: String = redis::cmd("INFO").query_async(&mut connection).await?;
        // Managed ones do not allow it, and then nothing is known of snapshots.
        let save = redis::cmd("CONFIG").arg("GET").arg("save").query_async(&mut connection).await;
        let save: Vec<String> = save.unwrap_or_default();
        Ok::<_, redis::RedisError>(store_facts(&info, &save))
    };
    match tokio::time::timeout(DEADLINE, asked).await {
        Ok(answer) => {
            answer.map_err(|error| format!("Redis does not answer from here ({})", error.category()))
        }
        Err(_) => Err(format!("Redis did not answer within {} s from here", DEADLINE.as_secs())),
    }
}

fn store_facts(info: &str, save: &[String]) -> StoreFacts {
    let field = |name: &str| {
        let mut lines = info.lines().filter_map(|line| line.trim().split_once(':'));
        lines.find(|(known, _)| *known == name).map(|(_, value)| value)
    };
    let number = |name: &str| field(name).and_then(|value| value.parse().ok()).unwrap_or_default();
    let has_snapshots = save.get(1).is_some_and(|schedule| !schedule.is_empty());
    StoreFacts {
        eviction: field("maxmemory_policy").map(str::to_owned),
        most_memory: number("maxmemory"),
        memory: number("used_memory"),
        is_persistent: field("aof_enabled") == Some("1") || number("connected_slaves") > 0 || has_snapshots,
    }
}

/// What a webhook's URL answers to a request without a signature.
pub(super) async fn url(url: String) -> UrlFacts {
    let addresses = addresses(&url).await;
    let status = match &addresses {
        Ok(_) => status(&url).await,
        Err(_) => Err("it has no address".to_owned()),
    };
    UrlFacts { url, addresses, status }
}

async fn addresses(url: &str) -> Found<usize> {
    let parsed = reqwest::Url::parse(url).map_err(|error| error.to_string())?;
    let host = parsed.host_str().ok_or("it has no host")?;
    let port = parsed.port_or_known_default().unwrap_or(443);
    let looked_up = tokio::time::timeout(DEADLINE, tokio::net::lookup_host((host, port))).await;
    let found = looked_up.map_err(|_| "no answer from the name server".to_owned())?;
    Ok(found.map_err(|error| error.to_string())?.count())
}

async fn status(url: &str) -> Found<u16> {
    let roots = rustls::RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let http = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .timeout(DEADLINE)
        .build()
        .map_err(|error| error.to_string())?;
    let answer = http.post(url).form(&[("CallSid", "doctor")]).send().await;
    answer.map(|answer| answer.status().as_u16()).map_err(|error| innermost(&error))
}

/// The cause that says most: "certificate expired" rather than "error sending request".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = "# Memory\r\nused_memory:1048576\r\nmaxmemory:2097152\r\nmaxmemory_policy:allkeys-lru\r\n\
                        # Persistence\r\naof_enabled:0\r\n# Replication\r\nconnected_slaves:0\r\n";

    #[test]
    fn what_redis_says_is_read() {
        let facts = store_facts(INFO, &[]);
        let wanted = StoreFacts {
            eviction: Some("allkeys-lru".to_owned()),
            most_memory: 2_097_152,
            memory: 1_048_576,
            is_persistent: false,
        };
        assert_eq!(facts, wanted);
        assert!(store_facts(INFO, &["save".to_owned(), "3600 1".to_owned()]).is_persistent);
        assert!(store_facts("aof_enabled:1", &[]).is_persistent);
        assert_eq!(store_facts("", &[]), StoreFacts::default());
    }
}
