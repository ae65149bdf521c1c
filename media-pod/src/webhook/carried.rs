//! What a URL that was answered before tells the pod that is asked there: pure.
//!
//! The carrier asks at a stream's action when the stream is over, and again at the voice webhook for a caller who waits, and
//! signs the URL with its query. What decides how a call goes on is therefore known where the store does not answer. Must
//! never hold a number or a word of the call: URLs are logged.

use call_session::Epoch;

use super::after::Tally;
use crate::clock::UnixMs;

const ORIGIN: &str = "origin";
const REACHED: &str = "reached";
const SPARED: &str = "spared";
const UNSEEN: &str = "unseen";
const UNTAKEN: &str = "untaken";

/// What was known when the URL was answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Carried {
    /// When the call began, if the URL says so: at a stream's action its origin, for a caller who waits the announcement.
    pub(super) origin: Option<UnixMs>,
    /// Which of its streams were no attempts.
    pub(super) tally: Tally,
    /// When the stream could begin, if no pod had taken one of the call before. Of the first stream the origin says so.
    pub(super) untaken: Option<UnixMs>,
}

impl Carried {
    /// Out of a request's query. What is missing or unreadable is as for a call that was just announced: nobody, or
    /// another release, wrote it.
    pub(super) fn of_query(query: Option<&str>) -> Self {
        let mut carried = Self::default();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            let count = || value.parse().unwrap_or_default();
            let time = || value.parse().ok().map(UnixMs);
            match &*name {
                ORIGIN => carried.origin = time(),
                REACHED => carried.tally.reached = Epoch(count()),
                SPARED => carried.tally.spared = count(),
                UNSEEN => carried.tally.unseen = count(),
                UNTAKEN => carried.untaken = time(),
                _ => {}
            }
        }
        carried
    }

    /// For a query; a count of zero is left out.
    pub(super) fn pairs(self) -> impl Iterator<Item = (&'static str, String)> {
        let Self { origin, tally: Tally { reached, spared, unseen }, untaken } = self;
        let counts = [(REACHED, reached.0), (SPARED, spared), (UNSEEN, unseen)];
        let counts = counts.into_iter().filter(|(_, count)| *count > 0);
        let time = |name, time: Option<UnixMs>| time.map(|UnixMs(at)| (name, at.to_string())).into_iter();
        let counts = counts.map(|(name, count)| (name, count.to_string()));
        time(ORIGIN, origin).chain(counts).chain(time(UNTAKEN, untaken))
    }
}

/// A URL with a query, if there is anything to tell.
pub(super) fn with_query<'a>(url: String, pairs: impl Iterator<Item = (&'a str, String)>) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    let query = query.extend_pairs(pairs).finish();
    if query.is_empty() { url } else { format!("{url}?{query}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_into_a_url_is_read_out_of_it() {
        let tally = Tally { reached: Epoch(3), spared: 2, unseen: 1 };
        let cases = [
            (
                Carried { origin: Some(UnixMs(1_790_000_000_000)), tally, untaken: Some(UnixMs(8)) },
                "?origin=1790000000000&reached=3&spared=2&unseen=1&untaken=8",
            ),
            (Carried { origin: Some(UnixMs(7)), ..Carried::default() }, "?origin=7"),
            (Carried::default(), ""),
        ];
        for (carried, query) in cases {
            let url = with_query("https://voice.example.com/a".to_owned(), carried.pairs());
            assert_eq!(url, format!("https://voice.example.com/a{query}"));
            assert_eq!(Carried::of_query(query.strip_prefix('?')), carried);
        }
    }

    #[test]
    fn a_url_of_another_release_tells_what_it_tells() {
        assert_eq!(Carried::of_query(None), Carried::default());
        let tally = Tally { spared: 2, ..Tally::default() };
        let carried = Carried::of_query(Some("spared=2&reached=-1&origin=soon&mood=bad&unseen"));
        assert_eq!(carried, Carried { tally, ..Carried::default() });
    }
}
