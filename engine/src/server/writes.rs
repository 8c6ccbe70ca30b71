//! The `PUT`s of one read, grouped by topic, so that each topic gets one append.
//!
//! ```text
//! requests   a1 b1 a2 c1 a3            as they came
//! groups     a: 3, b: 1, c: 1          counted while parsing
//! slices     a1 a2 a3 │ b1 │ c1        one append each
//! ```
//! Everything here is reused from read to read; nothing is allocated for a record.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crate::log::topic::Topic;
use crate::log::topics::Topics;

/// Topics that a connection remembers; when there are more, it starts anew.
const KNOWN_MAX: usize = 8192;
/// Topics that it remembers while it is idle.
const KNOWN_IDLE_MAX: usize = 1024;

/// A topic that this connection wrote to; or, for the time of a read, a name that nobody registered.
struct Known {
    name: Arc<str>,
    topic: Option<Arc<Topic>>,
    /// Its group in the current read, if `read` is the current read.
    group: u32,
    read: u64,
}

/// The records for one topic in one read.
pub struct Group {
    known: usize,
    /// How many records.
    pub count: u32,
    /// End of its slices, while they are being placed; afterwards the end for good.
    end: u32,
}

/// One record: its group, and where it lies in the read buffer.
struct Entry {
    group: u32,
    start: u32,
    end: u32,
}

/// Collects and groups.
#[derive(Default)]
pub struct Writes {
    known: Vec<Known>,
    by_name: HashMap<Arc<str>, usize>,
    last: usize,
    read: u64,
    groups: Vec<Group>,
    entries: Vec<Entry>,
    slices: Vec<&'static [u8]>,
}

impl Writes {
    /// Nothing was collected.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many records were collected.
    pub fn len(&self) -> u64 {
        self.entries.len() as u64
    }

    /// How many topics they are for.
    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    /// Adds one record, which lies at `payload` in the read buffer.
    pub fn add(&mut self, topics: &Topics, topic: &str, payload: Range<usize>) {
        let known = self.find(topics, topic);
        let group = self.group_of(known);
        self.groups[group as usize].count += 1;
        self.entries.push(Entry { group, start: payload.start as u32, end: payload.end as u32 });
    }

    /// The topic of a group, or the name that nobody registered.
    pub fn topic(&self, group: usize) -> Result<&Arc<Topic>, &str> {
        let known = &self.known[self.groups[group].known];
        known.topic.as_ref().ok_or(&known.name)
    }

    /// Looks a group's topic up again: it was deleted, or created just now.
    pub fn look_up_again(&mut self, topics: &Topics, group: usize) {
        let known = &mut self.known[self.groups[group].known];
        known.topic = topics.get(&known.name);
    }

