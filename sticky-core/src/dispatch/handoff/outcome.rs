//! What can become of a connection that should move, and of a head that should not be served: each is counted.

/// Anything but a connection that moved and was served. Each is a counter of the worker it happened in; `handoff.md` says
/// what each means for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    QueueFull,
    TooManyInFlight,
    Expired,
    DeadSlot,
    DrainingSlot,
    TooLarge,
    ReceiverGone,
    Truncated,
    Version,
    OutOfDescriptors,
    Loop,
    Spoiled,
    RefusedHead,
    LateHead,
}

impl Outcome {
    /// Every outcome with its name, in the order of their numbers.
    pub(crate) const ALL: [(Self, &str); 14] = [
        (Self::QueueFull, "queue_full"),
        (Self::TooManyInFlight, "too_many_in_flight"),
        (Self::Expired, "expired"),
        (Self::DeadSlot, "dead_slot"),
        (Self::DrainingSlot, "draining_slot"),
        (Self::TooLarge, "too_large"),
        (Self::ReceiverGone, "receiver_gone"),
        (Self::Truncated, "truncated"),
        (Self::Version, "version"),
        (Self::OutOfDescriptors, "out_of_descriptors"),
        (Self::Loop, "loops"),
        (Self::Spoiled, "spoiled"),
        (Self::RefusedHead, "refused_heads"),
        (Self::LateHead, "late_heads"),
    ];

    /// The place of its counter among the others'.
    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_its_own_place() {
        for (index, (outcome, _)) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome.index(), index);
        }
    }
}
