//! The schema: made once by whoever comes first, and made of an older one with everything kept.

use std::path::Path;

use sqlx::any::AnyPoolOptions;
use tollgate_issuer::client::Client;
use tollgate_issuer::credential::CredentialKind;
use tollgate_shared::revocation::{Position, StatusIndex};
use tollgate_shared::time::UnixSeconds;
use tollgate_tests::workspace_root;

use super::feed::told;
use super::people::{child, cut_off, start};
use crate::stores::backend::{Backend, Kind, LIMITS, at_once};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn four_replicas_that_come_first_at_once_make_one_schema() {
    for kind in [Kind::Sqlite, Kind::Postgres, Kind::Sharded] {
        let backend = Backend::empty(kind).await;
        let stores = at_once(4, |_| {
            let (place, host) = (backend.place.clone(), backend.host.clone());
            async move { tollgate_issuer::store::Store::open(&place, LIMITS, host).await.unwrap() }
        })
        .await;
        for store in &stores {
            store.ping().await.unwrap();
        }
        assert_eq!(backend.number(0, "SELECT COUNT(*) FROM slots").await, 256, "{kind:?}");
        assert_eq!(backend.sum("SELECT COUNT(*) FROM owned_slots").await, 256, "{kind:?}");
    }
}

/// What the version before this one left behind.
const BEFORE: &str = "
    INSERT INTO meta VALUES ('feed_epoch', '000102030405060708090a0b0c0d0e0f'), ('feed_clock_floor_ms', '1799999999000');
    INSERT INTO users VALUES
        ('u_alice', 'alice', '$argon2id$alice', 'gold', '[\"admin\",\"reader\"]', '[\"read\"]', 'acme', 0, 1700000000),
        ('u_bob', 'bob', '$argon2id$bob', 'free', '[]', '[]', NULL, 1, 1700000001);
    INSERT INTO sessions VALUES ('s_1', 'u_alice', 'first-party', 'phone', 'read', 5, 1799999000, 1800000900);
    INSERT INTO credentials VALUES ('c_1', 'operator', 'first', zeroblob(32), 1700000000, NULL),
        ('c_2', 'edge', 'edge', zeroblob(32), 1700000000, NULL);
    INSERT INTO edge_activity VALUES ('edge', 1799999999, 3);
    INSERT INTO status_blocks VALUES (0, 1799999000, 1800003600);
    INSERT INTO feed_log VALUES
        (1, 'keys', NULL, NULL, NULL, NULL, NULL, 9223372036854775807, '{\"keys\":[]}', NULL, 'issuer', 1700000000),
        (2, 'index', 5, NULL, NULL, NULL, NULL, 1800003600, NULL, 'lost', 'operator first', 1799999500),
        (3, 'cutoff', NULL, 'subject', NULL, 'u_bob', 1799999601, 1800090000, NULL, NULL, 'operator first', 1799999600),
        (4, 'cutoff', NULL, 'session', NULL, 's_gone', NULL, 1800090000, NULL, NULL, 'operator first', 1799999600),
        (5, 'cutoff', NULL, 'subject', 'https://other.test', 'u_bob', 1799999601, 1800090000, NULL, NULL, 'operator first', 1799999600);
    INSERT INTO quota_accounts VALUES ('b', 1799999940, 10, 0, 7, 1, 1799999990000);
";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_the_version_before_kept_is_kept() {
    let backend = Backend::empty(Kind::Sqlite).await;
    let tollgate_issuer::store::StorePlace::Folder(folder) = &backend.place else { panic!("a folder") };
    old_file(folder).await;
    let store = backend.replica().await;
    let alice = store.user_named("alice").await.unwrap().unwrap();
    assert_eq!((alice.user.id.as_str(), alice.user.plan.as_str(), alice.version), ("u_alice", "gold", 1));
    assert_eq!(
        (alice.password_hash.as_str(), alice.created_at),
        ("$argon2id$alice", UnixSeconds(1_700_000_000))
    );
    assert_eq!((alice.user.roles.len(), alice.user.tenant.as_deref()), (2, Some("acme")));
    assert!(store.user("u_bob").await.unwrap().unwrap().user.disabled);
    let sessions = store.sessions_of("u_alice", backend.now()).await.unwrap();
    assert_eq!(sessions.iter().map(|session| session.id.as_str()).collect::<Vec<_>>(), ["s_1"]);
    let roles: Vec<_> = store.roles("", 10).await.unwrap().into_iter().map(|(role, _)| role.name).collect();
    assert_eq!(roles, ["admin", "reader"], "the roles that users have");
    assert!(store.tenant("acme").await.unwrap().is_some());
    assert_eq!(cut_off(&store, "u_bob").await.issued_before, Some(UnixSeconds(1_799_999_601)));
    assert_eq!(cut_off(&store, "u_bob").await.began_before, Some(UnixSeconds(1_799_999_601)));
    assert_eq!(cut_off(&store, "u_alice").await.issued_before, None);
    assert_eq!(store.epoch(&*backend.host).await.unwrap().to_hex(), "000102030405060708090a0b0c0d0e0f");
    let read = told(&store).await;
    assert_eq!((read.to, read.indices, read.cutoffs.len()), (Position(5), vec![StatusIndex(5)], 3));
    assert!(store.credential(CredentialKind::Operator, "c_1").await.unwrap().is_some());
    assert_eq!(store.edges().await.unwrap()[0].seen.unwrap().position, Position(3));
    // And it goes on from there.
    store.ensure_client(&Client::first_party("free").unwrap(), backend.now()).await.unwrap();
    let session = start(&backend, &store, "u_alice").await;
    child(&backend, &store, &session.token).await;
    assert_eq!(store.take_block(backend.now(), backend.now().plus(60)).await.unwrap().number, 1);
    assert_eq!(backend.number(0, "SELECT COUNT(*) FROM users WHERE slot < 0").await, 0);
    assert_eq!(backend.number(0, "SELECT allowed FROM quota_accounts").await, 7);
    backend.replica().await.ping().await.unwrap();
}

/// A file as that version made it.
async fn old_file(folder: &Path) {
    let migrations = tempfile::TempDir::new().unwrap();
    let first = "0001_init.sql";
    let text =
        std::fs::read_to_string(workspace_root().join("issuer/migrations/sqlite").join(first)).unwrap();
    std::fs::write(migrations.path().join(first), text).unwrap();
    sqlx::any::install_default_drivers();
    let url = format!("sqlite://{}?mode=rwc", folder.join("tollgate.sqlite3").display());
    let pool = AnyPoolOptions::new().max_connections(1).connect(&url).await.unwrap();
    sqlx::migrate::Migrator::new(migrations.path()).await.unwrap().run(&pool).await.unwrap();
    sqlx::raw_sql(BEFORE).execute(&pool).await.unwrap();
    pool.close().await;
}
