//! What the agent says by itself, in the languages callers speak most. Where a language is missing, English.

/// What the agent says by itself, in the call's language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phrases {
    /// BCP 47 tag of the phrases themselves: the asked one, or English where that has none.
    pub language: String,
    /// When nobody has spoken for a while.
    pub are_you_there: String,
    /// Shortly before the call's time is over.
    pub time_is_nearly_over: String,
    /// While a tool takes long.
    pub one_moment: String,
    /// When no engine can be reached, or a call is given up; in the carrier's voice.
    pub apology: String,
    /// When the agent is suspended; in the carrier's voice.
    pub not_in_service: String,
    /// When a transfer was not answered; in the carrier's voice.
    pub nobody_reached: String,
    /// When no slot is free and the agent's owner wrote no message; in the carrier's voice.
    pub all_busy: String,
}

impl Phrases {
    /// The phrases for a BCP 47 tag: its language counts, its region does not.
    pub fn of(tag: &str) -> Self {
        let language = tag.split(['-', '_']).next().unwrap_or_default();
        let known = TABLE.iter().find(|row| row.language.eq_ignore_ascii_case(language));
        let tag = if known.is_some() { tag } else { "en-US" };
        let Row {
            language: _,
            are_you_there,
            time_is_nearly_over,
            one_moment,
            apology,
            not_in_service,
            nobody_reached,
            all_busy,
        } = known.unwrap_or(&ENGLISH);
        Self {
            language: tag.to_owned(),
            are_you_there: (*are_you_there).to_owned(),
            time_is_nearly_over: (*time_is_nearly_over).to_owned(),
            one_moment: (*one_moment).to_owned(),
            apology: (*apology).to_owned(),
            not_in_service: (*not_in_service).to_owned(),
            nobody_reached: (*nobody_reached).to_owned(),
            all_busy: (*all_busy).to_owned(),
        }
    }
}

impl Default for Phrases {
    fn default() -> Self {
        Self::of("en-US")
    }
}

struct Row {
    language: &'static str,
    are_you_there: &'static str,
    time_is_nearly_over: &'static str,
    one_moment: &'static str,
    apology: &'static str,
    not_in_service: &'static str,
    nobody_reached: &'static str,
    all_busy: &'static str,
}

const ENGLISH: Row = Row {
    language: "en",
    are_you_there: "Are you still there?",
    time_is_nearly_over: "Our time for this call is nearly over.",
    one_moment: "One moment, please.",
    apology: "We are sorry, we are having technical difficulties. Please call again later.",
    not_in_service: "This line is not in service at the moment. Please call again later.",
    nobody_reached: "Nobody could be reached. Please call again later.",
    all_busy: "All lines are busy. Please call again in a moment.",
};

const TABLE: [Row; 7] = [
    ENGLISH,
    Row {
        language: "de",
        are_you_there: "Sind Sie noch da?",
        time_is_nearly_over: "Unsere Zeit für dieses Gespräch ist fast um.",
        one_moment: "Einen Moment, bitte.",
        apology: "Es tut uns leid, wir haben technische Schwierigkeiten. Bitte rufen Sie später noch einmal an.",
        not_in_service: "Dieser Anschluss ist zurzeit nicht in Betrieb. Bitte rufen Sie später noch einmal an.",
        nobody_reached: "Es war niemand zu erreichen. Bitte rufen Sie später noch einmal an.",
        all_busy: "Alle Leitungen sind besetzt. Bitte rufen Sie gleich noch einmal an.",
    },
    Row {
        language: "es",
        are_you_there: "¿Sigue ahí?",
        time_is_nearly_over: "El tiempo de esta llamada está a punto de terminar.",
        one_moment: "Un momento, por favor.",
        apology: "Lo sentimos, tenemos dificultades técnicas. Por favor, vuelva a llamar más tarde.",
        not_in_service: "Esta línea no está en servicio en este momento. Por favor, vuelva a llamar más tarde.",
        nobody_reached: "No hemos podido localizar a nadie. Por favor, vuelva a llamar más tarde.",
        all_busy: "Todas las líneas están ocupadas. Por favor, vuelva a llamar en un momento.",
    },
    Row {
        language: "fr",
        are_you_there: "Êtes-vous toujours là ?",
        time_is_nearly_over: "Le temps prévu pour cet appel est presque écoulé.",
        one_moment: "Un instant, s'il vous plaît.",
        apology: "Nous sommes désolés, nous rencontrons des difficultés techniques. Veuillez rappeler plus tard.",
        not_in_service: "Cette ligne n'est pas en service pour le moment. Veuillez rappeler plus tard.",
        nobody_reached: "Personne n'a pu être joint. Veuillez rappeler plus tard.",
        all_busy: "Toutes nos lignes sont occupées. Veuillez rappeler dans un instant.",
    },
    Row {
        language: "it",
        are_you_there: "È ancora in linea?",
        time_is_nearly_over: "Il tempo a disposizione per questa chiamata è quasi terminato.",
        one_moment: "Un momento, per favore.",
        apology: "Siamo spiacenti, abbiamo difficoltà tecniche. La preghiamo di richiamare più tardi.",
        not_in_service: "Questa linea al momento non è in servizio. La preghiamo di richiamare più tardi.",
        nobody_reached: "Non è stato possibile raggiungere nessuno. La preghiamo di richiamare più tardi.",
        all_busy: "Tutte le linee sono occupate. La preghiamo di richiamare tra poco.",
    },
    Row {
        language: "pt",
        are_you_there: "Ainda está aí?",
        time_is_nearly_over: "O tempo desta chamada está quase no fim.",
        one_moment: "Um momento, por favor.",
        apology: "Lamentamos, estamos com dificuldades técnicas. Por favor, ligue novamente mais tarde.",
        not_in_service: "Esta linha não está em serviço neste momento. Por favor, ligue novamente mais tarde.",
        nobody_reached: "Não foi possível contactar ninguém. Por favor, ligue novamente mais tarde.",
        all_busy: "Todas as linhas estão ocupadas. Por favor, ligue novamente dentro de momentos.",
    },
    Row {
        language: "nl",
        are_you_there: "Bent u er nog?",
        time_is_nearly_over: "De tijd voor dit gesprek is bijna om.",
        one_moment: "Een ogenblik, alstublieft.",
        apology: "Het spijt ons, we hebben technische problemen. Probeert u het later nog eens.",
        not_in_service: "Deze lijn is op dit moment niet in gebruik. Probeert u het later nog eens.",
        nobody_reached: "Er is niemand bereikbaar. Probeert u het later nog eens.",
        all_busy: "Alle lijnen zijn bezet. Probeert u het zo meteen nog eens.",
    },
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
        assert_eq!(
            (Phrases::of("de-AT").language.as_str(), Phrases::of("ja").language.as_str()),
            ("de-AT", "en-US")
        );
    }

    #[test]
    fn every_language_has_phrases_of_its_own() {
        let texts = |row: &Row| {
            [
                row.language,
                row.are_you_there,
                row.time_is_nearly_over,
                row.one_moment,
                row.apology,
                row.not_in_service,
                row.nobody_reached,
                row.all_busy,
            ]
        };
        for (index, row) in TABLE.iter().enumerate() {
            for other in &TABLE[index + 1..] {
                // "Un momento, por favor." is Spanish, "Um momento, por favor." Portuguese.
                assert!(texts(row).iter().zip(texts(other)).all(|(one, other)| *one != other));
            }
        }
    }
}