    /// The records, those of one group side by side in the order of the requests.
    /// Give the list back with [`Writes::finish`].
    pub fn slices<'a>(&mut self, buffer: &'a [u8]) -> Vec<&'a [u8]> {
        let mut slices = recycle(std::mem::take(&mut self.slices));
        if let [_] = self.groups.as_slice() {
            slices.extend(self.entries.iter().map(|entry| &buffer[entry.start as usize..entry.end as usize]));
            self.groups[0].end = slices.len() as u32;
            return slices;
        }
        let mut end = 0;
        for group in &mut self.groups {
            // For now where it begins; each record that is placed moves it on.
            group.end = end;
            end += group.count;
        }
        slices.resize(self.entries.len(), &[]);
        for entry in &self.entries {
            let end = &mut self.groups[entry.group as usize].end;
            slices[*end as usize] = &buffer[entry.start as usize..entry.end as usize];
            *end += 1;
        }
        slices
    }

    /// Where a group's records lie in [`Writes::slices`].
    pub fn range(&self, group: usize) -> Range<usize> {
        let Group { count, end, .. } = self.groups[group];
        (end - count) as usize..end as usize
    }

    /// The group of each record in the order of the requests.
    pub fn order(&self) -> impl Iterator<Item = u32> + '_ {
        self.entries.iter().map(|entry| entry.group)
    }

    /// Forgets the records, keeps the memory.
    pub fn finish(&mut self, slices: Vec<&[u8]>) {
        self.slices = recycle(slices);
        // A client may invent names without end.
        if self.known.len() > KNOWN_MAX || self.groups.iter().any(|group| self.known[group.known].topic.is_none()) {
            self.known.clear();
            self.by_name.clear();
        }
        self.groups.clear();
        self.entries.clear();
        self.read += 1;
    }

    /// How many records each group has.
    pub fn counts(&self) -> impl ExactSizeIterator<Item = u32> + '_ {
        self.groups.iter().map(|group| group.count)
    }

    /// Gives memory back while the connection is idle.
    pub fn park(&mut self) {
        if self.entries.is_empty() {
            self.entries = Vec::new();
            self.slices = Vec::new();
            self.groups = Vec::new();
            if self.known.capacity() > KNOWN_IDLE_MAX {
                self.known = Vec::new();
                self.by_name = HashMap::new();
            }
        }
    }

    fn find(&mut self, topics: &Topics, name: &str) -> usize {
        // Producers tend to stay with one topic.
        if self.known.get(self.last).is_some_and(|known| &*known.name == name && known.topic.is_some()) {
            return self.last;
        }
        self.last = match self.by_name.get(name) {
            Some(&known) => known,
            None => self.remember(name),
        };
        let known = &mut self.known[self.last];
        if known.topic.is_none() {
            known.topic = topics.get(name);
        }
        self.last
    }

    fn remember(&mut self, name: &str) -> usize {
        let name: Arc<str> = name.into();
        self.by_name.insert(Arc::clone(&name), self.known.len());
        self.known.push(Known { name, topic: None, group: 0, read: u64::MAX });
        self.known.len() - 1
    }

    fn group_of(&mut self, known: usize) -> u32 {
        let next = self.groups.len() as u32;
        let topic = &mut self.known[known];
        if topic.read != self.read {
            topic.read = self.read;
            topic.group = next;
            self.groups.push(Group { known, count: 0, end: 0 });
        }
        topic.group
    }
}

/// The same memory for slices of another buffer. The list is emptied, so nothing is converted;
/// collecting in place keeps the allocation.
fn recycle<'b>(mut slices: Vec<&[u8]>) -> Vec<&'b [u8]> {
    slices.clear();
    let nothing: &'b [u8] = &[];
    slices.into_iter().map(|_| nothing).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_grouped_by_topic_in_the_order_of_the_requests() {
        let topics = Topics::default();
        let mut writes = Writes::default();
        let buffer = b"a1b1a2c1a3";
        for _ in 0..2 {
            for (index, topic) in ["a", "b", "a", "c", "a"].into_iter().enumerate() {
                writes.add(&topics, topic, 2 * index..2 * index + 2);
            }
            let slices = writes.slices(buffer);
            let grouped: Vec<Vec<&[u8]>> =
                (0..writes.groups()).map(|group| slices[writes.range(group)].to_vec()).collect();
            assert_eq!(
                grouped,
                [vec![b"a1", b"a2", b"a3"], vec![b"b1"], vec![b"c1"]]
                    .map(|group| group.into_iter().map(|r| &r[..]).collect::<Vec<_>>())
            );
            assert_eq!(writes.order().collect::<Vec<_>>(), [0, 1, 0, 2, 0]);
            assert_eq!(writes.topic(1).err(), Some("b"));
            writes.finish(slices);
        }
    }

    #[test]
    fn names_that_nobody_registered_are_forgotten() {
        let topics = Topics::default();
        let mut writes = Writes::default();
        writes.add(&topics, "invented", 0..1);
        let slices = writes.slices(b"x");
        assert_eq!(writes.topic(0).err(), Some("invented"));
        writes.finish(slices);
        assert!(writes.known.is_empty() && writes.by_name.is_empty());
    }

    #[test]
    fn the_list_of_slices_keeps_its_memory() {
        let list: Vec<&[u8]> = Vec::with_capacity(100);
        assert!(recycle(list).capacity() >= 100);
    }
}
