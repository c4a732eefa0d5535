//! An issuer that shares no code with ours: another library makes its keys and signs its tokens.
//!
//! Beside ordinary tokens it signs any bytes it is given, so that a token can be odd in one respect and genuine in all
//! others: only then does its refusal show that this respect is looked at.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519,
    EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256,
    RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding,
    RsaKeyPair, UnparsedPublicKey, VerificationAlgorithm,
};
use aws_lc_rs::{digest, hmac};
use base64ct::{Base64, Base64UrlUnpadded, Encoding as _};
use jsonwebtoken::EncodingKey;
use serde_json::{Map, Value, json};

/// Its `iss`.
pub(crate) const ISSUER: &str = "https://foreign.example";
/// The `aud` of its tokens.
pub(crate) const AUDIENCE: &str = "api";
/// The symmetric key that [`ForeignIssuer::jwks_with_unusable_keys`] publishes.
pub(crate) const PUBLISHED_SECRET: &[u8] = b"a symmetric key that anyone can read in the key set";

/// Where a PKCS#8 document of an RSA-2048 key holds the tag of the inner `RSAPrivateKey`'s wrapper.
const PKCS8_WRAPPER: usize = 22;
/// Where the DER of an RSA-2048 `RSAPublicKey` holds the modulus.
const RSA_MODULUS: std::ops::Range<usize> = 9..265;
/// `DigestInfo` of SHA-256 up to the digest (RFC 8017 section 9.2).
const SHA256_INFO: [u8; 19] = [
    0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00,
    0x04, 0x20,
];

static SHARED: LazyLock<ForeignIssuer> =
    LazyLock::new(|| ForeignIssuer { genuine: Keys::generate(), attacker: Keys::generate() });
static TOKENS: AtomicU64 = AtomicU64::new(0);

/// What the issuer signs with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    EdDsa,
    Es256,
    Rs256,
}

/// How an RSA key may sign, whatever the header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RsaScheme {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
}

/// The hash of an HMAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HmacHash {
    Sha256,
    Sha384,
    Sha512,
}

/// The issuer, with the keys of somebody who would like to be it.
#[derive(Debug)]
pub(crate) struct ForeignIssuer {
    /// The keys whose public parts are published.
    pub(crate) genuine: Keys,
    /// Keys that nobody published.
    pub(crate) attacker: Keys,
}

/// One key pair of each kind.
pub(crate) struct Keys {
    ed: Ed25519KeyPair,
    es: EcdsaKeyPair,
    /// The same key, for signatures in DER.
    es_der: EcdsaKeyPair,
    rs: RsaKeyPair,
    encoding: [EncodingKey; 3],
}

impl Algorithm {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::EdDsa, Self::Es256, Self::Rs256];

    /// The `alg` of a header.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
        }
    }

    /// The `kid` of the key that signs with it.
    pub(crate) fn key_id(self) -> &'static str {
        match self {
            Self::EdDsa => "ed",
            Self::Es256 => "es",
            Self::Rs256 => "rs",
        }
    }
}

