//! Identifiers as the carrier makes them: two letters and 32 hexadecimal digits, never twice.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use sha1::{Digest as _, Sha1};

/// Differs between two runs, so that stores which outlive a run never see a sid again.
static RUN: LazyLock<u128> = LazyLock::new(|| {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_nanos());
    now ^ u128::from(std::process::id()) << 96
});
static NEXT: AtomicU64 = AtomicU64::new(0);

/// A new sid with this prefix, e.g. `CA`.
pub(super) fn sid(prefix: &str) -> String {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let digest = Sha1::digest(format!("{}-{number}", *RUN));
    let mut sid = prefix.to_owned();
    for byte in &digest[..16] {
        sid.push_str(&format!("{byte:02x}"));
    }
    sid
}

#[cfg(test)]
mod tests {
    use super::sid;

    #[test]
    fn sids_have_the_carriers_shape_and_differ() {
        let (a, b) = (sid("CA"), sid("CA"));
        assert_ne!(a, b);
        assert!(a.len() == 34 && a.starts_with("CA"));
        assert!(a[2..].bytes().all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase()));
    }
}
