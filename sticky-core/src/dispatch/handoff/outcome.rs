//! What can become of a connection that should move, and of a head that should not be served: each is counted.

/// Anything but a connection that moved and was served. Each is a counter of the worker it happened in.
///
/// | | what happens to the client |
/// |---|---|
/// | `queue_full` | it waits in this process until the owner reads again |
/// | `too_many_in_flight` | likewise, until fewer descriptors are on their way (ETOOMANYREFS) |
/// | `expired` | it has waited for `failover`'s deadline and gets 503 |
/// | `dead_slot` | its owner is out; it goes to the next, as `failover` says |
/// | `draining_slot` | everything ends and its owner takes nothing any more: 503 |
/// | `too_large` | the message exceeds the channel: 503 |
/// | `receiver_gone` | the cluster has ended: it is closed |
/// | `truncated`, `version` | the owner cannot read the message: it is closed |
/// | `out_of_descriptors` | another thread took the descriptor kept free for it: it is closed |
/// | `loops` | it has moved too often and is served where it is; anything but 0 is a bug |
/// | `spoiled` | the framework wrote after it was told to stop: it is closed |
/// | `refused_heads` | it sent what cannot be framed: 400, 431 or 505 |
/// | `late_heads` | its head took too long: 408 |
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
