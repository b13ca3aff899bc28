//! `[[endpoint]]`: the paths on the clients' port and what is spoken there. Does not know what a request is.

use serde::Deserialize;

use super::document::{ConfigError, Document};
use crate::base::ids::NamespaceId;
use crate::net;
use crate::proto::raw::Shape;
use crate::session::Kind;
use crate::session::namespace::NamePattern;
use crate::session::rules::{PathStep, RulesSource};

/// Endpoints that one config may have: each request compares its path with all of them.
const ENDPOINTS_MAX: usize = 64;

/// One endpoint as it stands in the file.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// What is spoken.
    pub kind: EndpointKind,
    /// The request's path, matched with or without its last slash. Default: that of the kind.
    pub path: Option<String>,
    /// The namespace that raw clients are in. Default: `/`. Socket.IO clients name theirs themselves.
    pub namespace: Option<String>,
    /// How raw clients get an event's data. Default: nested.
    pub shape: Option<EndpointShape>,
    /// Largest message from a client here. Default: `limits.message_bytes_max`.
    pub message_bytes_max: Option<usize>,
}

/// What is spoken at an endpoint.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub enum EndpointKind {
    /// Socket.IO v5 over Engine.IO v4.
    #[serde(rename = "socket.io")]
    SocketIo,
    /// JSON objects in text messages.
    #[serde(rename = "raw")]
    Raw,
    /// Engine.IO v4 that sends every message back.
    #[serde(rename = "engine.io-echo")]
    EngineIoEcho,
    /// A WebSocket that sends every message back.
    #[serde(rename = "websocket-echo")]
    WebSocketEcho,
}

/// How raw clients get an event's data.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum EndpointShape {
    /// `{"type":"x","data":{"a":1}}`
    #[default]
    Nested,
    /// `{"type":"x","a":1}`
    Flat,
}

impl Endpoint {
    /// What stands for a file without endpoints: Socket.IO, and raw on the namespace `/`.
    #[must_use]
    pub fn defaults() -> Vec<Endpoint> {
        let of = |kind| Endpoint { kind, path: None, namespace: None, shape: None, message_bytes_max: None };
        vec![of(EndpointKind::SocketIo), of(EndpointKind::Raw)]
    }

    /// The request's path.
    #[must_use]
    pub fn path(&self) -> &str {
        self.path.as_deref().unwrap_or(match self.kind {
            EndpointKind::SocketIo => "/socket.io/",
            EndpointKind::Raw => "/ws",
            EndpointKind::EngineIoEcho => "/engine.io/",
            EndpointKind::WebSocketEcho => "/echo",
        })
    }

    /// The namespace of raw clients.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or("/")
    }

    /// How raw clients get data.
    #[must_use]
    pub fn shape(&self) -> EndpointShape {
        self.shape.unwrap_or_default()
    }

    /// The data plane's form of it; `namespaces` in the order of their ids, `message_bytes_max` for one that has none
    /// of its own.
    ///
    /// # Panics
    /// If `namespaces` lacks the endpoint's: [`check`] was not called.
    pub(super) fn compile(&self, namespaces: &[RulesSource], message_bytes_max: usize) -> net::Endpoint {
        let kind = match self.kind {
            EndpointKind::SocketIo => Kind::SocketIo,
            EndpointKind::EngineIoEcho => Kind::EngineIoEcho,
            EndpointKind::WebSocketEcho => Kind::WebSocketEcho,
            EndpointKind::Raw => {
                let index = namespaces.iter().position(|n| n.name.as_deref() == Some(self.namespace()));
                let namespace = NamespaceId(index.expect("endpoints were checked") as u16);
                let shape = match self.shape() {
                    EndpointShape::Nested => Shape::Nested,
                    EndpointShape::Flat => Shape::Flat,
                };
                Kind::Raw { namespace, shape }
            }
        };
        let message_bytes_max = self.message_bytes_max.unwrap_or(message_bytes_max);
        net::Endpoint { path: self.path().into(), kind, message_bytes_max }
    }
}

/// Checks what the endpoints' types do not.
pub(super) fn check(
    document: &Document,
    endpoints: &[Endpoint],
    namespaces: &[RulesSource],
) -> Result<(), ConfigError> {
    for (index, endpoint) in endpoints.iter().enumerate() {
        let wrong = |key: &str, message: String| {
            let steps = [PathStep::Key("endpoint".into()), PathStep::Index(index), PathStep::Key(key.into())];
            // What stands there by default has no place of its own.
            let path = if document.locate(&steps).is_some() { &steps[..] } else { &steps[..2] };
            Err(document.wrong_value(path, message))
        };
        let path = endpoint.path();
        let bare = |endpoint: &Endpoint| endpoint.path().trim_end_matches('/').to_owned();
        if index >= ENDPOINTS_MAX {
            return wrong("kind", format!("there are more than {ENDPOINTS_MAX} endpoints"));
        }
        if !path.starts_with('/') || path.contains(|c: char| !c.is_ascii_graphic() || matches!(c, '?' | '#')) {
            return wrong("path", "must begin with / and contain no spaces, no ? and no #, as in \"/ws\"".to_owned());
        }
        if let Some(first) = endpoints[..index].iter().position(|e| bare(e) == bare(endpoint)) {
            let taken = endpoints[first].path();
            return wrong("path", format!("endpoint[{first}] has the path {taken:?} already; give each its own"));
        }
        if endpoint.kind != EndpointKind::Raw {
            if endpoint.namespace.is_some() {
                let reason = match endpoint.kind {
                    EndpointKind::SocketIo => "Socket.IO clients name their namespaces themselves",
                    _ => "clients of an echo are in no namespace",
                };
                return wrong("namespace", format!("{reason}; remove the key"));
            }
            if endpoint.shape.is_some() {
                return wrong("shape", "only for kind = \"raw\"; remove the key".to_owned());
            }
        } else if !namespaces.iter().any(|n| n.name.as_deref() == Some(endpoint.namespace())) {
            let patterns = namespaces.iter().filter_map(|n| NamePattern::compile(n.pattern.as_deref()?).ok());
            if patterns.into_iter().any(|pattern| pattern.is_match(endpoint.namespace())) {
                let message = "plain WebSockets cannot be in a namespace that a pattern names; add a [[namespace]] \
                    with this name";
                return wrong("namespace", message.to_owned());
            }
            let known: Vec<&str> = namespaces.iter().filter_map(|n| n.name.as_deref()).collect();
            let message = format!(
                "there is no such namespace; add a [[namespace]] of this name, or use one of {}",
                known.join(", ")
            );
            return wrong("namespace", message);
        }
    }
    Ok(())
}
