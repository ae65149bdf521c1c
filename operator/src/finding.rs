//! One statement about a resource, before it is a condition.

use crds::conditions::{ConditionType, NewCondition, Reason, Status};

/// Whether something holds, why, and the sentence for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whether it holds.
    pub status: Status,
    /// Why.
    pub reason: Reason,
    /// What is wrong and what to do; empty where nothing is.
    pub message: String,
}

impl Finding {
    /// It holds.
    pub const fn yes(reason: Reason) -> Self {
        Self { status: Status::True, reason, message: String::new() }
    }

    /// It does not.
    pub fn no(reason: Reason, message: impl Into<String>) -> Self {
        Self { status: Status::False, reason, message: message.into() }
    }

    /// It cannot be told now.
    pub fn unknown(reason: Reason, message: impl Into<String>) -> Self {
        Self { status: Status::Unknown, reason, message: message.into() }
    }

    /// As a condition.
    pub fn condition(self, kind: ConditionType, observed_generation: Option<i64>) -> NewCondition {
        let Self { status, reason, message } = self;
        NewCondition { kind, status, reason, message, observed_generation }
    }
}
