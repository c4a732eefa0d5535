//! Killed between any two steps, the issuer starts again with the old state or the new one: never both, never neither, and
//! nothing lost that was acknowledged.
//!
//! The program is `crashing`, which kills itself at a step that it is told. What has a request is killed while it answers
//! one; what has none is killed in a second process on the same data. Everything runs on SQLite and on PostgreSQL.

mod bench;
mod following;
mod keys;
mod roles;
mod rotation;
mod sessions;
mod slots;
mod start;
mod users;

use std::collections::BTreeSet;

use tollgate_tests::workspace_root;

/// Every step that the issuer marks is one of those that a test here kills it at, and the other way round; but for the
/// two that only users elsewhere come by.
#[test]
fn every_step_there_is_is_killed_at() {
    let mut marked = BTreeSet::new();
    for folder in ["issuer/src", "issuer/src/store"] {
        for entry in std::fs::read_dir(workspace_root().join(folder)).unwrap().flatten() {
            if entry.path().is_file() {
                let text = std::fs::read_to_string(entry.path()).unwrap();
                let steps = text.split("reached(\"").skip(1).filter_map(|rest| rest.split('"').next());
                marked.extend(steps.map(str::to_owned));
            }
        }
    }
    let tested = [
        rotation::ROTATION_STEPS,
        rotation::REUSE_STEPS,
        rotation::OUTBOX_STEPS,
        rotation::ELSEWHERE_STEPS,
        sessions::REVOKE_STEPS,
        sessions::END_STEPS,
        sessions::LOGIN_STEPS,
        users::CREATION_STEPS,
        users::PASSWORD_STEPS,
        users::DELETION_STEPS,
        keys::STEPS,
        roles::STEPS,
        slots::STEPS,
        start::STEPS,
    ];
    let tested = tested.into_iter().flatten();
    let tested: BTreeSet<String> =
        tested.map(|step| step.split(':').next().unwrap_or_default().to_owned()).collect();
    assert_eq!(marked, tested);
}
