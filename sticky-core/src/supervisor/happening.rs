//! What the user is told, as a line for programs.

use super::event::Note;
use crate::admin::Happening;
use crate::id::Post;

/// What a note says, in one word, a name and a sentence.
pub(super) fn happening(note: &Note, time_ms: u64) -> Happening {
    let (event, who) = name(note);
    Happening::new(time_ms, event, who.map(|who| who.to_string()), note.to_string())
}

fn name(note: &Note) -> (&'static str, Option<Post>) {
    match note {
        Note::Up => ("up", None),
        Note::Restarting { who, .. } => ("restarting", Some(*who)),
        Note::Hung { who } => ("hung", Some(*who)),
        Note::Evicted { who } => ("evicted", Some(*who)),
        Note::Draining { who } => ("draining", Some(*who)),
        Note::Back { who } => ("back", Some(*who)),
        Note::BootTimeout { who, .. } => ("boot_timeout", Some(*who)),
        Note::Reloading { .. } => ("reloading", None),
        Note::ReloadWaits => ("reload_waits", None),
        Note::Reloaded { .. } => ("reloaded", None),
        Note::ReloadCrowded { who, .. } => ("reload_crowded", Some(*who)),
        Note::ReloadStopped { .. } => ("reload_stopped", None),
        Note::ReloadGivenUp { .. } => ("reload_given_up", None),
        Note::Replaced { who, .. } => ("replaced", Some(*who)),
        Note::FormerLost { who, .. } => ("former_lost", Some(*who)),
        Note::Recycling { who, .. } => ("recycling", Some(*who)),
        Note::Recycled { who } => ("recycled", Some(*who)),
        Note::RecyclingFailed { who, .. } => ("recycling_failed", Some(*who)),
        Note::RecyclingCrowded { who, .. } => ("recycling_crowded", Some(*who)),
        Note::Scaling { .. } => ("scaling", None),
        Note::ScalingWaits { .. } => ("scaling_waits", None),
        Note::ScalingRefused { .. } => ("scaling_refused", None),
        Note::ScalingNeedless { .. } => ("scaling_needless", None),
        Note::ScalingCrowded { who, .. } => ("scaling_crowded", Some(*who)),
        Note::ScalingStopped { .. } => ("scaling_stopped", None),
        Note::Scaled { .. } => ("scaled", None),
        Note::Reexecuting => ("reexecuting", None),
        Note::ReexecWaits => ("reexec_waits", None),
        Note::Reexecuted => ("reexecuted", None),
        Note::ReexecRefused { .. } => ("reexec_refused", None),
        Note::ReexecGivenUp => ("reexec_given_up", None),
        Note::ShuttingDown { .. } => ("shutting_down", None),
        Note::StoppingNow => ("stopping_now", None),
        Note::Overdue { who } => ("overdue", Some(*who)),
        Note::Unkillable { who } => ("unkillable", Some(*who)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::WorkerId;

    /// Scripts read these.
    #[test]
    fn a_note_is_a_line_of_json() {
        let line = |note| serde_json::to_string(&happening(&note, 7)).unwrap();
        assert_eq!(line(Note::Up), r#"{"time_ms":7,"event":"up","text":"all workers are ready"}"#);
        let who = Post::Worker(WorkerId::new(2));
        let expected = r#"{"time_ms":7,"event":"back","who":"worker 2","text":"worker 2 is back"}"#;
        assert_eq!(line(Note::Back { who }), expected);
    }
}
