//! Who may use the HTTP API: all paths below `/v1/`.

use std::net::{IpAddr, SocketAddr};

use axum::{
    Router,
    extract::{ConnectInfo, Request},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use trestle_bridge::status::HttpRefusal;
use trestle_wire::{Reason, Refusal};

/// Whom the HTTP API answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum HttpApi {
    /// Programs on the same machine.
    #[default]
    Loopback,
    /// Whoever reaches the address.
    Everyone,
    /// Nobody: the paths do not exist.
    Off,
}

impl HttpApi {
    /// `api` as it is open to those that may use it; no route at all where it is off.
    pub(crate) fn guard(self, api: Router) -> Router {
        if self == Self::Off {
            return Router::new();
        }
        // `route_layer`: a path that does not exist is answered as one, whoever asks.
        api.route_layer(middleware::from_fn(
            move |ConnectInfo(peer): ConnectInfo<SocketAddr>, request: Request, next: Next| {
                self.answer(peer, request, next)
            },
        ))
    }

    async fn answer(self, peer: SocketAddr, request: Request, next: Next) -> Response {
        if self.allows(peer.ip()) {
            return next.run(request).await;
        }
        let sentence = "the HTTP API answers programs on the gateway's machine only; see http_api";
        HttpRefusal(Refusal::new(Reason::ApiNotAllowed, sentence)).into_response()
    }

    fn allows(self, peer: IpAddr) -> bool {
        match self {
            Self::Everyone => true,
            // An IPv4 client of an IPv6 socket comes as ::ffff:127.0.0.1.
            Self::Loopback => peer.to_canonical().is_loopback(),
            Self::Off => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, routing::get};
    use http::StatusCode;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;

    #[test]
    fn only_a_program_on_this_machine_is_local() {
        for (peer, local) in [
            ("127.0.0.1", true),
            ("127.8.9.1", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("10.0.0.1", false),
            ("192.168.1.1", false),
            ("0.0.0.0", false),
            ("::ffff:10.0.0.1", false),
            ("fe80::1", false),
            ("::", false),
        ] {
            let peer: IpAddr = peer.parse().expect("an address");
            assert_eq!(HttpApi::Loopback.allows(peer), local, "{peer}");
            assert!(HttpApi::Everyone.allows(peer), "{peer}");
            assert!(!HttpApi::Off.allows(peer), "{peer}");
        }
    }

    async fn ask(policy: HttpApi, peer: [u8; 4]) -> (StatusCode, String) {
        let api = policy.guard(Router::new().route("/v1/routes", get(|| async { "routes" })));
        let mut request = Request::get("/v1/routes").body(Body::empty()).expect("a request");
        request.extensions_mut().insert(ConnectInfo(SocketAddr::from((peer, 1))));
        let answer = api.oneshot(request).await.expect("answered");
        let (head, body) = answer.into_parts();
        (head.status, String::from_utf8_lossy(&body.collect().await.expect("a body").to_bytes()).into_owned())
    }

    #[tokio::test]
    async fn a_peer_that_may_not_use_the_api_is_refused_by_name() {
        assert_eq!(ask(HttpApi::Loopback, [127, 0, 0, 1]).await, (StatusCode::OK, "routes".into()));
        assert_eq!(ask(HttpApi::Everyone, [10, 0, 0, 1]).await, (StatusCode::OK, "routes".into()));
        assert_eq!(ask(HttpApi::Off, [127, 0, 0, 1]).await.0, StatusCode::NOT_FOUND);
        let (status, body) = ask(HttpApi::Loopback, [10, 0, 0, 1]).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
        for part in [r#""code":"PERMISSION_DENIED""#, r#""reason":"api_not_allowed""#] {
            assert!(body.contains(part), "{part} is not in {body}");
        }
    }
}
