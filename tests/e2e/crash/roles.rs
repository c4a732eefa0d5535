//! Killed while a role is made to permit less: it permits as much as before and nobody is cut off, or less and everybody is who has it;
//! and everybody else too, if it is not known who got it meanwhile.

use std::time::Duration;

use anyhow::ensure;
use serde_json::json;
use tollgate_tests::eventually::eventually;

use super::bench::{Backend, Bench, PASSWORD};
use super::rotation::OUTBOX_STEPS;

pub(super) const STEPS: &[&str] = &[
    "role.holders_read",
    "role.before_commit",
    "role.committed",
    "role.before_second_commit",
    "role.looked_again",
];

/// Who has the role goes on with the session in any case; only what was got before is worth nothing.
async fn a_role_permits_less_or_not(backend: Backend) {
    let mut bench = Bench::new(backend, 0).await;
    let less = json!({ "permissions": ["list"] });
    for (number, step) in [STEPS, OUTBOX_STEPS].concat().into_iter().enumerate() {
        let role = format!("role-{number}");
        let path = format!("/v1/admin/roles/{role}");
        let new = json!({ "name": role, "permissions": ["list", "file"] });
        bench.issuer.operator("POST", "/v1/admin/roles").json(&new).send_ok().await.unwrap();
        bench.issuer.add_user(step, PASSWORD, "free", &[&role], &["read"]).await.unwrap();
        let session = bench.login(step).await;
        let other = format!("{step}-other");
        bench.issuer.add_user(&other, PASSWORD, "free", &[], &["read"]).await.unwrap();
        let other = bench.login(&other).await;

        bench.kill_at_change(step, &path, &less).await;
        let changed = !matches!(step, "role.holders_read" | "role.before_commit");
        let after = bench.issuer.operator("GET", &path).send_ok().await.unwrap();
        let permissions = if changed { json!(["list"]) } else { json!(["list", "file"]) };
        assert_eq!(after.json_at("/permissions").unwrap(), permissions, "{step}");
        bench.poll().await;
        assert_eq!(bench.edge_refuses(&session.access), changed, "{step}");

        if matches!(step, "role.committed" | "role.before_second_commit") {
            eventually("all tokens to be cut off", Duration::from_secs(60), async || {
                bench.poll().await;
                ensure!(bench.edge_refuses(&other.access), "{step}");
                Ok(())
            })
            .await
            .unwrap();
        } else {
            assert!(!bench.edge_refuses(&other.access), "{step}");
        }

        bench.issuer.operator("PUT", &path).json(&less).send_ok().await.unwrap();
        bench.poll().await;
        assert!(bench.edge_refuses(&session.access), "{step}");
        let (next, _) = bench.refresh(&session.refresh).await.expect("no session ends");
        assert!(!bench.edge_refuses(&next), "{step}");
    }
    bench.check_feed(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_permits_less_or_not_on_sqlite() {
    a_role_permits_less_or_not(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_permits_less_or_not_on_postgres() {
    a_role_permits_less_or_not(Backend::Postgres).await;
}
