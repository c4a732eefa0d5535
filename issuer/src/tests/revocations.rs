//! What operators revoke, over the network and by command, and the list of it.

use clap::Parser as _;
use tollgate_shared::revocation::{Dimension, RevokedBy};

use super::held::Held;
use super::*;
use crate::cli::{Cli, run};

const REVOCATIONS: &str = "/v1/admin/revocations";
const OTHER: &str = "https://other.example";

/// A token that a revocation in a dimension covers.
struct Victim {
    dimension: Dimension,
    value: String,
    issuer: Option<&'static str>,
    token: Held,
}

impl Bench {
    /// A command on the data of this bench, by its clock.
    async fn command(&self, words: &[&str]) -> Result<String, String> {
        let data = self.folder.path().to_str().unwrap();
        let line = ["tollgate-issuer", "--data-dir", data].into_iter().chain(words.iter().copied());
        let cli = Cli::try_parse_from(line).map_err(|error| error.to_string())?;
        let mut output = Vec::new();
        run(cli, &BTreeMap::new(), self.host.clone(), &mut "".as_bytes(), &mut output)
            .await
            .map_err(|error| error.to_string())?;
        Ok(String::from_utf8(output).unwrap())
    }

    /// One token for each dimension, each of somebody else.
    async fn victims(&self) -> Vec<Victim> {
        for name in ["ann", "ben", "cat", "dan", "eve"] {
            self.user(name).await;
        }
        self.make("/v1/admin/tenants", json!({ "id": "acme" })).await;
        let dan = self.app.store.user_named("dan").await.unwrap().unwrap().user.id;
        let moved =
            self.change(Method::PATCH, &format!("/v1/admin/users/{dan}"), &json!({ "tenant": "acme" })).await;
        assert_eq!(moved.status, StatusCode::OK);
        // The move cut off what Dan had.
        self.host.advance(5_000);
        let robot = self.confidential("robot").await;
        let victim = |dimension, value: &str, token| Victim {
            dimension,
            value: value.to_owned(),
            issuer: None,
            token,
        };
        let (ann, ben, cat) =
            (self.holds("ann").await.0, self.holds("ben").await.0, self.holds("cat").await.0);
        let (dan, eve) = (self.holds("dan").await.0, self.holds("eve").await.0);
        let foreign = self.held(&eve.text).of_issuer(OTHER);
        let values = (
            ann.claims.token_id.to_string(),
            ben.claims.session.as_ref().unwrap().to_string(),
            cat.claims.subject.to_string(),
        );
        vec![
            victim(Dimension::Token, &values.0, ann),
            victim(Dimension::Session, &values.1, ben),
            victim(Dimension::Subject, &values.2, cat),
            victim(Dimension::Client, "robot", self.client_holds(&robot).await),
            victim(Dimension::Tenant, "acme", dan),
            victim(Dimension::Key, "k_lost", eve.signed_by("k_lost")),
            Victim { issuer: Some(OTHER), ..victim(Dimension::Issuer, OTHER, foreign) },
        ]
    }

    async fn revocations(&self, query: &str) -> Vec<Value> {
        let answer = self.get(&format!("{REVOCATIONS}?{query}"), Some(&self.operator)).await;
        assert_eq!(answer.status, StatusCode::OK, "{query}");
        answer.json()["revocations"].as_array().unwrap().clone()
    }
}

/// Fails unless exactly this revocation is shown, as it was ordered.
fn is_shown(found: &[Value], victim: &Victim, reason: &str, actor: &str) {
    let name = victim.dimension.name();
    let [shown] = found else { panic!("{name}: {found:?}") };
    assert_eq!((&shown["dimension"], &shown["value"]), (&json!(name), &json!(victim.value)));
    assert_eq!((&shown["reason"], &shown["actor"]), (&json!(reason), &json!(actor)), "{name}");
    assert_eq!((&shown["in_force"], &shown["issuer"]), (&json!(true), &json!(victim.issuer)), "{name}");
    assert_eq!(shown["created_at"], START.0 / 1000 + 5);
}

