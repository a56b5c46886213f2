//! The pages: plain HTML, with no script and nothing from elsewhere.

use axum::response::IntoResponse;
use http::{HeaderName, HeaderValue, StatusCode, header};

use super::text::Texts;
use crate::Response;

pub(super) const STYLE_PATH: &str = "/sign-in/style.css";

const STYLE: &str = "\
:root{color-scheme:light dark;--back:#f6f5f2;--card:#fff;--ink:#23211e;--soft:#605b54;--line:#cfc9c0;--fire:#b3420f;--on-fire:#fff;--wrong:#a3170d}
@media(prefers-color-scheme:dark){:root{--back:#191817;--card:#24221f;--ink:#efece6;--soft:#b3aca1;--line:#4a453e;--fire:#f08a4b;--on-fire:#1d1206;--wrong:#ff9a8d}}
*{box-sizing:border-box}
body{margin:0;min-height:100vh;display:grid;place-items:center;padding:1rem;background:var(--back);color:var(--ink);font:1rem/1.6 system-ui,\"Hiragino Sans\",\"Noto Sans JP\",sans-serif}
main{width:100%;max-width:26rem;padding:2rem;background:var(--card);border:1px solid var(--line);border-radius:.75rem}
h1{margin:0 0 .5rem;font-size:1.4rem;line-height:1.3}
p{margin:.5rem 0}
label{display:block;margin-top:1rem;font-weight:600}
input{width:100%;margin-top:.25rem;padding:.6rem .75rem;font:inherit;color:inherit;background:transparent;border:1px solid var(--soft);border-radius:.4rem}
input:focus-visible,button:focus-visible,summary:focus-visible{outline:3px solid var(--fire);outline-offset:2px}
button{width:100%;margin-top:1.5rem;padding:.7rem;font:inherit;font-weight:600;color:var(--on-fire);background:var(--fire);border:0;border-radius:.4rem;cursor:pointer}
details{margin-top:1.25rem}
summary{cursor:pointer}
.soft,summary{color:var(--soft);font-size:.9rem}
.wrong{color:var(--wrong);font-weight:600}
code{display:block;padding:.75rem;overflow-wrap:anywhere;user-select:all;border:1px dashed var(--soft);border-radius:.4rem}
";

/// One page.
pub(super) struct Page {
    status: u16,
    html: String,
    cookie: Option<String>,
    /// Where its form may lead, beside this server.
    target: String,
}

impl Page {
    fn new(texts: &Texts, status: u16, title: &str, content: &str) -> Self {
        let html = format!(
            "<!doctype html>\n<html lang=\"{}\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{}</title>\n<link rel=\"stylesheet\" href=\"{STYLE_PATH}\">\n</head>\n<body>\n<main>\n<h1>{}</h1>\n{content}<p class=\"soft\">{}</p>\n</main>\n</body>\n</html>\n",
            texts.language,
            escape(title),
            escape(title),
            escape(texts.notice),
        );
        Self { status, html, cookie: None, target: String::new() }
    }

    /// A message.
    pub(super) fn plain(texts: &Texts, status: u16, message: &str) -> Self {
        Self::new(texts, status, "tanebi", &format!("<p>{}</p>\n", escape(message)))
    }

    /// Asks who it is.
    pub(super) fn sign_in(texts: &Texts, form: &str, email: &str, error: Option<&str>) -> Self {
        let content = format!(
            "<p>{}</p>\n{}<form method=\"post\">\n<input type=\"hidden\" name=\"form\" value=\"{}\">\n\
             <label for=\"email\">{}</label>\n<input id=\"email\" name=\"email\" type=\"email\" autocomplete=\"username\" value=\"{}\">\n\
             <label for=\"password\">{}</label>\n<input id=\"password\" name=\"password\" type=\"password\" autocomplete=\"current-password\">\n\
             <details>\n<summary>{}</summary>\n<label for=\"secret\">{}</label>\n<input id=\"secret\" name=\"secret\" type=\"password\" autocomplete=\"one-time-code\" aria-describedby=\"secret-help\">\n<p class=\"soft\" id=\"secret-help\">{}</p>\n</details>\n\
             <button>{}</button>\n</form>\n",
            escape(texts.lead),
            alert(error),
            escape(form),
            escape(texts.email),
            escape(email),
            escape(texts.password),
            escape(texts.other_way),
            escape(texts.secret),
            escape(texts.secret_help),
            escape(texts.sign_in),
        );
        Self::new(texts, 200, texts.title, &content)
    }

    /// Asks for a new password.
    pub(super) fn password(texts: &Texts, form: &str, error: Option<&str>) -> Self {
        let content = format!(
            "{}<form method=\"post\" action=\"/sign-in\">\n<input type=\"hidden\" name=\"form\" value=\"{}\">\n\
             <label for=\"password\">{}</label>\n<input id=\"password\" name=\"password\" type=\"password\" autocomplete=\"new-password\" minlength=\"8\" required aria-describedby=\"rule\">\n<p class=\"soft\" id=\"rule\">{}</p>\n\
             <label for=\"again\">{}</label>\n<input id=\"again\" name=\"again\" type=\"password\" autocomplete=\"new-password\" minlength=\"8\" required>\n\
             <button>{}</button>\n</form>\n",
            alert(error),
            escape(form),
            escape(texts.new_password),
            escape(texts.password_rule),
            escape(texts.again),
            escape(texts.set),
        );
        Self::new(texts, 200, texts.new_title, &content)
    }

    /// Shows an authorization code.
    pub(super) fn code(texts: &Texts, code: &str) -> Self {
        let content = format!("<p>{}</p>\n<p><code>{}</code></p>\n<p>{}</p>\n", escape(texts.code_lead), escape(code), escape(texts.code_warning));
        Self::new(texts, 200, texts.code_title, &content)
    }

    pub(super) fn with_cookie(mut self, cookie: String) -> Self {
        self.cookie = Some(cookie);
        self
    }

    /// A browser follows a redirect after posting only to where the policy lets the form go.
    pub(super) fn posting_to(mut self, origin: &str) -> Self {
        origin.clone_into(&mut self.target);
        self
    }

    pub(super) fn into_response(self) -> Response {
        let policy = format!("default-src 'none'; style-src 'self'; form-action 'self' {}; frame-ancestors 'none'; base-uri 'none'", self.target);
        let mut response = (StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), self.html).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'")));
        if let Some(cookie) = self.cookie.and_then(|cookie| HeaderValue::from_str(&cookie).ok()) {
            headers.insert(header::SET_COOKIE, cookie);
        }
        for (name, value) in [
            (header::CACHE_CONTROL, "no-store"),
            // Not no-referrer: then a browser would post with the Origin null.
            (header::REFERRER_POLICY, "same-origin"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::X_FRAME_OPTIONS, "DENY"),
            (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
            (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
            (header::VARY, "Accept-Language"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// The style sheet.
pub(super) fn style() -> Response {
    let headers =
        [(header::CONTENT_TYPE, "text/css; charset=utf-8"), (header::CACHE_CONTROL, "public, max-age=3600"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (headers, STYLE).into_response()
}

fn alert(error: Option<&str>) -> String {
    error.map_or_else(String::new, |error| format!("<p class=\"wrong\" role=\"alert\">{}</p>\n", escape(error)))
}

/// Text for HTML, in content and in quoted attributes.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_is_text() {
        let evil = "\"><script>alert('x')</script>&";
        let texts = Texts::english();
        for page in
            [Page::plain(texts, 400, evil), Page::sign_in(texts, evil, evil, Some(evil)), Page::password(texts, evil, Some(evil)), Page::code(texts, evil)]
        {
            assert!(!page.html.contains("<script") && !page.html.contains("x')"), "{}", page.html);
        }
    }

    #[test]
    fn a_page_is_in_no_frame_and_in_no_cache() {
        let response = Page::sign_in(Texts::english(), "f", "", None).with_cookie("a=b".to_owned()).posting_to("http://localhost:8085").into_response();
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(
            header("content-security-policy"),
            "default-src 'none'; style-src 'self'; form-action 'self' http://localhost:8085; frame-ancestors 'none'; base-uri 'none'"
        );
        assert_eq!((header("cache-control").as_str(), header("set-cookie").as_str(), header("x-frame-options").as_str()), ("no-store", "a=b", "DENY"));
    }

    #[test]
    fn pages_have_a_language_and_labels() {
        for (texts, language) in
            [(Texts::english(), "en"), (Texts::of(&[(header::ACCEPT_LANGUAGE, HeaderValue::from_static("ja"))].into_iter().collect()), "ja")]
        {
            let page = Page::sign_in(texts, "f", "a@b", Some("e")).html;
            assert!(page.contains(&format!("<html lang=\"{language}\">")));
            for id in ["email", "password", "secret"] {
                assert!(page.contains(&format!("<label for=\"{id}\">")) && page.contains(&format!("id=\"{id}\"")), "{id}");
            }
            assert!(page.contains("role=\"alert\""));
        }
    }
}
