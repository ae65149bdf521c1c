//! The playback ledger: what was sent to the phone and what of it the caller has heard. Arithmetic only.
//!
//! Audio goes out in pieces of at most [`PIECE`] with a mark behind each, so what is known to be heard is never more
//! than one piece behind and never ahead: a returned mark says that everything before it was played (Media Streams
//! plays in order), whether or not earlier marks were lost. Marks of older generations are echoes of a clear and say
//! nothing. The ledger is the only place that knows what the caller heard.

use std::collections::VecDeque;

use crate::audio::{BYTES_PER_MS, Payload};
use crate::io::{Heard, Ignored, MarkName};
use crate::{Epoch, ItemId, Ms, Redacted, ReplyId};

/// Base64 characters of one piece: 960 μ-law bytes, 120 ms. A multiple of 4, so that a piece is valid base64 by itself.
const PIECE: usize = 1280;

/// Audio on its way at most: below the 10 minutes after which Media Streams throws audio away.
const MAX_OUTSTANDING: u64 = 9 * 60 * 1000 * BYTES_PER_MS;

/// Marks on their way at most: [`MAX_OUTSTANDING`] in full pieces is 4500; the rest is room for short ones.
const MAX_MARKS: usize = 9000;

/// How much of an item is heard between two notes of its progress: what a crash may make forget. Each note is a write to
/// the store.
const NOTED: u64 = 5000 * BYTES_PER_MS;

/// Items being played at most; a model speaks one or two at a time.
const MAX_ITEMS: usize = 32;

/// What was sent and what was played.
#[derive(Clone, Debug)]
pub(crate) struct Playback {
    epoch: Epoch,
    generation: u32,
    sequence: u64,
    next_key: u64,
    items: VecDeque<Playing>,
    pieces: VecDeque<Piece>,
    outstanding: u64,
    /// The last mark that was given up; 0 when none is.
    given_up: u64,
    plays_until: Ms,
}

/// One item of the model on its way to the caller's ear.
#[derive(Clone, Debug)]
pub(crate) struct Playing {
    key: u64,
    /// Which.
    pub(crate) item: ItemId,
    /// The reply it belongs to.
    pub(crate) reply: ReplyId,
    /// μ-law bytes sent.
    pub(crate) sent: u64,
    /// μ-law bytes known to be played; never more than `sent`.
    pub(crate) played: u64,
    noted: Noted,
    /// Its words, when the model has said them.
    pub(crate) text: Option<Redacted<String>>,
    source: Source,
}

/// How much of being heard is on record.
#[derive(Clone, Copy, Debug, Default)]
struct Noted {
    /// μ-law bytes.
    played: u64,
    /// Bytes of its words.
    words: usize,
}

/// What may still come of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// More audio.
    Open,
    /// No more audio.
    Complete,
    /// The connection it came from is gone: no more audio, and nothing there to truncate.
    Detached,
}

/// Audio between two marks.
#[derive(Clone, Copy, Debug)]
struct Piece {
    sequence: u64,
    key: u64,
    bytes: u64,
}

/// What an interruption found.
#[derive(Clone, Debug)]
pub(crate) struct Cut {
    /// Everything that was not wholly heard, in playing order.
    pub(crate) items: VecDeque<Playing>,
    /// Whether audio was on its way: then the phone must be cleared.
    pub(crate) was_audible: bool,
}

impl Playback {
    /// An empty ledger for one leg.
    pub(crate) const fn new(epoch: Epoch) -> Self {
        Self {
            epoch,
            generation: 0,
            sequence: 0,
            next_key: 0,
            items: VecDeque::new(),
            pieces: VecDeque::new(),
            outstanding: 0,
            given_up: 0,
            plays_until: Ms::ZERO,
        }
    }

