//! What the VMs of one process share: named values, with a compare-and-swap that guards changes and not creation.
//!
//! This is Envoy's shared data as it is: one map for the process, values copied in and out, and **no create-if-absent**. A
//! value that is not there is written whatever one expects, so two that create it overwrite each other, and a write that
//! comes late brings a deleted one back. Whoever builds on it creates a key with the same value everywhere.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Names one writing of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version(pub u32);

/// Somebody else has written the value meanwhile, or the host refuses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotWritten;

/// The values that the VMs of a process share.
pub trait SharedData {
    /// A value and its version; `None` when there is none of this name.
    fn read(&self, name: &str) -> Option<(Vec<u8>, Version)>;

    /// Writes a value: over that of this version, or over any when there is no `version`.
    ///
    /// # Errors
    /// [`NotWritten`].
    fn write(&self, name: &str, value: &[u8], version: Option<Version>) -> Result<(), NotWritten>;
}

/// Shared data of this program alone: for hosts with one engine, and for tests, where several engines hold one. Its rules
/// are Envoy's.
#[derive(Debug, Clone, Default)]
pub struct LocalData(Rc<RefCell<Values>>);

#[derive(Debug, Default)]
struct Values {
    values: BTreeMap<String, (Vec<u8>, u32)>,
    latest: u32,
}

impl SharedData for LocalData {
    fn read(&self, name: &str) -> Option<(Vec<u8>, Version)> {
        let (value, version) = self.0.borrow().values.get(name)?.clone();
        Some((value, Version(version)))
    }

    fn write(&self, name: &str, value: &[u8], version: Option<Version>) -> Result<(), NotWritten> {
        let mut shared = self.0.borrow_mut();
        let known = shared.values.get(name).map(|(_, version)| *version);
        if let (Some(expected), Some(known)) = (version, known)
            && expected.0 != known
        {
            return Err(NotWritten);
        }
        shared.latest = shared.latest.wrapping_add(1).max(1);
        let version = shared.latest;
        shared.values.insert(name.to_owned(), (value.to_vec(), version));
        Ok(())
    }
}

impl LocalData {
    /// The bytes of all values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.borrow().values.values().map(|(value, _)| value.len()).sum()
    }

    /// Forgets everything, as a host does when the last VM has gone.
    pub fn clear(&self) {
        self.0.borrow_mut().values.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_guarded_and_a_creation_is_not() {
        let data = LocalData::default();
        assert_eq!(data.read("a"), None);
        // Whatever version is expected of what is not there.
        data.write("a", b"1", Some(Version(77))).unwrap();
        let (value, first) = data.read("a").unwrap();
        assert_eq!(value, b"1");
        data.write("a", b"2", Some(first)).unwrap();
        assert_eq!(data.write("a", b"3", Some(first)), Err(NotWritten));
        assert_eq!(data.read("a").unwrap().0, b"2");
        data.write("a", b"4", None).unwrap();
        assert_eq!(data.read("a").unwrap().0, b"4");
    }
}
