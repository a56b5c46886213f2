//! Tokens that are none of ours, or ours and not good: each is refused for its own reason, which the table names.

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::*;
use crate::{
    Iam,
    TokenError::{self, Audience, Malformed, Signature, Subject, Time},
};

pub(crate) const AUDIENCE: &str = "https://sample-function-1-9000000000001.asia-northeast1.run.app";

pub(crate) fn id_check(iam: &Iam, token: &str) -> Result<Identity, TokenError> {
    iam.id_token_check(token, &|audience| audience == AUDIENCE)
}

/// A header of ours with `more` in it.
pub(crate) fn header(kid: &str, typ: &str, more: &str) -> String {
    format!(r#"{{"alg":"RS256","kid":"{kid}","typ":"{typ}"{more}}}"#)
}

/// An ID token's claims of the owner, with one text replaced.
fn claims(from: &str, to: &str) -> String {
    let good = good_claims();
    assert!(good.contains(from), "{from}");
    good.replacen(from, to, 1)
}

pub(crate) fn good_claims() -> String {
    let sub = crate::user::subject_of(OWNER);
    format!(
        r#"{{"iss":"https://accounts.google.com","azp":"{AUDIENCE}","aud":"{AUDIENCE}","sub":"{sub}","email":"{OWNER}","email_verified":true,"iat":{START},"exp":{}}}"#,
        START + 3600
    )
}

fn access_claims(from: &str, to: &str) -> String {
    let sub = crate::user::subject_of(OWNER);
    let good = format!(
        r#"{{"iss":"https://accounts.google.com","sub":"{sub}","email":"{OWNER}","kind":"user","scope":"openid","iat":{START},"exp":{}}}"#,
        START + 3600
    );
    assert!(good.contains(from), "{from}");
    good.replacen(from, to, 1)
}

/// What this file's forger makes with our key and good texts is taken: its forgeries fail for what is wrong in them.
#[tokio::test]
async fn the_forger_can_make_good_tokens() {
    let world = World::new().await;
    let key = world.iam.signer();
    let sign = |bytes: &[u8]| key.private.sign(bytes).to_vec();
    let id = token_of(&header(&key.kid, "JWT", ""), &good_claims(), sign);
    assert_eq!(id_check(&world.iam, &id), Ok(world.owner()));
    let access = token_of(&header(&key.kid, "at+jwt", ""), &access_claims("", ""), sign);
    assert_eq!(world.iam.access_token_check(&format!("ya29.{access}")), Ok(world.owner()));
}

#[tokio::test]
async fn forged_and_odd_id_tokens_are_refused() {
    let world = World::new().await;
    let iam = &world.iam;
    iam.user_create("other@example.com").await.unwrap();
    let account = iam.service_account_create(&project(), "off-account", "", "").await.unwrap();
    let off = iam.identity(&account.email);
    iam.service_account_disable(&account.email, true).await.unwrap();

    let key = iam.signer();
    let kid = key.kid.as_str();
    let ours = |bytes: &[u8]| key.private.sign(bytes).to_vec();
    let foreign = |bytes: &[u8]| FOREIGN_KEY.sign(bytes).to_vec();
    let none = |_: &[u8]| Vec::new();
    let hmac_by = |algorithm, secret: &[u8]| {
        let key = hmac::Key::new(algorithm, secret);
        move |bytes: &[u8]| hmac::sign(&key, bytes).as_ref().to_vec()
    };
    let pem = key.public.to_pem();
    let (n, e) = key.private.jwk_parts();
    let (foreign_n, foreign_e) = FOREIGN_KEY.jwk_parts();
    let good = iam.id_token_issue(&world.owner(), AUDIENCE, true);
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (good_header, good_payload) = signed.split_once('.').unwrap();
    let other = iam.id_token_issue(&iam.identity("other@example.com"), AUDIENCE, true);
    let other_payload = other.split('.').nth(1).unwrap();
    let access = iam.access_token_issue(&world.owner(), "openid", Duration::from_secs(3600)).token;
    let alg = |alg: &str| format!(r#"{{"alg":{alg},"kid":"{kid}","typ":"JWT"}}"#);
    let kid_of = |kid: &str| format!(r#"{{"alg":"RS256","kid":{kid},"typ":"JWT"}}"#);
    let h = header(kid, "JWT", "");
    let with = |more: &str| token_of(&header(kid, "JWT", more), &good_claims(), ours);
    let claiming = |from: &str, to: &str| token_of(&h, &claims(from, to), ours);
    let raw_claims = |claims: &str| token_of(&h, claims, ours);
    let exp = (START + 3600).to_string();
    let iat = format!("\"iat\":{START}");

    // The last character of 256 bytes in base64 has four bits that mean nothing: set one.
    let last = signature.chars().last().unwrap();
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let odd_last = alphabet.chars().nth(alphabet.find(last).unwrap() + 1).unwrap();
    let mut flipped = URL_SAFE_NO_PAD.decode(signature).unwrap();
    flipped[100] ^= 1;
    let mut longer = URL_SAFE_NO_PAD.decode(signature).unwrap();
    longer.push(0);

    let mut table: Vec<(String, String, TokenError)> = Vec::new();
    let mut row = |name: &str, token: String, expect| table.push((name.to_owned(), token, expect));

    // Algorithms.
    for spelling in ["none", "None", "NONE", "nOnE", "none ", ""] {
        row(&format!("alg {spelling:?} unsigned"), token_of(&alg(&format!("{spelling:?}")), &good_claims(), none), Malformed);
    }
    row("alg none, signed", token_of(&alg("\"none\""), &good_claims(), ours), Malformed);
    for name in ["RS384", "RS512", "PS256", "ES256", "EdDSA", "rs256", "RS256 ", "HS256"] {
        row(&format!("alg {name}, signed by RS256"), token_of(&alg(&format!("{name:?}")), &good_claims(), ours), Malformed);
    }
    row("alg null", token_of(&alg("null"), &good_claims(), ours), Malformed);
    row("alg list", token_of(&alg("[\"RS256\"]"), &good_claims(), ours), Malformed);
    row("alg missing", token_of(&format!(r#"{{"kid":"{kid}","typ":"JWT"}}"#), &good_claims(), ours), Malformed);
    row("HS256 by the PEM", token_of(&alg("\"HS256\""), &good_claims(), hmac_by(hmac::HMAC_SHA256, pem.as_bytes())), Malformed);
    row("HS256 by the PEM, trimmed", token_of(&alg("\"HS256\""), &good_claims(), hmac_by(hmac::HMAC_SHA256, pem.trim().as_bytes())), Malformed);
    row("HS256 by the DER", token_of(&alg("\"HS256\""), &good_claims(), hmac_by(hmac::HMAC_SHA256, key.public.der())), Malformed);
    row("HS384 by the modulus", token_of(&alg("\"HS384\""), &good_claims(), hmac_by(hmac::HMAC_SHA384, n.as_bytes())), Malformed);
    row("HS512 by the JWKS", token_of(&alg("\"HS512\""), &good_claims(), hmac_by(hmac::HMAC_SHA512, iam.jwks().as_bytes())), Malformed);
    row("RS256 said, HS256 by the PEM done", token_of(&h, &good_claims(), hmac_by(hmac::HMAC_SHA256, pem.as_bytes())), Malformed);

    // Key ids.
    for odd in ["\"\"", "\"0\"", "\"../../../../dev/null\"", "\"/dev/null\"", "\"' OR '1'='1\"", "\"|id\"", "\"a\\u0000b\"", "null"] {
        row(&format!("kid {odd}"), token_of(&kid_of(odd), &good_claims(), ours), Signature);
    }
    row("kid number", token_of(&kid_of("1"), &good_claims(), ours), Malformed);
    row("kid list", token_of(&kid_of(&format!("[\"{kid}\"]")), &good_claims(), ours), Malformed);
    row("kid missing", token_of(r#"{"alg":"RS256","typ":"JWT"}"#, &good_claims(), ours), Signature);
    row("kid in other case", token_of(&kid_of(&format!("{:?}", kid.to_lowercase())), &good_claims(), ours), Signature);

    // What a token would bring along.
    row("jku", with(r#","jku":"https://evil.example/jwks""#), Malformed);
    row("x5u", with(r#","x5u":"https://evil.example/cert""#), Malformed);
    row("x5c", with(r#","x5c":["MIIB"]"#), Malformed);
    row("crit", with(r#","crit":["exp"]"#), Malformed);
    row("crit empty", with(r#","crit":[]"#), Malformed);
    row("b64 false", with(r#","b64":false,"crit":["b64"]"#), Malformed);
    row("zip", with(r#","zip":"DEF""#), Malformed);
    row("cty", with(r#","cty":"JWT""#), Malformed);
    row("unknown header", with(r#","admin":true"#), Malformed);
    let jwk = format!(r#","jwk":{{"kty":"RSA","n":"{foreign_n}","e":"{foreign_e}"}}"#);
    row("jwk of the forger", token_of(&header(kid, "JWT", &jwk), &good_claims(), foreign), Malformed);
    let jwk = format!(r#","jwk":{{"kty":"RSA","n":"{n}","e":"{e}"}}"#);
    row("jwk of ours", with(&jwk), Malformed);
    row("alg twice", token_of(&format!(r#"{{"alg":"none","alg":"RS256","kid":"{kid}","typ":"JWT"}}"#), &good_claims(), ours), Malformed);
    row("kid twice", token_of(&format!(r#"{{"alg":"RS256","kid":"x","kid":"{kid}","typ":"JWT"}}"#), &good_claims(), ours), Malformed);
    row("typ missing", token_of(&format!(r#"{{"alg":"RS256","kid":"{kid}"}}"#), &good_claims(), ours), Malformed);
    row("typ of access tokens", token_of(&header(kid, "at+jwt", ""), &good_claims(), ours), Malformed);
    row("typ in lower case", token_of(&header(kid, "jwt", ""), &good_claims(), ours), Malformed);
    row("header with a tail", token_of(&format!("{h}x"), &good_claims(), ours), Malformed);
    row("header no object", token_of("[]", &good_claims(), ours), Malformed);

    // Signatures.
    row("signed by another", token_of(&h, &good_claims(), foreign), Signature);
    row("one bit flipped", format!("{signed}.{}", URL_SAFE_NO_PAD.encode(flipped)), Signature);
    row("zeros", token_of(&h, &good_claims(), |_| vec![0; 256]), Signature);
    row("of another token", format!("{signed}.{}", other.rsplit('.').next().unwrap()), Signature);
    row("no signature", format!("{signed}."), Malformed);
    row("one byte short", token_of(&h, &good_claims(), |bytes| ours(bytes)[..255].to_vec()), Malformed);
    row("one byte long", format!("{signed}.{}", URL_SAFE_NO_PAD.encode(longer)), Malformed);
    row("bits that mean nothing", format!("{signed}.{}{odd_last}", &signature[..signature.len() - 1]), Malformed);
    row("padded", format!("{good}=="), Malformed);
    row("payload of another", format!("{good_header}.{other_payload}.{signature}"), Signature);
    row("two parts", signed.to_owned(), Malformed);
    row("four parts", format!("{good}.{signature}"), Malformed);
    row("a dot more", format!("{good}."), Malformed);
    row("a dot before", format!(".{good}"), Malformed);
    row("nothing between", format!("{good_header}..{signature}"), Signature);
    row("a space after", format!("{good} "), Malformed);
    row("a space before", format!(" {good}"), Malformed);
    row("a line end after", format!("{good}\n"), Malformed);
    row("a zero after", format!("{good}\0"), Malformed);
    row("a line end within", format!("{good_header}.\n{good_payload}.{signature}"), Malformed);
    row("header padded", format!("{good_header}=.{good_payload}.{signature}"), Malformed);
    row("twice", format!("{good}{good}"), Malformed);
    row("with its scheme", format!("Bearer {good}"), Malformed);
    row("empty", String::new(), Malformed);
    row("dots", "..".to_owned(), Malformed);
    row("letters", "æøå.æøå.æøå".to_owned(), Malformed);
    row("1 MB", format!("{good_header}.{}.{signature}", "A".repeat(1 << 20)), Malformed);
    let big = claims(AUDIENCE, &"a".repeat(16 << 10));
    row("over 16 KiB, signed", token_of(&h, &big, ours), Malformed);

    // Claims, all signed by our key.
    for issuer in ["accounts.google.com", "http://accounts.google.com", "https://accounts.google.com/", "https://evil.example", ""] {
        row(&format!("iss {issuer:?}"), claiming("https://accounts.google.com", issuer), Malformed);
    }
    row("iss list", claiming("\"https://accounts.google.com\"", "[\"https://accounts.google.com\"]"), Malformed);
    row("iss missing", claiming("\"iss\":\"https://accounts.google.com\",", ""), Malformed);
    row("aud list", claiming(&format!("\"aud\":\"{AUDIENCE}\""), &format!("\"aud\":[\"{AUDIENCE}\"]")), Malformed);
    row("aud list of two", claiming(&format!("\"aud\":\"{AUDIENCE}\""), &format!("\"aud\":[\"x\",\"{AUDIENCE}\"]")), Malformed);
    row("aud missing", claiming(&format!("\"aud\":\"{AUDIENCE}\","), ""), Malformed);
    row("aud null", claiming(&format!("\"aud\":\"{AUDIENCE}\""), "\"aud\":null"), Malformed);
    for audience in ["https://evil.example", "", &format!("{AUDIENCE}.evil.example"), &AUDIENCE.to_uppercase(), "32555940559.apps.googleusercontent.com.evil"] {
        row(&format!("aud {audience:?}"), claiming(&format!("\"aud\":\"{AUDIENCE}\""), &format!("\"aud\":\"{audience}\"")), Audience);
    }
    row("aud twice", claiming("\"aud\":", "\"aud\":\"https://evil.example\",\"aud\":"), Malformed);
    row("aud twice, escaped", claiming("\"aud\":", "\"\\u0061ud\":\"https://evil.example\",\"aud\":"), Malformed);
    row("sub twice", claiming("\"sub\":", "\"sub\":\"1\",\"sub\":"), Malformed);
    row("exp twice", claiming("\"exp\":", "\"exp\":1,\"exp\":"), Malformed);
    row("exp past", claiming(&exp, &(START - 60).to_string()), Time);
    row("exp before iat", claiming(&exp, &START.to_string()), Time);
    row("exp negative", claiming(&exp, "-1"), Time);
    row("exp lowest", claiming(&exp, &i64::MIN.to_string()), Time);
    row("exp text", claiming(&exp, &format!("\"{exp}\"")), Malformed);
    row("exp fraction", claiming(&exp, &format!("{exp}.5")), Malformed);
    row("exp beyond numbers", claiming(&exp, "99999999999999999999"), Malformed);
    row("exp exponent", claiming(&exp, "1e300"), Malformed);
    row("exp null", claiming(&exp, "null"), Malformed);
    row("exp missing", claiming(&format!(",\"exp\":{exp}"), ""), Malformed);
    row("iat missing", claiming(&format!("{iat},"), ""), Malformed);
    row("iat in the future", claiming(&iat, &format!("\"iat\":{}", START + 61)), Time);
    row("nbf", claiming(&iat, &format!("\"nbf\":{START},{iat}")), Malformed);
    row("unknown claim", claiming(&iat, &format!("\"admin\":true,{iat}")), Malformed);
    row("sub of another", claiming(&crate::user::subject_of(OWNER), &crate::user::subject_of("other@example.com")), Subject);
    row("sub missing", claiming(&format!("\"sub\":\"{}\",", crate::user::subject_of(OWNER)), ""), Malformed);
    row("email of another", claiming(OWNER, "other@example.com"), Subject);
    row("email of nobody", claiming(OWNER, "nobody@example.com"), Subject);
    row("email in other case", claiming(OWNER, "Owner@example.com"), Subject);
    row("email missing, sub of nobody", raw_claims(&claims(&format!("\"email\":\"{OWNER}\","), "").replace(&crate::user::subject_of(OWNER), "123")), Subject);
    row("disabled account", iam.id_token_issue(&off, AUDIENCE, true), Subject);
    row("disabled account, no email", iam.id_token_issue(&off, AUDIENCE, false), Subject);
    row("user without a record", iam.id_token_issue(&iam.identity("nobody@example.com"), AUDIENCE, true), Subject);
    row("account without a record", iam.id_token_issue(&iam.identity("x-nobody@local-project.iam.gserviceaccount.com"), AUDIENCE, true), Subject);
    row("claims with a tail", raw_claims(&format!("{}x", good_claims())), Malformed);
    row("claims twice", raw_claims(&good_claims().repeat(2)), Malformed);
    row("claims in a list", raw_claims(&format!("[{}]", good_claims())), Malformed);
    row("claims in a text", raw_claims(&format!("{:?}", good_claims())), Malformed);
    row("no claims", raw_claims("{}"), Malformed);
    row("null", raw_claims("null"), Malformed);
    row("deep", raw_claims(&"[".repeat(5000)), Malformed);

    // The other kind.
    row("an access token", access.clone(), Malformed);
    row("an access token, bare", access.strip_prefix("ya29.").unwrap().to_owned(), Malformed);
    row("access claims as ID token", raw_claims(&access_claims("", "")), Malformed);
    row("ID token with the prefix", format!("ya29.{good}"), Malformed);

    // Weak secrets.
    for at in 0..95 {
        let secret = ["secret", "password", "your-256-bit-secret", "key", "changeme", "tanebi", "jwt", "x", "0", "google"][at % 10].repeat(1 + at / 10);
        row(&format!("HS256 by {secret:?} {at}"), token_of(&alg("\"HS256\""), &good_claims(), hmac_by(hmac::HMAC_SHA256, secret.as_bytes())), Malformed);
    }

    assert!(table.len() >= 60 + 95, "{}", table.len());
    for (name, token, expect) in &table {
        assert_eq!(id_check(iam, token), Err(*expect), "{name}");
        assert!(iam.access_token_check(token).is_err() || token == &access, "{name} as access token");
        assert!(iam.access_token_check(&format!("ya29.{token}")).is_err() || format!("ya29.{token}") == access, "{name} with the prefix");
    }
    for (at, (name, token, _)) in table.iter().enumerate() {
        assert!(table[..at].iter().all(|(_, earlier, _)| earlier != token || token.is_empty()), "{name} is there twice");
    }
    assert_eq!(id_check(iam, &good), Ok(world.owner()), "and the good one still is");
}

#[tokio::test]
async fn odd_access_tokens_are_refused() {
    let world = World::new().await;
    let iam = &world.iam;
    let key = iam.signer();
    let h = header(&key.kid, "at+jwt", "");
    let check = |name: &str, header: &str, claims: &str, expect: TokenError| {
        let token = format!("ya29.{}", token_of(header, claims, |bytes| key.private.sign(bytes).to_vec()));
        assert_eq!(iam.access_token_check(&token), Err(expect), "{name}");
    };
    check("other kind", &h, &access_claims("\"user\"", "\"service_account\""), Subject);
    check("unknown kind", &h, &access_claims("\"user\"", "\"root\""), Malformed);
    check("no kind", &h, &access_claims("\"kind\":\"user\",", ""), Malformed);
    check("other issuer", &h, &access_claims("https://accounts.google.com", "https://evil.example"), Malformed);
    check("other sub", &h, &access_claims(&crate::user::subject_of(OWNER), "123456789012345678901"), Subject);
    check("other email", &h, &access_claims(OWNER, "nobody@example.com"), Subject);
    check("an audience", &h, &access_claims("\"kind\"", "\"aud\":\"x\",\"kind\""), Malformed);
    check("scope list", &h, &access_claims("\"openid\"", "[\"openid\"]"), Malformed);
    check("expired", &h, &access_claims(&(START + 3600).to_string(), &(START - 60).to_string()), Time);
    check("typ of ID tokens", &header(&key.kid, "JWT", ""), &access_claims("", ""), Malformed);
    check("ID claims", &h, &good_claims(), Malformed);
    for token in ["", "ya29.", "ya29", "ya29.a0AfH6SMBx", "ya29...", "Ya29.x.y.z"] {
        assert_eq!(iam.access_token_check(token), Err(Malformed), "{token}");
    }
    let access = iam.access_token_issue(&world.owner(), "openid", Duration::from_secs(60)).token;
    assert!(iam.access_token_check(access.strip_prefix("ya29.").unwrap()).is_err());
    assert!(iam.access_token_check(&format!("ya29.{access}")).is_err());
}
