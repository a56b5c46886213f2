//! What a caller sees instead of a function's answer, byte for byte as Google's front end sends it.
//!
//! The frame was found in public transcripts of run.app hosts; the paths in it are escaped, as a path is a stranger's text.
//! Which page when is decided by whoever refuses.

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use http_body_util::{BodyExt, Full};

use crate::{Body, Response, refusal::Refusal};

/// Renders `refusal` for a request of `method` to `path` (without the query). Why it was is an extension of the response.
pub fn refusal(refusal: Refusal, method: &http::Method, path: &str) -> Response {
    let status = refusal.status();
    let (kind, text) = match refusal {
        Refusal::MalformedRequest => page(status, "Bad Request", "Bad Request", "Your client has issued a malformed or illegal request."),
        Refusal::Misdirected => page(status, "Misdirected Request", "Misdirected Request", "The requested host is not served by this connection."),
        Refusal::UnknownHost | Refusal::Ingress | Refusal::NoRevision => {
            page(status, "Page not found", "Page not found", "The requested URL was not found on this server.")
        }
        Refusal::MethodNotAllowed => page(
            status,
            "Method Not Allowed",
            "Method Not Allowed",
            &format!("The request method <code>{}</code> is inappropriate for the URL <code>{}</code>.", escape(method.as_str()), escape(path)),
        ),
        Refusal::NoToken | Refusal::NotPermitted => {
            page(status, "Forbidden", "Forbidden", &format!("Your client does not have permission to get URL <code>{}</code> from this server.", escape(path)))
        }
        Refusal::BadToken => {
            page(status, "Unauthorized", "Unauthorized", &format!("Your client does not have permission to the requested URL <code>{}</code>.", escape(path)))
        }
        Refusal::BodyTooLarge => page(status, "Request Entity Too Large", "Request Entity Too Large", "Your client issued a request that was too large."),
        Refusal::BodyBroken => page(status, "Request Timeout", "Request Timeout", "Your client has taken too long to issue its request."),
        // RFC 5842, 7.2. Google has no such page.
        Refusal::Loop => page(status, "Loop Detected", "Loop Detected", "The request was not passed on: too many functions called one another until it came."),
        Refusal::StartFailed => page(
            status,
            "Server Error",
            "Server Error",
            "The server encountered an error and could not complete your request.<p>Please try again in 30 seconds.",
        ),
        Refusal::Placeholder => (HTML, PLACEHOLDER.to_owned()),
        Refusal::QueueFull { .. } => (HTML, "Rate exceeded.".to_owned()),
        Refusal::Closing | Refusal::MalformedResponse => (PLAIN, "Service Unavailable".to_owned()),
        Refusal::Timeout => (PLAIN, "upstream request timeout".to_owned()),
    };
    let mut response = Response::new(body(text));
    *response.status_mut() = status;
    response.extensions_mut().insert(refusal);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::SERVER, HeaderValue::from_static("Google Frontend"));
    match refusal {
        Refusal::BadToken => {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer error=\"invalid_token\" error_description=\"The access token could not be verified\""),
            );
        }
        Refusal::QueueFull { retry_after_s } => {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(retry_after_s));
        }
        Refusal::MethodNotAllowed => {
            headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
        }
        _ => {}
    }
    response
}

const HTML: &str = "text/html; charset=UTF-8";
const PLAIN: &str = "text/plain";
/// Not Google's words: in both languages of the console, for whoever opens the URL first.
const PLACEHOLDER: &str = "<!doctype html>
<html lang=\"en\"><head>
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">
<title>No source yet</title>
</head>
<body>
<h1>This function has no source yet</h1>
<p>It was created, and this is its URL. Open its <b>Source</b> tab in the console and press <b>Save and redeploy</b>; then it answers here.</p>
<div lang=\"ja\">
<h1>この関数にはまだソースがありません</h1>
<p>関数は作成済みで、これがその URL です。コンソールの <b>ソース</b> タブで <b>保存して再デプロイ</b> をクリックすると、ここで応答するようになります。</p>
</div>
</body></html>
";