#[tokio::test]
async fn operators_revoke_in_each_dimension_with_a_reason_and_see_it_listed() {
    let bench = Bench::new().await;
    let edge = bench.edge("eu-1").await;
    bench.user("zoe").await;
    let victims = bench.victims().await;
    assert_eq!(victims.iter().map(|victim| victim.dimension).collect::<Vec<_>>(), Dimension::ALL);
    let bystander = bench.holds("zoe").await.0;
    for victim in &victims {
        let Victim { dimension, value, issuer, token } = victim;
        assert!(!token.is_revoked(&bench.told(&edge).await), "{dimension:?}");
        let reason = format!("lost {}", dimension.name());
        let order =
            json!({ "dimension": dimension.name(), "value": value, "issuer": issuer, "reason": reason });
        let answer = bench.post(REVOCATIONS, Some(&bench.operator), &order).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{dimension:?}");
        let state = bench.told(&edge).await;
        assert_eq!(token.revoked_by(&state), Some(RevokedBy::Cutoff(*dimension)));
        assert!(!bystander.is_revoked(&state), "{dimension:?}");
        let query = format!("dimension={}&value={value}", dimension.name());
        let found = bench.revocations(&query).await;
        assert_eq!(found[0]["position"], answer.json()["position"]);
        is_shown(&found, victim, &reason, "operator first");
    }
    // All tokens of ours, of which none is spared but the next.
    let order =
        json!({ "dimension": "issuer", "value": bench.app.settings.issuer.as_str(), "reason": "all" });
    assert_eq!(bench.post(REVOCATIONS, Some(&bench.operator), &order).await.status, StatusCode::CREATED);
    let next = bench.holds("zoe").await.0;
    let state = bench.told(&edge).await;
    assert!(bystander.is_revoked(&state) && !next.is_revoked(&state));
}

#[tokio::test]
async fn the_command_line_revokes_in_each_dimension_with_a_reason_and_lists_it() {
    let bench = Bench::new().await;
    let edge = bench.edge("eu-1").await;
    bench.user("zoe").await;
    let victims = bench.victims().await;
    let bystander = bench.holds("zoe").await.0;
    for victim in &victims {
        let Victim { dimension, value, issuer, token } = victim;
        assert!(!token.is_revoked(&bench.told(&edge).await), "{dimension:?}");
        let mut words = vec!["revoke", dimension.name(), value, "--reason", "lost it"];
        words.extend(issuer.iter().flat_map(|issuer| ["--issuer", issuer]));
        let position = bench.command(&words).await.unwrap();
        let state = bench.told(&edge).await;
        assert_eq!(token.revoked_by(&state), Some(RevokedBy::Cutoff(*dimension)));
        assert!(!bystander.is_revoked(&state), "{dimension:?}");
        let list = ["revocation", "list", "--dimension", dimension.name(), "--value", value];
        let found: Value = serde_json::from_str(&bench.command(&list).await.unwrap()).unwrap();
        assert_eq!(found["position"].to_string(), position.trim());
        is_shown(&[found], victim, "lost it", "command line");
    }
    let all = bench.command(&["revocation", "list", "--actor", "command line", "--limit", "5"]).await;
    assert_eq!(all.unwrap().lines().count(), 5);
    assert!(bench.command(&["revocation", "list", "--dimension", "planet"]).await.is_err());
}

#[tokio::test]
async fn what_was_issued_before_a_date_is_revoked_and_nothing_later() {
    for dimension in [Dimension::Subject, Dimension::Client, Dimension::Tenant, Dimension::Issuer] {
        let bench = Bench::new().await;
        let edge = bench.edge("eu-1").await;
        bench.make("/v1/admin/tenants", json!({ "id": "acme" })).await;
        let user = json!({ "username": "alice", "password": PASSWORD, "tenant": "acme" });
        let id = bench.make("/v1/admin/users", user).await["id"].as_str().unwrap().to_owned();
        let value = match dimension {
            Dimension::Subject => id.as_str(),
            Dimension::Client => "first-party",
            Dimension::Tenant => "acme",
            Dimension::Token | Dimension::Session | Dimension::Key | Dimension::Issuer => {
                bench.app.settings.issuer.as_str()
            }
        };
        let (before, before_refresh) = bench.holds("alice").await;
        bench.host.advance(100_000);
        let date = bench.host.seconds().0;
        let (after, after_refresh) = bench.holds("alice").await;
        assert_eq!(after.claims.issued_at.unwrap().0, date);
        bench.host.advance(50_000);
        let order = |issued_before: Option<u64>| json!({ "dimension": dimension.name(), "value": value, "issued_before": issued_before });
        let revoke = async |issued_before| {
            bench.post(REVOCATIONS, Some(&bench.operator), &order(issued_before)).await.status
        };
        assert_eq!(revoke(Some(date)).await, StatusCode::CREATED);
        let state = bench.told(&edge).await;
        assert_eq!(before.revoked_by(&state), Some(RevokedBy::Cutoff(dimension)));
        assert!(!after.is_revoked(&state), "{dimension:?}");
        assert_eq!(bench.refresh(&before_refresh).await.status, StatusCode::BAD_REQUEST, "its session too");
        let refreshed = bench.refresh(&after_refresh).await;
        assert_eq!(refreshed.status, StatusCode::OK);
        assert_eq!(bench.app.live_token(&before.text).await.unwrap().map(|_| ()), None);
        assert!(bench.app.live_token(&after.text).await.unwrap().is_some());
        assert_eq!(bench.revocations("").await.last().unwrap()["issued_before"], date);
        // A later one is not made weaker by an earlier one that comes after it.
        assert_eq!(revoke(None).await, StatusCode::CREATED);
        let words = ["revoke", dimension.name(), value, "--issued-before", &date.to_string()];
        bench.command(&words).await.unwrap();
        assert!(after.is_revoked(&bench.told(&edge).await));
        let again = refreshed.json()["refresh_token"].as_str().unwrap().to_owned();
        assert_eq!(bench.refresh(&again).await.status, StatusCode::BAD_REQUEST, "{dimension:?}");
        assert!(!bench.holds("alice").await.0.is_revoked(&bench.told(&edge).await));
    }
}

