//! The labels of the pod's metrics: closed sets, each value with its word in the scrape.
//!
//! Must never hold a name, an id or an error's text. A value that is added here is a new series, and a new row in
//! `docs/operations.md` where that lists them.

use call_session::RealtimeError;
use call_session::io::{EndReason, Ignored, ModelLoss, RefusalClass, ToolOutcome};

/// A closed set of label values.
pub trait Label: Copy + PartialEq + 'static {
    /// Every value, in the order of the series.
    const ALL: &'static [Self];
    /// The value as it stands in the scrape.
    fn as_str(self) -> &'static str;
}

macro_rules! labels {
    ($($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident => $text:literal,)+ })+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant,)+ }

        impl Label for $name {
            const ALL: &'static [Self] = &[$(Self::$variant,)+];
            fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    )+};
}

labels! {
    /// Why a webhook of the carrier was refused.
    WebhookRefusal {
        /// The signature is missing or wrong.
        Signature => "signature",
        /// Not this pod's agent.
        UnknownAgent => "unknown_agent",
        /// The form, a parameter or the path does not parse, or the body is too large.
        Malformed => "malformed",
        /// The body did not come in time.
        BodyTimeout => "body_timeout",
        /// The store did not answer.
        Store => "store",
        /// The keyring's signing key cannot be used.
        Keyring => "keyring",
    }
    /// Where a call without a slot went.
    OverflowLabel {
        /// To another agent of the gateway.
        Agent => "agent",
        /// To a transfer target.
        Forward => "forward",
    }
    /// Why an agent did not take a call.
    CallRefusal {
        /// The agent is suspended.
        Suspended => "suspended",
        /// No slot is free on any pod.
        Full => "full",
        /// `maxConcurrentCalls`.
        Concurrency => "concurrency",
        /// `maxCallsPerCallerPerHour`.
        CallerRate => "caller_rate",
        /// `maxMinutesPerDay`.
        DailyMinutes => "daily_minutes",
        /// The call's streams ended too often without progress.
        Attempts => "attempts",
    }
    /// Why a media stream was refused before a model session was attached.
    StreamRefusal {
        /// The upgrade's signature is missing or wrong.
        Signature => "signature",
        /// Not this pod's agent.
        UnknownAgent => "unknown_agent",
        /// Too many sockets wait for their `start`.
        TooManySockets => "too_many_sockets",
        /// No `start` in time.
        StartTimeout => "start_timeout",
        /// Too many bytes or messages before `start`.
        StartTooLarge => "start_too_large",
        /// What came before `start` is not Media Streams.
        Malformed => "malformed",
        /// No token, or one that does not verify.
        Token => "token",
        /// The keyring cannot be used: no token can be verified.
        Keyring => "keyring",
        /// The token was made for another account, call or agent.
        TokenForeign => "token_foreign",
        /// The token is past its time.
        TokenExpired => "token_expired",
        /// The token was used before, or a newer leg of the call exists.
        TokenUsed => "token_used",
        /// The pod carries all the calls it may.
        Full => "full",
        /// The pod is leaving.
        Draining => "draining",
        /// The socket ended before `start`.
        Lost => "lost",
    }
    /// What the phone side sent and we could not use.
    PhoneFault {
        /// A frame that does not parse.
        Malformed => "malformed",
        /// A frame of a kind we do not know.
        Unknown => "unknown",
        /// A message above the limit.
        TooLarge => "too_large",
        /// The phone leg did not take what we sent: the queue's bound was reached, in bytes or in time.
        TooSlow => "too_slow",
    }
    /// The kinds of engine.
    EngineLabel {
        /// Realtime.
        Realtime => "realtime",
        /// Built in.
        Simulated => "simulated",
    }
    /// What became of warm sessions, and of calls that wanted one.
    WarmLabel {
        /// A call took one.
        Taken => "taken",
        /// A call found none and opened a connection of its own.
        Cold => "cold",
        /// Closed unused: too old, not wanted any more, of an older key or address, or the pod leaves.
        Recycled => "recycled",
        /// Not opened, or lost before a call took it.
        Failed => "failed",
    }
    /// What the model sent, or was told, that its protocol machine could not use.
    ProviderFault {
        /// Something came after the end.
        Ended => "ended",
        /// A message above the limit.
        TooLarge => "too_large",
        /// A message that is no event.
        NotAnEvent => "not_an_event",
        /// A binary message.
        Binary => "binary",
        /// An event of an unknown type.
        UnknownEvent => "unknown_event",
        /// A known event of the wrong shape.
        Malformed => "malformed",
        /// Of something that is over.
        Stale => "stale",
        /// More than is kept.
        QueueFull => "queue_full",
        /// The model did not take what we sent: the queue's bound was reached, in bytes or in time.
        TooSlow => "too_slow",
        /// It did not fit the state.
        Unexpected => "unexpected",
    }
    /// Kinds of tokens.
    TokenLabel {
        /// Text in, not cached.
        TextIn => "text_in",
        /// Text in, cached.
        TextCached => "text_cached",
        /// Audio in, not cached.
        AudioIn => "audio_in",
        /// Audio in, cached.
        AudioCached => "audio_cached",
        /// Text out.
        TextOut => "text_out",
        /// Audio out.
        AudioOut => "audio_out",
    }
    /// Why an input changed nothing.
    IgnoredInput {
        /// The call has ended.
        Ended => "ended",
        /// It does not fit the state.
        Unexpected => "unexpected",
        /// It belongs to a turn that is over: every interruption makes some.
        Stale => "stale",
        /// More than is kept.
        OverLimit => "over_limit",
    }
    /// Which leg of a call a stream is.
    LegLabel {
        /// The first.
        Fresh => "fresh",
        /// One that resumes the call.
        Resumed => "resumed",
    }
    /// Why a call ended although neither side wanted it to.
    CallLoss {
        /// Its streams ended too often without progress: nobody goes on with it.
        Attempts => "attempts",
        /// No engine could be reached, and the caller was told so.
        ModelUnreachable => "model_unreachable",
    }
    /// Which watched file.
    FileLabel {
        /// The agent file.
        Agent => "agent",
        /// The keyring.
        Keyring => "keyring",
    }
}

