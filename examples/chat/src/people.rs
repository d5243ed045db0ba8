//! Who is where: each worker tells the others whom it serves.

use std::collections::{BTreeSet, HashMap};

use sticky_socketio::sticky_core::BusPeer;

use crate::words::Person;

/// The people in all rooms, by the worker that serves them.
#[derive(Debug, Default)]
pub(crate) struct People {
    by_worker: HashMap<BusPeer, Vec<Person>>,
}

impl People {
    /// Takes what a worker says of its people; answers the rooms in which something has changed.
    pub(crate) fn told(&mut self, worker: BusPeer, people: Vec<Person>) -> BTreeSet<String> {
        let before = self.by_worker.insert(worker, people).unwrap_or_default();
        let after = &self.by_worker[&worker];
        let only_one = |one: &[Person], other: &[Person]| -> BTreeSet<String> {
            one.iter().filter(|person| !other.contains(person)).map(|person| person.room.clone()).collect()
        };
        &only_one(&before, after) | &only_one(after, &before)
    }

    /// Forgets the people of all workers but these; answers the rooms in which something has changed.
    pub(crate) fn keep_only(&mut self, workers: &[BusPeer]) -> BTreeSet<String> {
        let gone: Vec<BusPeer> = self.by_worker.keys().filter(|worker| !workers.contains(worker)).copied().collect();
        let people = gone.iter().filter_map(|worker| self.by_worker.remove(worker)).flatten();
        people.map(|person| person.room).collect()
    }

    /// Everybody in a room, by name.
    pub(crate) fn of(&self, room: &str) -> Vec<Person> {
        let mut people: Vec<_> =
            self.by_worker.values().flatten().filter(|person| person.room == room).cloned().collect();
        people.sort();
        people
    }
}