#[tokio::test]
async fn a_date_that_makes_no_sense_is_refused_and_one_long_past_is_told_to_nobody() {
    let bench = Bench::new().await;
    let now = bench.host.seconds().0;
    for (dimension, date, status) in [
        ("subject", now, StatusCode::CREATED),
        ("subject", now + 1, StatusCode::BAD_REQUEST),
        ("token", now, StatusCode::BAD_REQUEST),
        ("session", now, StatusCode::BAD_REQUEST),
        ("key", now, StatusCode::BAD_REQUEST),
    ] {
        let order = json!({ "dimension": dimension, "value": "x", "issued_before": date });
        let answer = bench.post(REVOCATIONS, Some(&bench.operator), &order).await;
        assert_eq!(answer.status, status, "{dimension} {date}");
        if status == StatusCode::BAD_REQUEST {
            assert!(answer.json()["detail"].as_str().unwrap().starts_with("issued_before: "));
        }
    }
    let refused = bench.command(&["revoke", "session", "s_1", "--issued-before", "1"]).await.unwrap_err();
    assert!(refused.starts_with("issued_before: "), "{refused}");
    // Every token of then is over, and each edge has forgotten it.
    let before = bench.app.store.position().await.unwrap();
    let order = json!({ "dimension": "client", "value": "x", "issued_before": now - 3 * 86_400 });
    assert_eq!(bench.post(REVOCATIONS, Some(&bench.operator), &order).await.status, StatusCode::CREATED);
    assert_eq!(bench.app.store.position().await.unwrap(), before);
}

#[tokio::test]
async fn the_list_of_revocations_is_searched_and_read_page_by_page() {
    let bench = Bench::new().await;
    bench.user("alice").await;
    let (token, _) = bench.holds("alice").await;
    let form = format!("token={}&client_id=first-party", token.text);
    bench.form("/oauth2/revoke", None, &form).await;
    let (list, idx) = token.index.list_and_bit();
    let found = bench.revocations(&format!("value={list}/{idx}")).await;
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0]["dimension"], &found[0]["actor"]), (&json!("token"), &json!("client first-party")));
    assert_eq!((&found[0]["list"], &found[0]["idx"]), (&json!(list), &json!(idx)));
    assert_eq!(bench.revocations("dimension=token").await, found);
    for number in 0..5 {
        bench.host.advance(10_000);
        let order = json!({ "dimension": "session", "value": format!("s_{number}"), "reason": "old" });
        bench.post(REVOCATIONS, Some(&bench.operator), &order).await;
    }
    let (mut seen, mut path) = (Vec::new(), format!("{REVOCATIONS}?dimension=session&limit=2"));
    loop {
        let answer = bench.get(&path, Some(&bench.operator)).await;
        let page = answer.json();
        seen.extend(page["revocations"].as_array().unwrap().iter().map(|one| one["value"].clone()));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("{REVOCATIONS}?dimension=session&limit=2&after={next}");
        assert_eq!(answer.header(header::LINK), format!("<{path}>; rel=\"next\""));
    }
    assert_eq!(seen, ["s_0", "s_1", "s_2", "s_3", "s_4"]);
    let start = START.0 / 1000;
    let between = format!("since={}&until={}", start + 20, start + 40);
    assert_eq!(bench.revocations(&between).await.len(), 3);
    assert_eq!(bench.revocations("actor=operator%20first&value=s_3").await.len(), 1);
    assert!(bench.revocations("actor=nobody").await.is_empty());
    assert!(bench.revocations("dimension=subject&value=s_3").await.is_empty());
    for query in ["dimension=planet", "after=x", "limit=0", "since=-1", "value=a&value=b"] {
        let answer = bench.get(&format!("{REVOCATIONS}?{query}"), Some(&bench.operator)).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}");
    }
    // What has ended is shown as that, until it is forgotten.
    bench.host.advance(86_400_000 + 400_000);
    assert_eq!(bench.revocations("value=s_0").await[0]["in_force"], false);
    bench.host.advance(86_400_000);
    bench.app.keep_house().await.unwrap();
    assert!(bench.revocations("value=s_0").await.is_empty());
}