impl ForeignIssuer {
    /// The issuer of this process; its keys are made when it is first asked for.
    pub(crate) fn shared() -> &'static Self {
        &SHARED
    }

    /// The public keys.
    pub(crate) fn jwks(&self) -> Value {
        let keys: Vec<Value> =
            Algorithm::ALL.iter().map(|algorithm| self.genuine.jwk(*algorithm, algorithm.key_id())).collect();
        json!({ "keys": keys })
    }

    /// The public keys, and behind them keys that a verifier must pass over, although a signature by each exists: the
    /// attacker has the private parts, or needs none.
    pub(crate) fn jwks_with_unusable_keys(&self) -> Value {
        let mut set = self.jwks();
        let altered = |algorithm: Algorithm, kid: &str, member: &str, value: Value| {
            let mut jwk = self.attacker.jwk(algorithm, kid);
            if let Some(jwk) = jwk.as_object_mut() {
                jwk.insert(member.to_owned(), value);
            }
            jwk
        };
        let mut identity = [0; 32];
        identity[0] = 1;
        let unusable = [
            json!({ "kty": "oct", "kid": "oct", "use": "sig", "alg": "HS256", "k": encode(PUBLISHED_SECRET) }),
            altered(Algorithm::EdDsa, "ed-enc", "use", json!("enc")),
            altered(Algorithm::EdDsa, "ed-ops", "key_ops", json!(["sign"])),
            altered(Algorithm::EdDsa, "ed-weak", "x", json!(encode(&identity))),
            altered(Algorithm::Es256, "es-private", "d", json!(encode(&[7; 32]))),
            altered(Algorithm::Rs256, "rs-pss", "alg", json!("PS256")),
            altered(Algorithm::Rs256, "rs-mislabelled", "alg", json!("ES256")),
            altered(Algorithm::Rs256, "rs-exponent-one", "e", json!("AQ")),
        ];
        if let Some(keys) = set.get_mut("keys").and_then(Value::as_array_mut) {
            keys.extend(unusable);
        }
        set
    }

    /// The claims of a good token. Its `jti` is new each time.
    pub(crate) fn claims(&self, now: u64) -> Map<String, Value> {
        let number = TOKENS.fetch_add(1, Ordering::Relaxed);
        let claims = json!({
            "iss": ISSUER,
            "aud": [AUDIENCE],
            "sub": "u_1",
            "client_id": "c1",
            "jti": format!("foreign-{number}"),
            "iat": now,
            "exp": now + 600,
            "scope": "read write",
        });
        claims.as_object().cloned().unwrap_or_default()
    }

    /// The header of a good token.
    pub(crate) fn header(&self, algorithm: Algorithm) -> Map<String, Value> {
        let header = json!({ "typ": "at+jwt", "alg": algorithm.name(), "kid": algorithm.key_id() });
        header.as_object().cloned().unwrap_or_default()
    }

    /// A token as the other library makes it.
    pub(crate) fn token(&self, algorithm: Algorithm, claims: &Map<String, Value>) -> String {
        let (name, key) = self.genuine.encoding_key(algorithm);
        let header = jsonwebtoken::Header {
            typ: Some("at+jwt".to_owned()),
            kid: Some(algorithm.key_id().to_owned()),
            ..jsonwebtoken::Header::new(name)
        };
        jsonwebtoken::encode(&header, claims, key).expect("a genuine key signs")
    }

    /// A token as the other library makes it when it is told nothing but the key: `typ: JWT`.
    pub(crate) fn stock_token(&self, algorithm: Algorithm, claims: &Map<String, Value>) -> String {
        let (name, key) = self.genuine.encoding_key(algorithm);
        let mut header = jsonwebtoken::Header::new(name);
        header.kid = Some(algorithm.key_id().to_owned());
        jsonwebtoken::encode(&header, claims, key).expect("a genuine key signs")
    }

    /// A genuine signature over exactly this header and this payload, whatever they are.
    pub(crate) fn token_with_header(
        &self,
        header: impl AsRef<[u8]>,
        payload: impl AsRef<[u8]>,
        algorithm: Algorithm,
    ) -> String {
        self.token_of_segments(&encode(header.as_ref()), &encode(payload.as_ref()), algorithm)
    }

    /// A genuine signature over segments that are already encoded, well or badly.
    pub(crate) fn token_of_segments(&self, header: &str, payload: &str, algorithm: Algorithm) -> String {
        let signed = format!("{header}.{payload}");
        let signature = self.sign(algorithm, signed.as_bytes());
        format!("{signed}.{}", encode(&signature))
    }

    /// The signature of the genuine key, as JWS carries it.
    pub(crate) fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Vec<u8> {
        self.genuine.sign(algorithm, message)
    }
}

