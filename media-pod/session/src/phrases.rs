//! What the agent says by itself, in the languages callers speak most. Where a language is missing, English.

/// What the agent says by itself, in the call's language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phrases {
    /// When nobody has spoken for a while.
    pub are_you_there: String,
    /// Shortly before the call's time is over.
    pub time_is_nearly_over: String,
    /// While a tool takes long.
    pub one_moment: String,
    /// When no engine can be reached; in the carrier's voice.
    pub apology: String,
}

impl Phrases {
    /// The phrases for a BCP 47 tag: its language counts, its region does not.
    pub fn of(tag: &str) -> Self {
        let language = tag.split(['-', '_']).next().unwrap_or_default();
        let known = TABLE.iter().find(|row| row.0.eq_ignore_ascii_case(language));
        let (_, are_you_there, time_is_nearly_over, one_moment, apology) = *known.unwrap_or(&ENGLISH);
        Self {
            are_you_there: are_you_there.to_owned(),
            time_is_nearly_over: time_is_nearly_over.to_owned(),
            one_moment: one_moment.to_owned(),
            apology: apology.to_owned(),
        }
    }
}

impl Default for Phrases {
    fn default() -> Self {
        Self::of("en")
    }
}

/// Language, then the phrases in the order of the struct.
type Row = (&'static str, &'static str, &'static str, &'static str, &'static str);

const ENGLISH: Row = (
    "en",
    "Are you still there?",
    "Our time for this call is nearly over.",
    "One moment, please.",
    "We are sorry, we are having technical difficulties. Please call again later.",
);

const TABLE: [Row; 7] = [
    ENGLISH,
    (
        "de",
        "Sind Sie noch da?",
        "Unsere Zeit für dieses Gespräch ist fast um.",
        "Einen Moment, bitte.",
        "Es tut uns leid, wir haben technische Schwierigkeiten. Bitte rufen Sie später noch einmal an.",
    ),
    (
        "es",
        "¿Sigue ahí?",
        "El tiempo de esta llamada está a punto de terminar.",
        "Un momento, por favor.",
        "Lo sentimos, tenemos dificultades técnicas. Por favor, vuelva a llamar más tarde.",
    ),
    (
        "fr",
        "Êtes-vous toujours là ?",
        "Le temps prévu pour cet appel est presque écoulé.",
        "Un instant, s'il vous plaît.",
        "Nous sommes désolés, nous rencontrons des difficultés techniques. Veuillez rappeler plus tard.",
    ),
    (
        "it",
        "È ancora in linea?",
        "Il tempo a disposizione per questa chiamata è quasi terminato.",
        "Un momento, per favore.",
        "Siamo spiacenti, abbiamo difficoltà tecniche. La preghiamo di richiamare più tardi.",
    ),
    (
        "pt",
        "Ainda está aí?",
        "O tempo desta chamada está quase no fim.",
        "Um momento, por favor.",
        "Lamentamos, estamos com dificuldades técnicas. Por favor, ligue novamente mais tarde.",
    ),
    (
        "nl",
        "Bent u er nog?",
        "De tijd voor dit gesprek is bijna om.",
        "Een ogenblik, alstublieft.",
        "Het spijt ons, we hebben technische problemen. Probeert u het later nog eens.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phrases_are_found_by_language_whatever_the_region_and_english_otherwise() {
        for (tag, asked) in [
            ("en-GB", "Are you still there?"),
            ("de-AT", "Sind Sie noch da?"),
            ("PT_br", "Ainda está aí?"),
            ("fr", "Êtes-vous toujours là ?"),
            ("ja-JP", "Are you still there?"),
            ("", "Are you still there?"),
        ] {
            assert_eq!(Phrases::of(tag).are_you_there, asked, "{tag}");
        }
        assert_eq!(Phrases::default(), Phrases::of("en-US"));
    }

    #[test]
    fn every_language_has_phrases_of_its_own() {
        for (index, row) in TABLE.iter().enumerate() {
            for other in &TABLE[index + 1..] {
                assert!(row.0 != other.0 && row.1 != other.1 && row.2 != other.2 && row.3 != other.3);
            }
        }
    }
}
