//! Why a request is not answered by a function.
//!
//! One small value for each reason; it knows whose fault it is, whether trying again can help, the status, and the words of
//! the request log. It does not render: that is `pages.rs`. Statuses and texts are Google's (docs/compatibility).

use http::StatusCode;

/// A request that ends here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The head contradicts itself: target and Host disagree, user information in the authority, two lengths.
    MalformedRequest,
    /// The host is not the one that TLS was spoken for.
    Misdirected,
    /// No service has this host.
    UnknownHost,
    /// The service's ingress setting keeps this caller out.
    Ingress,
    /// TRACE and CONNECT are not served.
    MethodNotAllowed,
    /// No token, or something that is no bearer token.
    NoToken,
    /// A good token of someone who may not invoke.
    NotPermitted,
    /// A token that is expired, for another audience or not of this issuer.
    BadToken,
    /// More than 32 MiB of body to a function that speaks HTTP/1.
    BodyTooLarge,
    /// The body stopped coming, or came too slowly.
    BodyBroken,
    /// No slot came free within the hold time, or none can for all who wait already.
    QueueFull {
        /// When to try again.
        retry_after_s: u32,
    },
    /// More instances lie behind it than may: a loop.
    Loop,
    /// The function was created and has no source yet.
    Placeholder,
    /// The service has no ready revision.
    NoRevision,
    /// An instance was started for this request and did not become ready.
    StartFailed,
    /// The data plane is being shut down.
    Closing,
    /// The connection to the instance broke before an answer, or what came was no HTTP.
    MalformedResponse,
    /// The revision's request timeout has passed.
    Timeout,
}

/// At whom a refusal points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Client,
    Platform,
    Instance,
}

impl Refusal {
    /// Whose doing it is.
    pub fn source(self) -> Source {
        match self {
            Self::MalformedRequest
            | Self::Misdirected
            | Self::UnknownHost
            | Self::Ingress
            | Self::MethodNotAllowed
            | Self::NoToken
            | Self::NotPermitted
            | Self::BadToken
            | Self::BodyTooLarge
            | Self::BodyBroken => Source::Client,
            Self::Loop | Self::Placeholder | Self::QueueFull { .. } | Self::NoRevision | Self::Closing => Source::Platform,
            Self::StartFailed | Self::MalformedResponse | Self::Timeout => Source::Instance,
        }
    }

    /// Whether the same request may be answered a little later.
    pub fn retry(self) -> bool {
        matches!(self, Self::Placeholder | Self::QueueFull { .. } | Self::StartFailed | Self::Closing | Self::MalformedResponse)
    }

    /// Whether the function saw nothing of the request.
    pub fn is_before_function(self) -> bool {
        !matches!(self, Self::BodyBroken | Self::MalformedResponse | Self::Timeout)
    }

    /// The status that the caller sees.
    pub fn status(self) -> StatusCode {
        match self {
            Self::MalformedRequest => StatusCode::BAD_REQUEST,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::UnknownHost | Self::Ingress | Self::NoRevision => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::NoToken | Self::NotPermitted => StatusCode::FORBIDDEN,
            Self::BadToken => StatusCode::UNAUTHORIZED,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyBroken => StatusCode::REQUEST_TIMEOUT,
            Self::QueueFull { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Loop => StatusCode::LOOP_DETECTED,
            Self::StartFailed => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Placeholder | Self::Closing | Self::MalformedResponse => StatusCode::SERVICE_UNAVAILABLE,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// The text of the request's log entry; none for what Google logs without one.
    pub fn log_text(self) -> Option<&'static str> {
        Some(match self {
            Self::NoToken => {
                "The request was not authenticated. Either allow unauthenticated invocations or set the proper Authorization header. \
                 Read more at https://cloud.google.com/run/docs/securing/authenticating \
                 Additional troubleshooting documentation can be found at: https://cloud.google.com/run/docs/troubleshooting#unauthorized-client"
            }
            Self::NotPermitted => {
                "The request was not authenticated. The caller does not have permission run.routes.invoke on the service. \
                 Additional troubleshooting documentation can be found at: https://cloud.google.com/run/docs/troubleshooting#unauthorized-client"
            }
            Self::BadToken => {
                "The request was not authorized to invoke this service. The access token could not be verified \
                 Additional troubleshooting documentation can be found at: https://cloud.google.com/run/docs/troubleshooting#401"
            }
            Self::QueueFull { .. } | Self::StartFailed => {
                "The request was aborted because there was no available instance. \
                 Additional troubleshooting documentation can be found at: https://cloud.google.com/run/docs/troubleshooting#abort-request"
            }
            Self::MalformedResponse => {
                "The request failed because either the HTTP response was malformed or connection to the instance had an error. \
                 Additional troubleshooting documentation can be found at: https://cloud.google.com/run/docs/troubleshooting#malformed-response-or-connection-error"
            }
            Self::Timeout => {
                "The request has been terminated because it has reached the maximum request timeout. To change this limit, see \
                 https://cloud.google.com/run/docs/configuring/request-timeout"
            }
            Self::BodyBroken => "The request's body ended early or came more slowly than 1 KiB/s.",
            Self::Closing => "The request was aborted because the server is being shut down.",
            Self::Placeholder => "The function has no source yet: deploy one, or press Save and redeploy in the console.",
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_that_may_be_retried_is_never_the_clients_fault() {
        for refusal in [
            Refusal::MalformedRequest,
            Refusal::Misdirected,
            Refusal::UnknownHost,
            Refusal::Ingress,
            Refusal::MethodNotAllowed,
            Refusal::NoToken,
            Refusal::NotPermitted,
            Refusal::BadToken,
            Refusal::BodyTooLarge,
            Refusal::BodyBroken,
            Refusal::QueueFull { retry_after_s: 1 },
            Refusal::Loop,
            Refusal::Placeholder,
            Refusal::NoRevision,
            Refusal::StartFailed,
            Refusal::Closing,
            Refusal::MalformedResponse,
            Refusal::Timeout,
        ] {
            assert_eq!(
                refusal.source() == Source::Client,
                refusal.status().is_client_error() && !matches!(refusal, Refusal::QueueFull { retry_after_s: 1 } | Refusal::NoRevision),
                "{refusal:?}"
            );
            assert!(!(refusal.retry() && refusal.source() == Source::Client), "{refusal:?}");
        }
    }
}