impl Keys {
    fn generate() -> Self {
        let ed = Ed25519KeyPair::generate().expect("an Ed25519 key");
        let es = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a P-256 key");
        let rs = RsaKeyPair::generate(KeySize::Rsa2048).expect("an RSA key");
        let ed_document = ed.to_pkcs8().expect("the Ed25519 key as PKCS#8");
        let es_document = es.to_pkcs8v1().expect("the P-256 key as PKCS#8");
        let es_der = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, es_document.as_ref());
        let rs_document = AsDer::<Pkcs8V1Der<'_>>::as_der(&rs).expect("the RSA key as PKCS#8");
        // The wrapper is an OCTET STRING with a length of two bytes.
        let rs_inner =
            rs_document.as_ref().get(PKCS8_WRAPPER..).and_then(|wrapper| wrapper.strip_prefix(&[0x04, 0x82]));
        let rs_inner =
            rs_inner.and_then(|wrapper| wrapper.get(2..)).expect("an RSAPrivateKey inside of PKCS#8");
        let encoding = [
            EncodingKey::from_ed_der(ed_document.as_ref()),
            EncodingKey::from_ec_der(es_document.as_ref()),
            EncodingKey::from_rsa_der(rs_inner),
        ];
        Self { ed, es, es_der: es_der.expect("the P-256 key again"), rs, encoding }
    }

    fn encoding_key(&self, algorithm: Algorithm) -> (jsonwebtoken::Algorithm, &EncodingKey) {
        let [ed, es, rs] = &self.encoding;
        match algorithm {
            Algorithm::EdDsa => (jsonwebtoken::Algorithm::EdDSA, ed),
            Algorithm::Es256 => (jsonwebtoken::Algorithm::ES256, es),
            Algorithm::Rs256 => (jsonwebtoken::Algorithm::RS256, rs),
        }
    }

    /// A signature as JWS carries it: for ECDSA r and s, 32 bytes each.
    pub(crate) fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Vec<u8> {
        match algorithm {
            Algorithm::EdDsa => self.ed.sign(message).as_ref().to_vec(),
            Algorithm::Es256 => {
                self.es.sign(&SystemRandom::new(), message).expect("the P-256 key signs").as_ref().to_vec()
            }
            Algorithm::Rs256 => self.sign_rsa(RsaScheme::Rs256, message),
        }
    }

    /// Whether one of these keys made this signature over this message.
    pub(crate) fn made(&self, signature: &[u8], message: &[u8]) -> bool {
        Algorithm::ALL.into_iter().any(|algorithm| {
            let verification: &'static dyn VerificationAlgorithm = match algorithm {
                Algorithm::EdDsa => &ED25519,
                Algorithm::Es256 => &ECDSA_P256_SHA256_FIXED,
                Algorithm::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
            };
            UnparsedPublicKey::new(verification, self.raw(algorithm)).verify(message, signature).is_ok()
        })
    }

    /// A signature of the RSA key in any scheme.
    pub(crate) fn sign_rsa(&self, scheme: RsaScheme, message: &[u8]) -> Vec<u8> {
        let encoding: &'static dyn RsaEncoding = match scheme {
            RsaScheme::Rs256 => &RSA_PKCS1_SHA256,
            RsaScheme::Rs384 => &RSA_PKCS1_SHA384,
            RsaScheme::Rs512 => &RSA_PKCS1_SHA512,
            RsaScheme::Ps256 => &RSA_PSS_SHA256,
            RsaScheme::Ps384 => &RSA_PSS_SHA384,
            RsaScheme::Ps512 => &RSA_PSS_SHA512,
        };
        let mut signature = vec![0; self.rs.public_modulus_len()];
        self.rs.sign(encoding, &SystemRandom::new(), message, &mut signature).expect("the RSA key signs");
        signature
    }

    /// An ECDSA signature in DER, which JWS does not take.
    pub(crate) fn sign_es256_der(&self, message: &[u8]) -> Vec<u8> {
        self.es_der.sign(&SystemRandom::new(), message).expect("the P-256 key signs").as_ref().to_vec()
    }

    /// The public key as a JWK.
    pub(crate) fn jwk(&self, algorithm: Algorithm, kid: &str) -> Value {
        let name = algorithm.name();
        match algorithm {
            Algorithm::EdDsa => json!({
                "kty": "OKP", "crv": "Ed25519", "kid": kid, "use": "sig", "alg": name, "x": encode(self.raw(algorithm)),
            }),
            Algorithm::Es256 => {
                let point = self.raw(algorithm).strip_prefix(&[4]).expect("an uncompressed point");
                let (x, y) = point.split_at(32);
                json!({
                    "kty": "EC", "crv": "P-256", "kid": kid, "use": "sig", "alg": name, "x": encode(x), "y": encode(y),
                })
            }
            Algorithm::Rs256 => json!({
                "kty": "RSA", "kid": kid, "use": "sig", "alg": name, "n": encode(self.modulus()), "e": "AQAB",
            }),
        }
    }

    /// The public key in its shortest form: the point, or `RSAPublicKey`.
    pub(crate) fn raw(&self, algorithm: Algorithm) -> &[u8] {
        match algorithm {
            Algorithm::EdDsa => self.ed.public_key().as_ref(),
            Algorithm::Es256 => self.es.public_key().as_ref(),
            Algorithm::Rs256 => self.rs.public_key().as_ref(),
        }
    }

    /// The RSA modulus, big-endian.
    pub(crate) fn modulus(&self) -> &[u8] {
        self.raw(Algorithm::Rs256).get(RSA_MODULUS).expect("a modulus of 2048 bits")
    }

    /// The public key as `SubjectPublicKeyInfo`.
    pub(crate) fn spki(&self, algorithm: Algorithm) -> Vec<u8> {
        let document: Result<PublicKeyX509Der<'_>, _> = match algorithm {
            Algorithm::EdDsa => self.ed.public_key().as_der(),
            Algorithm::Es256 => self.es.public_key().as_der(),
            Algorithm::Rs256 => self.rs.public_key().as_der(),
        };
        document.expect("the public key as DER").as_ref().to_vec()
    }

    /// The public key as PEM, as it is handed round.
    pub(crate) fn pem(&self, algorithm: Algorithm) -> String {
        let body = Base64::encode_string(&self.spki(algorithm));
        let lines: Vec<_> = body.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
    }
}