    /// Books audio of an item and hands out its pieces, each with the mark to send behind it.
    ///
    /// # Errors
    /// [`Ignored::OverLimit`] when more is on its way than the carrier keeps; nothing of this audio is booked then.
    pub(crate) fn send(
        &mut self,
        now: Ms,
        reply: &ReplyId,
        item: &ItemId,
        audio: &Payload,
        mut each: impl FnMut(Payload, MarkName),
    ) -> Result<(), Ignored> {
        const FULL: Ignored = Ignored::OverLimit { input: "audio" };
        let pieces = audio.base64().len().div_ceil(PIECE);
        if self.outstanding + audio.mulaw_len() > MAX_OUTSTANDING || self.pieces.len() + pieces > MAX_MARKS {
            return Err(FULL);
        }
        let index = match self.items.iter().position(|playing| playing.item == *item) {
            Some(index) => index,
            None if self.items.len() >= MAX_ITEMS => return Err(FULL),
            None => {
                self.next_key += 1;
                self.items.push_back(Playing {
                    key: self.next_key,
                    item: item.clone(),
                    reply: reply.clone(),
                    sent: 0,
                    played: 0,
                    noted: Noted::default(),
                    text: None,
                    source: Source::Open,
                });
                self.items.len() - 1
            }
        };
        let playing = &mut self.items[index];
        let mut rest = audio.base64().clone();
        while !rest.is_empty() {
            let piece = rest.split_to(PIECE.min(rest.len()));
            let piece = Payload::from_base64(piece)
                .expect("padding stands only at the end, and the cut is at 4 characters");
            let bytes = piece.mulaw_len();
            self.sequence += 1;
            playing.sent += bytes;
            self.outstanding += bytes;
            self.pieces.push_back(Piece { sequence: self.sequence, key: playing.key, bytes });
            each(
                piece,
                MarkName { epoch: self.epoch.0, generation: self.generation, sequence: self.sequence },
            );
        }
        self.plays_until = self.plays_until.max(now) + audio.duration();
        Ok(())
    }

    /// How long the caller has heard nothing in the middle of an item whose next audio comes now.
    pub(crate) fn hole(&self, now: Ms, item: &ItemId) -> Ms {
        let has_begun = self.items.iter().any(|playing| playing.item == *item && playing.sent > 0);
        if has_begun { now.since(self.plays_until) } else { Ms::ZERO }
    }

    /// The model has sent all audio of an item.
    pub(crate) fn complete_item(&mut self, item: &ItemId) {
        self.complete(|playing| playing.item == *item);
    }

    /// The model has sent all audio of a reply.
    pub(crate) fn complete_reply(&mut self, reply: &ReplyId) {
        self.complete(|playing| playing.reply == *reply);
    }

    fn complete(&mut self, which: impl Fn(&Playing) -> bool) {
        for playing in self.items.iter_mut().filter(|playing| which(playing)) {
            if playing.source == Source::Open {
                playing.source = Source::Complete;
            }
        }
    }

    /// The model's connection is gone: what was sent plays on, nothing follows.
    pub(crate) fn detach(&mut self) {
        for playing in &mut self.items {
            playing.source = Source::Detached;
        }
    }

    /// Takes the words of an item that is being played; gives them back when it is not.
    pub(crate) fn put_text(&mut self, item: &ItemId, text: Redacted<String>) -> Result<(), Redacted<String>> {
        match self.items.iter_mut().find(|playing| playing.item == *item) {
            Some(playing) => {
                playing.text = Some(text);
                Ok(())
            }
            None => Err(text),
        }
    }

    /// A mark came back: everything up to it was played.
    ///
    /// # Errors
    /// When it is not of this leg and generation, or says nothing new.
    pub(crate) fn mark(&mut self, name: MarkName) -> Result<(), Ignored> {
        const STALE: Ignored = Ignored::Stale { input: "mark" };
        if name.epoch != self.epoch.0 || name.generation != self.generation || name.sequence > self.sequence {
            return Err(STALE);
        }
        if self.given_up <= name.sequence {
            self.given_up = 0;
        }
        let is_news = self.pieces.front().is_some_and(|piece| piece.sequence <= name.sequence);
        while let Some(piece) = self.pieces.pop_front_if(|piece| piece.sequence <= name.sequence) {
            self.book(piece);
        }
        if is_news { Ok(()) } else { Err(STALE) }
    }

