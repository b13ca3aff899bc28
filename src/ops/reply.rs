//! What the operators' port answers. Does not know what was asked.

use crate::proto::json;

/// Plain text.
pub const TEXT: &str = "text/plain; charset=utf-8";
/// JSON, which is UTF-8 without saying so.
pub const JSON: &str = "application/json";

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The body's type.
    pub kind: &'static str,
    /// The body.
    pub body: String,
    /// Further headers.
    pub headers: Vec<(&'static str, &'static str)>,
}

impl Reply {
    /// Some text.
    #[must_use]
    pub fn text(status: u16, body: impl Into<String>) -> Reply {
        Reply { status, kind: TEXT, body: body.into(), headers: Vec::new() }
    }

    /// Some JSON.
    #[must_use]
    pub fn json(status: u16, body: impl Into<String>) -> Reply {
        Reply { status, kind: JSON, body: body.into(), headers: Vec::new() }
    }

    /// The API's way of saying no.
    #[must_use]
    pub fn error(status: u16, message: &str) -> Reply {
        Reply::json(status, format!("{{\"ok\":false,\"error\":{}}}", quoted(message)))
    }

    /// With a further header.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: &'static str) -> Reply {
        self.headers.push((name, value));
        self
    }
}

/// `text` as a JSON string.
#[must_use]
pub fn quoted(text: &str) -> String {
    let mut out = String::new();
    json::escape_into(&mut out, text);
    out
}