// Private keys stay out of failure messages.
impl std::fmt::Debug for Keys {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Keys").finish_non_exhaustive()
    }
}

/// Base64url without padding.
pub(crate) fn encode(bytes: &[u8]) -> String {
    Base64UrlUnpadded::encode_string(bytes)
}

/// An HMAC under any key, also the empty one.
pub(crate) fn hmac(hash: HmacHash, key: &[u8], message: &[u8]) -> Vec<u8> {
    let algorithm = match hash {
        HmacHash::Sha256 => hmac::HMAC_SHA256,
        HmacHash::Sha384 => hmac::HMAC_SHA384,
        HmacHash::Sha512 => hmac::HMAC_SHA512,
    };
    hmac::sign(&hmac::Key::new(algorithm, key), message).as_ref().to_vec()
}

/// What an RSA-2048 verifier must find after its exponentiation (EMSA-PKCS1-v1_5 with SHA-256): under the exponent 1
/// it is the signature itself.
pub(crate) fn padded_digest(message: &[u8]) -> Vec<u8> {
    let digest = digest::digest(&digest::SHA256, message);
    let filler = vec![0xff; 256 - 3 - SHA256_INFO.len() - digest.as_ref().len()];
    [&[0, 1], filler.as_slice(), &[0], &SHA256_INFO, digest.as_ref()].concat()
}
