//! Secrets that operators give: passwords, hashes of another system, and what the environment holds.

use serde_json::json;

use super::{CHANGED, DATABASE_WORD, ENCRYPTION_KEY, IMPORTED, REDIS_WORD, Watch};

impl Watch {
    /// A password that an operator sets, right and wrong.
    pub(super) async fn sets_a_password(&mut self) {
        let operator = self.issuer.operator_token().to_owned();
        let found = self.issuer.operator("GET", "/v1/admin/users?username=carol").send_ok().await.unwrap();
        let id = found.json_at("/users/0/id").unwrap();
        let path = format!("/v1/admin/users/{}/password", id.as_str().unwrap());
        for (body, expected) in [
            (json!({ "password": CHANGED }), 200),
            (json!({ "password": CHANGED, "repeated": CHANGED }), 400),
            (json!({ "password": CHANGED.repeat(100) }), 400),
            (json!({ "password": { "new": CHANGED } }), 400),
        ] {
            let (status, text) = self
                .send("a new password", async |watch| {
                    let request = watch.request("PUT", &path, Some(&operator)).header("if-match", "*");
                    let answer = request.json(&body).send().await.unwrap();
                    (answer.status, answer.text())
                })
                .await;
            assert_eq!(status, expected, "{text}");
        }
    }

    /// Hashes of another system, in lines that are good and bad; and databases that cannot be had.
    pub(super) async fn imports(&mut self) {
        let line = |hash: &str, role: &str| {
            json!({ "username": "imported", "password_hash": hash, "roles": [role] }).to_string()
        };
        let file = self.issuer.data().join("users.jsonl");
        for (lines, added) in [
            (line(IMPORTED, "no such role"), false),
            (line(&format!("{IMPORTED}$"), "member"), false),
            (format!("{{\"username\":\"imported\",\"password_hash\":\"{IMPORTED}"), false),
            (line(IMPORTED, "member"), true),
        ] {
            std::fs::write(&file, lines + "\n").unwrap();
            let said = self.run(&["user", "import", file.to_str().unwrap()], "").await;
            assert_eq!(said.contains("1 added"), added, "{said}");
            self.said.push(("the output of an import".to_owned(), said));
        }
        // What is at rest are the keys; this was only sent.
        std::fs::remove_file(file).unwrap();
        for url in
            ["postgres://tollgate:WORD@127.0.0.1:1/none", "postgres://tollgate:WORD@127.0.0.1:none/x", "WORD"]
        {
            let url = url.replace("WORD", DATABASE_WORD);
            self.run_with(&[("TOLLGATE_DATABASE__URL", &url)], &["user", "list"], "").await;
            let (_, said) = self.said.last().unwrap();
            assert!(!said.is_empty(), "a database that cannot be had is spoken of");
        }
        for url in ["redis://:WORD@127.0.0.1:none", "WORD"] {
            let url = url.replace("WORD", REDIS_WORD);
            self.run_with(&[("TOLLGATE_REDIS__URL", &url)], &["user", "list"], "").await;
        }
        let key = &ENCRYPTION_KEY[1..];
        self.run_with(&[("TOLLGATE_KEYS__ENCRYPTION_KEY", key)], &["key", "list"], "").await;
        self.secrets.insert(key.to_owned());
    }
}