    /// Takes everything sent as played: its time is long over and no mark came.
    pub(crate) fn assume_played(&mut self) {
        while let Some(piece) = self.pieces.pop_front() {
            self.given_up = piece.sequence;
            self.book(piece);
        }
    }

    fn book(&mut self, piece: Piece) {
        self.outstanding -= piece.bytes;
        if let Some(playing) = self.items.iter_mut().find(|playing| playing.key == piece.key) {
            playing.played += piece.bytes;
        }
    }

    /// The words heard so far of an item of which much was heard since this was last asked.
    pub(crate) fn take_progress(&mut self) -> Option<Redacted<String>> {
        self.items.iter_mut().find_map(|playing| {
            let text = playing.text.as_ref().filter(|_| playing.played >= playing.noted.played + NOTED)?;
            let heard = playing.heard_text(text.expose());
            let is_news = heard.len() > playing.noted.words;
            playing.noted = Noted { played: playing.played, words: heard.len() };
            is_news.then(|| Redacted::new(heard))
        })
    }

    /// Removes and returns the next item that was played to its end.
    pub(crate) fn pop_finished(&mut self) -> Option<Playing> {
        let is_over = |playing: &Playing| playing.source != Source::Open && playing.played == playing.sent;
        let index = self.items.iter().position(is_over)?;
        self.items.remove(index)
    }

    /// Forgets everything on its way and begins the next generation, whose marks are told from the echoes of a clear.
    pub(crate) fn cut(&mut self) -> Cut {
        self.generation += 1;
        self.pieces.clear();
        let was_audible = self.may_sound();
        self.outstanding = 0;
        self.given_up = 0;
        self.plays_until = Ms::ZERO;
        Cut { items: std::mem::take(&mut self.items), was_audible }
    }

    /// Whether the phone may hold audio: some is on its way, or was given up and may yet be played by a stalled line.
    pub(crate) const fn may_sound(&self) -> bool {
        self.outstanding > 0 || self.given_up > 0
    }

    /// Whether nothing is on its way to the caller.
    pub(crate) const fn is_silent(&self) -> bool {
        self.outstanding == 0
    }

    /// Whether anything of this reply is on its way.
    pub(crate) fn is_playing(&self, reply: &ReplyId) -> bool {
        self.items.iter().any(|playing| playing.reply == *reply && playing.played < playing.sent)
    }

    /// When everything sent will have been played if the phone plays without a pause.
    pub(crate) const fn plays_until(&self) -> Ms {
        self.plays_until
    }

    /// Items whose end the caller has not heard yet, in playing order.
    pub(crate) fn items(&self) -> impl Iterator<Item = &Playing> {
        self.items.iter()
    }
}

impl Playing {
    /// What the model must be told when it is cut here; nothing where its connection is gone.
    pub(crate) fn heard(&self) -> Option<Heard> {
        (self.source != Source::Detached && self.sent > 0)
            .then(|| Heard { item: self.item.clone(), played: Ms(self.played / BYTES_PER_MS) })
    }

    /// Its words as far as they were heard: cut in proportion of the audio, at a word.
    pub(crate) fn heard_text(&self, text: &str) -> String {
        cut_text(text, self.played, self.sent).to_owned()
    }
}