#[tokio::test]
async fn a_secret_in_the_place_of_an_id_is_refused_and_shown_to_nobody() {
    let bench = Bench::new().await;
    bench.user("alice").await;
    let login = bench.login("alice").await;
    let api_key = bench.made_api_key().await["key"].as_str().unwrap().to_owned();
    let text = |member: &str| login[member].as_str().unwrap().to_owned();
    let jwt = "eyJhbGciOiJFZERTQSJ9.eyJqdGkiOiJ0In0.c2ln".to_owned();
    for secret in [text("refresh_token"), text("access_token"), bench.operator.clone(), api_key, jwt] {
        for dimension in ["token", "subject"] {
            let order = json!({ "dimension": dimension, "value": secret });
            let answer = bench.post(REVOCATIONS, Some(&bench.operator), &order).await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{secret}");
            assert!(answer.json()["detail"].as_str().unwrap().starts_with("value: "));
            bench.is_declared(&Method::POST, REVOCATIONS, answer.status);
        }
        let refused = bench.command(&["revoke", "token", &secret]).await.unwrap_err();
        assert!(refused.starts_with("value: ") && !refused.contains(&secret), "{refused}");
        let audit = bench.get("/v1/admin/audit?limit=200", Some(&bench.operator)).await;
        assert_eq!(audit.status, StatusCode::OK);
        assert!(!String::from_utf8(audit.body).unwrap().contains(&secret));
    }
    assert!(bench.revocations("").await.is_empty());
}

#[tokio::test]
async fn a_search_looks_through_a_piece_of_the_log_at_a_time_and_finds_what_comes_late() {
    let bench = Bench::new().await;
    bench
        .spoil(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) \
             INSERT INTO feed_log (position, kind, dimension, value, until, actor, created_at) \
             SELECT 1000 + i, 'cutoff', 'session', 's_' || i, 99999999999, 'many', 1 FROM n",
        )
        .await;
    let order = json!({ "dimension": "tenant", "value": "late" });
    let answer = bench.post(REVOCATIONS, Some(&bench.operator), &order).await;
    assert_eq!(answer.json()["position"], 21_001);
    for query in ["actor=operator%20first", "dimension=tenant", "since=2"] {
        let (mut pages, mut found, mut after) = (0, Vec::new(), String::new());
        loop {
            let page =
                bench.get(&format!("{REVOCATIONS}?{query}{after}"), Some(&bench.operator)).await.json();
            pages += 1;
            found.extend(page["revocations"].as_array().unwrap().clone());
            let Some(next) = page["next"].as_str() else { break };
            after = format!("&after={next}");
        }
        let values: Vec<&Value> = found.iter().map(|one| &one["value"]).collect();
        assert_eq!((pages, values), (3, vec![&json!("late")]), "{query}");
    }
    let found = bench.command(&["revocation", "list", "--dimension", "tenant"]).await.unwrap();
    assert_eq!(serde_json::from_str::<Value>(&found).unwrap()["value"], "late");
    let many = bench.command(&["revocation", "list", "--actor", "many", "--limit", "200"]).await.unwrap();
    assert_eq!(many.lines().count(), 200);
    for limit in ["0", "201"] {
        assert!(bench.command(&["revocation", "list", "--limit", limit]).await.is_err(), "{limit}");
    }
}
