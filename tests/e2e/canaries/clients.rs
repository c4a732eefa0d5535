//! What clients prove themselves with, and what they get for it.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64ct::{Base64, Encoding as _};
use serde_json::{Value, json};
use tollgate_issuer::clock::{Host as _, SystemHost};

use super::{TYPED_NOWHERE, Watch};
use crate::foreign::encode;

impl Watch {
    /// What operators and clients do with what clients prove themselves with.
    pub(super) async fn as_a_client(&mut self) {
        let operator = self.issuer.operator_token().to_owned();
        let mut secrets = Vec::new();
        // The second time it is answered from what was kept; the third is another request.
        for name in ["service", "service", "other"] {
            let client = json!({
                "id": "service", "name": name, "auth": "client_secret", "grants": ["client_credentials"], "scopes": ["read"],
            });
            let (status, text) = self
                .send("a client with an idempotency key", async |watch| {
                    let request = watch.request("POST", "/v1/admin/clients", Some(&operator)).json(&client);
                    let answer = request.header("idempotency-key", "canary").send().await.unwrap();
                    (answer.status, answer.text())
                })
                .await;
            assert_eq!(status, if name == "other" { 422 } else { 201 }, "{text}");
            if status == 201 {
                secrets.push(self.keep(&serde_json::from_str::<Value>(&text).unwrap()["client_secret"]));
            }
        }
        assert_eq!(secrets[0], secrets[1]);
        let (status, text) =
            self.post("/v1/admin/clients/service/secrets", Some(&operator), &json!({})).await;
        assert_eq!(status, 201, "{text}");
        secrets.push(self.keep(&serde_json::from_str::<Value>(&text).unwrap()["client_secret"]));
        for secret in [&*secrets[0], &*secrets[2], TYPED_NOWHERE] {
            let basic = format!("Basic {}", Base64::encode_string(format!("service:{secret}").as_bytes()));
            self.secrets.insert(basic["Basic ".len()..].to_owned());
            for scope in ["read", "admin"] {
                let fields = [("grant_type", "client_credentials"), ("scope", scope)];
                let (_, text) = self
                    .send("a client with its secret in the header", async |watch| {
                        let request = watch.request("POST", "/oauth2/token", None).form(&fields);
                        let answer = request.header("authorization", &basic).send().await.unwrap();
                        (answer.status, answer.text())
                    })
                    .await;
                let answer: Value = serde_json::from_str(&text).unwrap();
                let is_right = secret != TYPED_NOWHERE && scope == "read";
                assert_eq!(answer["access_token"].is_string(), is_right, "{text}");
                if is_right {
                    let token = self.keep(&answer["access_token"]);
                    let fields = [("token", &*token), ("client_id", "service"), ("client_secret", secret)];
                    self.form("/oauth2/introspect", None, &fields).await;
                    self.form("/oauth2/revoke", None, &fields).await;
                    self.post("/v1/logout", Some(&token), &json!({})).await;
                }
            }
        }
        self.with_assertions(&operator).await;
    }

    /// A client that signs: what it sends is good once, but for who finds it in a log in time.
    async fn with_assertions(&mut self, operator: &str) {
        let key = Ed25519KeyPair::generate().unwrap();
        let jwk = json!({
            "kty": "OKP", "crv": "Ed25519", "kid": "k", "alg": "EdDSA", "use": "sig",
            "x": encode(key.public_key().as_ref()),
        });
        let client = json!({
            "id": "signing", "name": "signing", "auth": "private_key_jwt", "jwks": { "keys": [jwk] },
            "grants": ["client_credentials"], "scopes": ["read"],
        });
        let (status, text) = self.post("/v1/admin/clients", Some(operator), &client).await;
        assert_eq!(status, 201, "{text}");
        let now = SystemHost::new().seconds().0;
        let claims = json!({
            "iss": "signing", "sub": "signing", "aud": self.issuer.issuer(), "jti": "canary", "iat": now, "exp": now + 60,
        });
        let signed = [json!({ "alg": "EdDSA", "kid": "k", "typ": "JWT" }), claims];
        let signed = signed.map(|part| encode(part.to_string().as_bytes())).join(".");
        let assertion = format!("{signed}.{}", encode(key.sign(signed.as_bytes()).as_ref()));
        let broken = format!("{signed}.{}", encode(key.sign(b"something else").as_ref()));
        // The second time it was used before.
        for (assertion, expected) in [(&broken, 401), (&assertion, 200), (&assertion, 401)] {
            self.secrets.insert(assertion.clone());
            let fields = [
                ("grant_type", "client_credentials"),
                ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
                ("client_assertion", assertion),
            ];
            let (status, text) = self.form("/oauth2/token", None, &fields).await;
            assert_eq!(status, expected, "{text}");
            if status == 200 {
                self.keep(&serde_json::from_str::<Value>(&text).unwrap()["access_token"]);
            }
        }
    }
}
