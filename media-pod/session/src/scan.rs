//! A scanner for the two messages that come fifty times a second and more: the caller's `media`, the model's audio delta.
//!
//! It reads one object of plain members in any order and takes only what it is sure of: anything unusual (an escape, a
//! nested value where none is expected, a number of another shape, a repeated key, broken JSON) makes it give up with
//! `None`, and the tolerant parser beside it has the word. So it decides nothing: what it does read, serde would read the
//! same, which the tests of both wire types hold it to.

/// A position in a message.
#[derive(Debug)]
pub(crate) struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    pub(crate) const fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }

    /// One object: `each` gets every key and must read its value.
    pub(crate) fn object(&mut self, mut each: impl FnMut(&mut Self, &'a [u8]) -> Option<()>) -> Option<()> {
        self.take(b'{')?;
        loop {
            let key = self.plain()?;
            self.take(b':')?;
            each(self, key)?;
            match self.next()? {
                b',' => {}
                b'}' => return Some(()),
                _ => return None,
            }
        }
    }

    /// A string of printable ASCII without escapes.
    pub(crate) fn plain(&mut self) -> Option<&'a [u8]> {
        self.take(b'"')?;
        let rest = self.text.get(self.at..)?;
        let length = rest.iter().position(|b| !matches!(b, b' ' | b'!' | b'#'..=b'[' | b']'..=b'~'))?;
        if rest[length] != b'"' {
            return None;
        }
        self.at += length + 1;
        Some(&rest[..length])
    }

    /// Everything up to the next quotation mark: a string only if the caller finds no backslash, no control character and
    /// nothing but ASCII in it.
    pub(crate) fn quoted(&mut self) -> Option<&'a [u8]> {
        self.take(b'"')?;
        let rest = self.text.get(self.at..)?;
        let length = memchr::memchr(b'"', rest)?;
        self.at += length + 1;
        Some(&rest[..length])
    }

    /// A whole number, as such or as a string of digits.
    pub(crate) fn number(&mut self) -> Option<u64> {
        let is_quoted = self.peek()? == b'"';
        let digits = if is_quoted { self.plain()? } else { self.digits()? };
        let is_whole = matches!(digits.len(), 1..=18) && digits.iter().all(u8::is_ascii_digit);
        // JSON has no leading zeros; in a string they are nobody's business but the other parser's.
        let is_usual = is_whole && (digits.len() == 1 || digits[0] != b'0');
        is_usual.then(|| digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
    }

    /// A plain string or a whole number that nobody is interested in.
    pub(crate) fn skip(&mut self) -> Option<()> {
        if self.peek()? == b'"' { self.plain().map(|_| ()) } else { self.number().map(|_| ()) }
    }

    /// Nothing follows.
    pub(crate) fn end(&self) -> Option<()> {
        (self.at == self.text.len()).then_some(())
    }

    fn digits(&mut self) -> Option<&'a [u8]> {
        let rest = self.text.get(self.at..)?;
        let length = rest.iter().position(|b| !b.is_ascii_digit())?;
        // A fraction or an exponent makes it another kind of number.
        if matches!(rest[length], b'.' | b'e' | b'E') {
            return None;
        }
        self.at += length;
        Some(&rest[..length])
    }

    fn peek(&mut self) -> Option<u8> {
        while *self.text.get(self.at)? == b' ' {
            self.at += 1;
        }
        Some(self.text[self.at])
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }
}
