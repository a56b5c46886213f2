//! The words of the pages, in English and Japanese.

use http::{HeaderMap, header};

/// The words in one language.
pub(super) struct Texts {
    pub language: &'static str,
    pub title: &'static str,
    pub lead: &'static str,
    pub email: &'static str,
    pub password: &'static str,
    pub sign_in: &'static str,
    pub other_way: &'static str,
    pub secret: &'static str,
    pub secret_help: &'static str,
    pub new_title: &'static str,
    pub new_password: &'static str,
    pub again: &'static str,
    pub password_rule: &'static str,
    pub set: &'static str,
    pub differs: &'static str,
    /// `{}` is the e-mail.
    pub password_set: &'static str,
    pub wrong: &'static str,
    pub too_many: &'static str,
    pub stale: &'static str,
    pub link_gone: &'static str,
    pub no_link: &'static str,
    pub bad_request: &'static str,
    pub code_title: &'static str,
    pub code_lead: &'static str,
    pub code_warning: &'static str,
    pub notice: &'static str,
}

static ENGLISH: Texts = Texts {
    language: "en",
    title: "Sign in to tanebi",
    lead: "A command line tool on this machine asks you to sign in.",
    email: "E-mail address",
    password: "Password",
    sign_in: "Sign in",
    other_way: "Sign in without a password",
    secret: "Secret of a one-time link",
    secret_help: "It is the end of the link that tanebi serve prints, behind link=. It is good once, for 15 minutes.",
    new_title: "Set your password",
    new_password: "New password",
    again: "New password, once more",
    password_rule: "A password has 8 to 1024 bytes.",
    set: "Set password",
    differs: "The two passwords differ.",
    password_set: "The password of {} is set. You can close this page.",
    wrong: "E-mail address, password or secret is wrong. Please try again.",
    too_many: "Too many attempts. Please try again in a minute.",
    stale: "This page is too old or was opened elsewhere. Please begin again from the command line.",
    link_gone: "This link was used or is older than 15 minutes. Start tanebi serve again for a new one.",
    no_link: "Open the link that tanebi serve prints when it starts.",
    bad_request: "This request cannot be served.",
    code_title: "Your code",
    code_lead: "Copy this code into the command line tool that asked you to sign in:",
    code_warning: "Give it to nobody else.",
    notice: "This is your own tanebi server, not Google.",
};

static JAPANESE: Texts = Texts {
    language: "ja",
    title: "tanebi にログイン",
    lead: "このマシンのコマンドライン ツールがログインを求めています。",
    email: "メールアドレス",
    password: "パスワード",
    sign_in: "ログイン",
    other_way: "パスワードを使わずにログイン",
    secret: "ワンタイム リンクのシークレット",
    secret_help: "tanebi serve が表示するリンクの link= より後ろの部分です。15 分以内に 1 回だけ使えます。",
    new_title: "パスワードの設定",
    new_password: "新しいパスワード",
    again: "新しいパスワード(確認)",
    password_rule: "パスワードは 8 ~ 1024 バイトで入力してください。",
    set: "パスワードを設定",
    differs: "2 つのパスワードが一致しません。",
    password_set: "{} のパスワードを設定しました。このページは閉じてかまいません。",
    wrong: "メールアドレス、パスワード、またはシークレットが正しくありません。もう一度お試しください。",
    too_many: "試行回数が多すぎます。1 分後にもう一度お試しください。",
    stale: "このページは古いか、別の場所で開かれたものです。コマンドラインからやり直してください。",
    link_gone: "このリンクは使用済みか、15 分を過ぎています。tanebi serve を起動し直すと新しいリンクが表示されます。",
    no_link: "tanebi serve が起動時に表示するリンクを開いてください。",
    bad_request: "このリクエストは処理できません。",
    code_title: "コード",
    code_lead: "ログインを求めたコマンドライン ツールに、このコードを貼り付けてください。",
    code_warning: "他の人には渡さないでください。",
    notice: "これは Google ではなく、あなたの tanebi サーバーです。",
};

impl Texts {
    pub(super) fn english() -> &'static Self {
        &ENGLISH
    }

    /// The language that the browser prefers; English for all that is not Japanese.
    pub(super) fn of(headers: &HeaderMap) -> &'static Self {
        let header = headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let mut best = (&ENGLISH, 0.0_f32);
        for range in header.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let tag = parts.next().unwrap_or_default();
            let quality = parts.find_map(|part| part.strip_prefix("q=")).map_or(1.0, |text| text.parse().unwrap_or(0.0));
            let texts = match tag.split('-').next().unwrap_or_default() {
                language if language.eq_ignore_ascii_case("ja") => &JAPANESE,
                language if language.eq_ignore_ascii_case("en") => &ENGLISH,
                _ => continue,
            };
            if quality > best.1 {
                best = (texts, quality);
            }
        }
        best.0
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_preferred_language_is_spoken() {
        let check = |header: Option<&'static str>, language: &str| {
            let mut headers = HeaderMap::new();
            if let Some(header) = header {
                headers.insert(http::header::ACCEPT_LANGUAGE, HeaderValue::from_static(header));
            }
            assert_eq!(Texts::of(&headers).language, language, "{header:?}");
        };
        check(None, "en");
        check(Some("ja"), "ja");
        check(Some("ja-JP,ja;q=0.9,en;q=0.8"), "ja");
        check(Some("en-US,en;q=0.9,ja;q=0.8"), "en");
        check(Some("fr, ja;q=0.3"), "ja");
        check(Some("fr, de"), "en");
        check(Some("ja;q=0"), "en");
        check(Some("ja;q=NaN, en;q=0.1"), "en");
        check(Some(";;,,=;q="), "en");
    }
}