/// The words that fit into `played` of `sent`. What is cut ends at a whole word; text without spaces ends at a character.
fn cut_text(text: &str, played: u64, sent: u64) -> &str {
    if played >= sent {
        return text;
    }
    let letters = text.chars().count() as u64;
    let Some(kept) = letters.saturating_mul(played).checked_div(sent) else { return text };
    let end = text.char_indices().nth(kept as usize).map_or(text.len(), |(index, _)| index);
    let is_at_word = text[end..].starts_with(char::is_whitespace);
    match text[..end].rfind(char::is_whitespace) {
        Some(space) if !is_at_word => text[..space].trim_end(),
        None if !is_at_word && text.contains(char::is_whitespace) => "",
        Some(_) | None => text[..end].trim_end(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::SILENCE;

    fn sent(playback: &mut Playback, item: &str, milliseconds: u64) -> Vec<(u64, MarkName)> {
        let audio = Payload::from_mulaw(&vec![SILENCE; (milliseconds * BYTES_PER_MS) as usize]);
        let mut pieces = Vec::new();
        let each = |piece: Payload, mark| pieces.push((piece.mulaw_len(), mark));
        playback.send(Ms(0), &"r".into(), &item.into(), &audio, each).unwrap();
        pieces
    }

    #[test]
    fn long_audio_goes_out_in_pieces_with_a_mark_behind_each() {
        let mut playback = Playback::new(Epoch(2));
        let pieces = sent(&mut playback, "a", 300);
        assert_eq!(pieces.iter().map(|(bytes, _)| *bytes).collect::<Vec<_>>(), [960, 960, 480]);
        assert_eq!(pieces[2].1, MarkName { epoch: 2, generation: 0, sequence: 3 });
        assert_eq!(playback.plays_until(), Ms(300));
    }

    #[test]
    fn a_mark_speaks_for_all_marks_before_it_and_only_once() {
        let mut playback = Playback::new(Epoch(0));
        let pieces = sent(&mut playback, "a", 360);
        assert_eq!(playback.mark(pieces[1].1), Ok(()));
        assert_eq!(playback.items[0].played, 1920);
        assert!(playback.mark(pieces[0].1).is_err());
        assert!(playback.mark(pieces[1].1).is_err());
        assert!(playback.mark(MarkName { sequence: 99, ..pieces[1].1 }).is_err());
        assert!(playback.mark(MarkName { epoch: 1, ..pieces[2].1 }).is_err());
        assert_eq!(playback.items[0].played, 1920);
        assert!(playback.pop_finished().is_none());
        playback.complete_item(&"a".into());
        playback.mark(pieces[2].1).unwrap();
        assert_eq!(playback.pop_finished().map(|playing| playing.played), Some(2880));
        assert!(playback.is_silent());
    }

    #[test]
    fn echoes_of_a_clear_are_not_played_audio() {
        let mut playback = Playback::new(Epoch(0));
        let old = sent(&mut playback, "a", 240);
        playback.mark(old[0].1).unwrap();
        let cut = playback.cut();
        assert!(cut.was_audible);
        assert_eq!(cut.items[0].heard(), Some(Heard { item: "a".into(), played: Ms(120) }));
        sent(&mut playback, "b", 240);
        assert!(playback.mark(old[1].1).is_err());
        assert_eq!(playback.items[0].played, 0);
    }

    #[test]
    fn more_audio_than_the_carrier_keeps_is_refused() {
        let mut playback = Playback::new(Epoch(0));
        for _ in 0..9 {
            sent(&mut playback, "a", 60_000);
        }
        let more = Payload::from_mulaw(&[SILENCE; 8]);
        let refused = playback.send(Ms(0), &"r".into(), &"a".into(), &more, |_, _| {});
        assert_eq!(refused, Err(Ignored::OverLimit { input: "audio" }));
    }

    #[test]
    fn text_is_cut_at_a_word_in_proportion_of_what_was_heard() {
        assert_eq!(cut_text("one two three", 13, 13), "one two three");
        assert_eq!(cut_text("one two three", 7, 13), "one two");
        assert_eq!(cut_text("one two three", 6, 13), "one");
        assert_eq!(cut_text("one two three", 2, 13), "");
        assert_eq!(cut_text("one two three", 0, 13), "");
        assert_eq!(cut_text("こんにちは", 2, 5), "こん");
        assert_eq!(cut_text("", 1, 2), "");
    }
}