fn page(status: StatusCode, title: &str, heading: &str, text: &str) -> (&'static str, String) {
    let code = status.as_u16();
    let page = format!(
        "<html><head>\n\
         <meta http-equiv=\"content-type\" content=\"text/html;charset=utf-8\">\n\
         <title>{code} {title}</title>\n\
         </head>\n\
         <body text=#000000 bgcolor=#ffffff>\n\
         <h1>Error: {heading}</h1>\n\
         <h2>{text}</h2>\n\
         <h2></h2>\n\
         </body></html>\n"
    );
    (HTML, page)
}

fn body(text: String) -> Body {
    Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed()
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use http::Method;

    use super::*;

    fn render(refusal: Refusal, path: &str) -> (u16, String, http::HeaderMap) {
        let response = super::refusal(refusal, &Method::GET, path);
        let (parts, body) = response.into_parts();
        let bytes = body.collect().now_or_never().unwrap().unwrap().to_bytes();
        (parts.status.as_u16(), String::from_utf8(bytes.to_vec()).unwrap(), parts.headers)
    }

    #[test]
    fn forbidden_is_googles_byte_for_byte() {
        let (status, text, headers) = render(Refusal::NoToken, "/");
        assert_eq!(status, 403);
        assert_eq!(headers["content-type"], "text/html; charset=UTF-8");
        assert_eq!(
            text,
            "<html><head>\n<meta http-equiv=\"content-type\" content=\"text/html;charset=utf-8\">\n<title>403 Forbidden</title>\n</head>\n\
             <body text=#000000 bgcolor=#ffffff>\n<h1>Error: Forbidden</h1>\n\
             <h2>Your client does not have permission to get URL <code>/</code> from this server.</h2>\n<h2></h2>\n</body></html>\n"
        );
        assert_eq!(render(Refusal::NotPermitted, "/").1, text);
    }

    #[test]
    fn other_pages() {
        fn check(refusal: Refusal, status: u16, title: &str, lines: &str) {
            let (got, text, _) = render(refusal, "/a<b>");
            assert_eq!(got, status);
            assert!(text.contains(&format!("<title>{status} {title}</title>")), "{text}");
            assert!(text.contains(lines), "{text}");
        }
        check(Refusal::UnknownHost, 404, "Page not found", "<h1>Error: Page not found</h1>\n<h2>The requested URL was not found on this server.</h2>");
        check(Refusal::Ingress, 404, "Page not found", "<h1>Error: Page not found</h1>");
        check(
            Refusal::BadToken,
            401,
            "Unauthorized",
            "<h1>Error: Unauthorized</h1>\n<h2>Your client does not have permission to the requested URL <code>/a&lt;b&gt;</code>.</h2>",
        );
        check(
            Refusal::StartFailed,
            500,
            "Server Error",
            "<h1>Error: Server Error</h1>\n<h2>The server encountered an error and could not complete your request.<p>Please try again in 30 seconds.</h2>",
        );
    }

    #[test]
    fn bodies_without_a_frame() {
        for (refusal, status, expect) in [
            (Refusal::QueueFull { retry_after_s: 3 }, 429, "Rate exceeded."),
            (Refusal::MalformedResponse, 503, "Service Unavailable"),
            (Refusal::Timeout, 504, "upstream request timeout"),
        ] {
            let (got, text, headers) = render(refusal, "/");
            assert_eq!((got, text.as_str()), (status, expect));
            assert_eq!(headers["server"], "Google Frontend");
        }
        assert_eq!(render(Refusal::QueueFull { retry_after_s: 3 }, "/").2["retry-after"], "3");
        assert_eq!(
            render(Refusal::BadToken, "/").2["www-authenticate"],
            "Bearer error=\"invalid_token\" error_description=\"The access token could not be verified\""
        );
    }
}