macro_rules! foreign_label {
    ($name:ident { $($variant:ident => $text:literal,)+ }) => {
        impl Label for $name {
            const ALL: &'static [Self] = &[$(Self::$variant,)+];
            fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

foreign_label!(EndReason {
    CallerHungUp => "caller_hung_up",
    AgentHungUp => "agent_hung_up",
    OperatorHungUp => "operator_hung_up",
    SilenceTimeout => "silence_timeout",
    MaxDuration => "max_duration",
    Transferred => "transferred",
    HandedOver => "handed_over",
    ModelUnreachable => "model_unreachable",
    PhoneLost => "phone_lost",
    PhoneProtocol => "phone_protocol",
    Internal => "internal",
});

foreign_label!(ModelLoss {
    Unreachable => "unreachable",
    Rejected => "rejected",
    Closed => "closed",
    Expired => "expired",
    Protocol => "protocol",
});

foreign_label!(RefusalClass {
    InvalidRequest => "invalid_request",
    RateLimited => "rate_limited",
    Server => "server",
    Benign => "benign",
});

foreign_label!(ToolOutcome {
    Value => "value",
    Error => "error",
    TimedOut => "timed_out",
    Refused => "refused",
});

impl CallLoss {
    /// The loss that a leg's end means for its call; what another leg goes on with is none.
    pub fn of(reason: EndReason) -> Option<Self> {
        match reason {
            EndReason::ModelUnreachable => Some(Self::ModelUnreachable),
            EndReason::CallerHungUp
            | EndReason::AgentHungUp
            | EndReason::OperatorHungUp
            | EndReason::SilenceTimeout
            | EndReason::MaxDuration
            | EndReason::Transferred
            | EndReason::HandedOver
            | EndReason::PhoneLost
            | EndReason::PhoneProtocol
            | EndReason::Internal => None,
        }
    }
}

impl From<&Ignored> for IgnoredInput {
    fn from(ignored: &Ignored) -> Self {
        match ignored {
            Ignored::Ended => Self::Ended,
            Ignored::Unexpected { .. } => Self::Unexpected,
            Ignored::Stale { .. } => Self::Stale,
            Ignored::OverLimit { .. } => Self::OverLimit,
        }
    }
}

impl From<&RealtimeError> for ProviderFault {
    fn from(error: &RealtimeError) -> Self {
        match error {
            RealtimeError::Ended => Self::Ended,
            RealtimeError::TooLarge { .. } => Self::TooLarge,
            RealtimeError::NotAnEvent => Self::NotAnEvent,
            RealtimeError::UnknownEvent => Self::UnknownEvent,
            RealtimeError::Malformed { .. } => Self::Malformed,
            RealtimeError::Stale { .. } => Self::Stale,
            RealtimeError::QueueFull { .. } => Self::QueueFull,
            RealtimeError::Unexpected { .. } => Self::Unexpected,
        }
    }
}
