//! What a stream's action URL tells the pod that is asked there: pure.
//!
//! The carrier gives the URL back, signed with its query, when the stream is over. What decides how a call goes on is
//! therefore known where the store does not answer. Must never hold a number or a word of the call: URLs are logged.

use call_session::Epoch;

use super::after::Tally;
use crate::clock::UnixMs;

const ORIGIN: &str = "origin";
const REACHED: &str = "reached";
const SPARED: &str = "spared";
const UNSEEN: &str = "unseen";

/// What was known when the stream was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Carried {
    /// When the call began, if the URL says so.
    pub(super) origin: Option<UnixMs>,
    /// Which of its streams were no attempts.
    pub(super) tally: Tally,
}

impl Carried {
    /// Out of a request's query. What is missing or unreadable is as in a call's first URL: another release wrote it.
    pub(super) fn of_query(query: Option<&str>) -> Self {
        let mut carried = Self::default();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            let count = || value.parse().unwrap_or_default();
            match &*name {
                ORIGIN => carried.origin = value.parse().ok().map(UnixMs),
                REACHED => carried.tally.reached = Epoch(count()),
                SPARED => carried.tally.spared = count(),
                UNSEEN => carried.tally.unseen = count(),
                _ => {}
            }
        }
        carried
    }

    /// The query; a count of zero is left out.
    pub(super) fn query(self) -> String {
        let Self { origin, tally: Tally { reached, spared, unseen } } = self;
        let counts = [(REACHED, reached.0), (SPARED, spared), (UNSEEN, unseen)];
        let counts =
            counts.into_iter().filter(|(_, count)| *count > 0).map(|(name, count)| (name, u64::from(count)));
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, number) in origin.map(|UnixMs(at)| (ORIGIN, at)).into_iter().chain(counts) {
            query.append_pair(name, &number.to_string());
        }
        query.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_into_a_url_is_read_out_of_it() {
        let tally = Tally { reached: Epoch(3), spared: 2, unseen: 1 };
        let cases = [
            (
                Carried { origin: Some(UnixMs(1_790_000_000_000)), tally },
                "origin=1790000000000&reached=3&spared=2&unseen=1",
            ),
            (Carried { origin: Some(UnixMs(7)), tally: Tally::default() }, "origin=7"),
            (Carried::default(), ""),
        ];
        for (carried, query) in cases {
            assert_eq!(carried.query(), query);
            assert_eq!(Carried::of_query(Some(query)), carried);
        }
    }

    #[test]
    fn a_url_of_another_release_tells_what_it_tells() {
        assert_eq!(Carried::of_query(None), Carried::default());
        let tally = Tally { spared: 2, ..Tally::default() };
        let carried = Carried::of_query(Some("spared=2&reached=-1&origin=soon&mood=bad&unseen"));
        assert_eq!(carried, Carried { origin: None, tally });
    }
}
