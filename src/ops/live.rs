//! One live connection of the operators' page: a WebSocket's bytes in and out. It tells the numbers whenever they were
//! taken, and shows events to whoever may read them. Does not know sockets, nor what time it is.

use super::access::Access;
use super::board::Board;
use super::reply::quoted;
use crate::base::class::NameMatch;
use crate::base::clock::Millis;
use crate::base::secret::Secret;
use crate::proto::http::Head;
use crate::proto::json;
use crate::proto::ws::{self, Message, Step};
use crate::shard::tap::{Filter, Tap, Tapped, Taps};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

/// Where it is.
pub const PATH: &str = "/live";
/// Connections at a time: each costs a message per second.
pub const WATCHERS_MAX: usize = 16;
/// Events that one of them sees per second, at most.
pub const EVENTS_PER_S_MAX: u32 = 50;
/// What a client may say in one message.
const MESSAGE_BYTES_MAX: usize = 4096;
/// Who is silent so long is asked whether it is still there,
const PING_MS: u64 = 10_000;
/// and who has not answered by then is not.
const SILENT_MS_MAX: u64 = 30_000;

/// How many are there.
#[derive(Clone, Debug, Default)]
pub struct Watchers(Rc<Cell<usize>>);

/// One of them, until it is dropped.
#[derive(Debug)]
pub struct Watcher(Watchers);

impl Watchers {
    /// How many are there.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.get()
    }

    /// One more; `None` if there are [`WATCHERS_MAX`].
    pub fn enter(&self) -> Option<Watcher> {
        if self.count() >= WATCHERS_MAX {
            return None;
        }
        self.0.set(self.count() + 1);
        Some(Watcher(self.clone()))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let Watchers(count) = &self.0;
        count.set(count.get() - 1);
    }
}

/// When somebody may do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum May {
    /// At once.
    Now,
    /// When it has told the token.
    WithToken,
    /// Not without a token in the config.
    Never,
}

impl May {
    fn word(self) -> &'static str {
        match self {
            May::Now => "now",
            May::WithToken => "token",
            May::Never => "never",
        }
    }
}

/// One connection.
#[derive(Debug)]
pub struct Live {
    decoder: ws::Decoder,
    /// Received and not handled: a part of a frame.
    input: Vec<u8>,
    out: Vec<u8>,
    reads: May,
    writes: May,
    token: Option<Secret>,
    taps: Arc<Taps>,
    tap: Option<Open>,
    /// The board's version that was told last.
    version: u64,
    heard: Millis,
    pinged: Millis,
    /// Why it ends, once it does; empty if the client wished it.
    over: Option<&'static str>,
}

/// An open tap.
#[derive(Debug)]
struct Open {
    tap: Arc<Tap>,
    per_s: u32,
    /// When the allowance was raised last, and the thousandths of an event that were left.
    raised: Millis,
    thousandths: u64,
    /// Skipped events that the client knows of.
    skipped: u64,
}

impl Live {
    /// For whoever has sent this request. `about` tells of the server: members of a JSON object, with a comma before
    /// them.
    #[must_use]
    pub fn new(access: &Access, head: &Head<'_, '_>, taps: Arc<Taps>, about: &str, now: Millis) -> Live {
        let (reads, writes) = match &access.token {
            Some(_) => (May::WithToken, May::WithToken),
            None if access.is_local && access.is_called_by_its_name(head) => (May::Now, May::Never),
            None => (May::Never, May::Never),
        };
        let mut live = Live {
            decoder: ws::Decoder::new(),
            input: Vec::new(),
            out: Vec::new(),
            reads,
            writes,
            token: access.token.clone(),
            taps,
            tap: None,
            version: 0,
            heard: now,
            pinged: now,
            over: None,
        };
        live.say(&format!("{{\"type\":\"hello\",{}{about}}}", live.access()));
        live
    }

    /// Takes what the client has sent.
    pub fn received(&mut self, bytes: &[u8], now: Millis) {
        self.heard = now;
        let mut input = std::mem::take(&mut self.input);
        input.extend_from_slice(bytes);
        let mut decoder = std::mem::take(&mut self.decoder);
        let mut at = 0;
        while self.over.is_none() {
            match decoder.decode(&mut input[at..], MESSAGE_BYTES_MAX) {
                Ok(Step::Incomplete { .. }) => break,
                Ok(Step::Consumed { bytes }) => at += bytes,
                Ok(Step::Message { bytes, message }) => {
                    at += bytes;
                    self.message(message, now);
                }
                Err(violation) => self.end(violation.close_code(), violation.label()),
            }
            decoder.give_back();
        }
        input.drain(..at);
        self.input = input;
        self.decoder = decoder;
    }

    /// Says what there is to be said by now.
    pub fn advance(&mut self, board: &Board, now: Millis) {
        if self.over.is_some() {
            return;
        }
        if now.since(self.heard) >= SILENT_MS_MAX {
            return self.end(1001, "live_silent");
        }
        if now.since(self.heard) >= PING_MS && now.since(self.pinged) >= PING_MS {
            self.pinged = now;
            ws::write_header(&mut self.out, ws::Kind::Ping, 0);
        }
        if board.version() != self.version {
            self.version = board.version();
            self.say(&board.message());
        }
        self.show(now);
    }

    /// What is to be sent.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// Why it ends when all is sent, if it does; empty if the client wished it.
    #[must_use]
    pub fn is_over(&self) -> Option<&'static str> {
        self.over
    }

    fn message(&mut self, message: Message<'_>, now: Millis) {
        match message {
            Message::Text(text) => {
                if let Err(error) = self.text(text, now) {
                    self.say(&format!("{{\"type\":\"error\",\"error\":{}}}", quoted(&error)));
                }
            }
            Message::Binary(_) => self.end(1003, "binary"),
            Message::Ping(data) => {
                ws::write_header(&mut self.out, ws::Kind::Pong, data.len());
                self.out.extend_from_slice(data);
            }
            Message::Pong(_) => {}
            Message::Close { code, .. } => self.end(code.unwrap_or(1000), ""),
        }
    }

    /// Does what the client says, or says what is wrong with it.
    fn text(&mut self, text: &str, now: Millis) -> Result<(), String> {
        let mut scratch = json::Scratch::default();
        json::validate(text.as_bytes(), &mut scratch).map_err(|error| format!("that is not JSON: {error}"))?;
        let member = |key: &str| json::get(text, key).and_then(json::unescape);
        match member("type").as_deref() {
            Some("token") => {
                let told = member("token").unwrap_or_default();
                let right = self.token.as_ref().is_some_and(|token| token.is(told.as_bytes()));
                if right {
                    (self.reads, self.writes) = (May::Now, May::Now);
                }
                let access = self.access();
                self.say(&format!("{{\"type\":\"access\",{access},\"right\":{right}}}"));
            }
            Some("tap") => {
                match self.reads {
                    May::Now => {}
                    May::WithToken => return Err("the tap wants the token in ops.token_file".to_owned()),
                    May::Never => {
                        return Err("events are shown to this machine only, or with a token; set ops.token_file".into());
                    }
                }
                let pattern = |key: &str, otherwise: &str| NameMatch::new(member(key).as_deref().unwrap_or(otherwise));
                let filter =
                    Filter { namespace: pattern("ns", "/"), room: pattern("room", "*"), event: pattern("event", "*") };
                let wanted = json::get(text, "per_s_max").and_then(|number| number.parse().ok()).unwrap_or(20u32);
                self.open(filter, wanted.clamp(1, EVENTS_PER_S_MAX), now)?;
            }
            Some("untap") => {
                self.close_tap();
                self.say("{\"type\":\"untapped\"}");
            }
            _ => return Err("the type must be token, tap or untap".to_owned()),
        }
        Ok(())
    }

    fn access(&self) -> String {
        format!("\"access\":{{\"reads\":\"{}\",\"writes\":\"{}\"}}", self.reads.word(), self.writes.word())
    }

    fn open(&mut self, filter: Filter, per_s: u32, now: Millis) -> Result<(), String> {
        self.close_tap();
        let said = |pattern: &NameMatch| quoted(&pattern.to_string());
        let (ns, room, event) = (said(&filter.namespace), said(&filter.room), said(&filter.event));
        let tap = self.taps.open(filter).ok_or("too many taps are open; close another page")?;
        // The first second's.
        tap.take(per_s, per_s);
        self.tap = Some(Open { tap, per_s, raised: now, thousandths: 0, skipped: 0 });
        self.say(&format!(
            "{{\"type\":\"tapped\",\"ns\":{ns},\"room\":{room},\"event\":{event},\"per_s_max\":{per_s}}}"
        ));
        Ok(())
    }

    fn close_tap(&mut self) {
        if let Some(Open { tap, .. }) = self.tap.take() {
            self.taps.close(&tap);
        }
    }

    /// Shows what the tap has taken, and lets it take more. While the client does not read, this is not called.
    fn show(&mut self, now: Millis) {
        let Some(open) = &mut self.tap else { return };
        let thousandths = open.thousandths + now.since(open.raised).min(1000) * u64::from(open.per_s);
        (open.raised, open.thousandths) = (now, thousandths % 1000);
        let events = open.tap.take((thousandths / 1000) as u32, open.per_s);
        let skipped = open.tap.skipped();
        let more = skipped - std::mem::replace(&mut open.skipped, skipped);
        for event in &events {
            self.say(&written(event));
        }
        if more > 0 {
            self.say(&format!("{{\"type\":\"skipped\",\"count\":{more}}}"));
        }
    }

    fn say(&mut self, text: &str) {
        ws::write_header(&mut self.out, ws::Kind::Text, text.len());
        self.out.extend_from_slice(text.as_bytes());
    }

    fn end(&mut self, code: u16, reason: &'static str) {
        self.close_tap();
        self.out.extend_from_slice(&ws::close_frame(code, reason));
        self.over = Some(reason);
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.close_tap();
    }
}

fn written(event: &Tapped) -> String {
    let Tapped { namespace, room, offset, name_json, args, args_bytes, attachments } = event;
    let (namespace, room, args) = (quoted(namespace), quoted(room), quoted(args));
    format!(
        "{{\"type\":\"event\",\"ns\":{namespace},\"room\":{room},\"offset\":{},\"event\":{name_json},\"args\":{args},\
         \"args_bytes\":{args_bytes},\"binary\":{attachments}}}",
        offset.0
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::event::Event;
    use crate::base::ids::{NamespaceId, Offset};
    use crate::proto::http::{self, HeadStep};
    use crate::shard::tap::View;
    use serde_json::{Value, json};

    const TOKEN: &str = "0123456789abcdef";

    fn live(access: &Access, taps: &Arc<Taps>) -> Live {
        let request = b"GET /live HTTP/1.1\r\nHost: localhost:3200\r\n\r\n";
        let mut headers = [httparse::EMPTY_HEADER; http::HEADERS_MAX];
        match http::parse_head(request, &mut headers, 8192) {
            Ok(HeadStep::Complete { head, .. }) => Live::new(access, &head, taps.clone(), ",\"x\":1", Millis(0)),
            other => panic!("{other:?}"),
        }
    }

    fn access(token: Option<&str>, is_local: bool) -> Access {
        Access { token: token.map(|token| Secret::new(token).unwrap()), is_local, hosts: Box::default() }
    }

    fn say(live: &mut Live, text: &str, now: u64) {
        let mut frame = Vec::new();
        ws::encode_client_frame(&mut frame, true, ws::Kind::Text, [1, 2, 3, 4], text.as_bytes());
        live.received(&frame, Millis(now));
    }

    fn told(live: &mut Live) -> Vec<Value> {
        let out = live.take();
        let texts = ws::unmasked_messages(&out).filter(|(kind, _)| *kind == ws::Kind::Text);
        texts.map(|(_, text)| serde_json::from_slice(text).unwrap()).collect()
    }

    #[test]
    fn who_may_read_events() {
        // (token in the config, on loopback, a token that is told, at first, then)
        for (token, is_local, tells, first, then) in [
            (None, true, None, ("now", "never"), ("now", "never")),
            (None, true, Some(TOKEN), ("now", "never"), ("now", "never")),
            (None, false, Some(TOKEN), ("never", "never"), ("never", "never")),
            (Some(TOKEN), true, None, ("token", "token"), ("token", "token")),
            (Some(TOKEN), true, Some("0123456789abcdee"), ("token", "token"), ("token", "token")),
            (Some(TOKEN), false, Some(TOKEN), ("token", "token"), ("now", "now")),
        ] {
            let taps = Arc::new(Taps::default());
            let mut live = live(&access(token, is_local), &taps);
            let written = |(reads, writes): (&str, &str)| json!({"reads": reads, "writes": writes});
            assert_eq!(told(&mut live), [json!({"type": "hello", "access": written(first), "x": 1})]);
            if let Some(tells) = tells {
                say(&mut live, &json!({"type": "token", "token": tells}).to_string(), 1);
                let right = token == Some(tells);
                assert_eq!(told(&mut live), [json!({"type": "access", "access": written(then), "right": right})]);
            }
            say(&mut live, r#"{"type":"tap"}"#, 2);
            let kind = if then.0 == "now" { "tapped" } else { "error" };
            assert_eq!(told(&mut live)[0]["type"], kind, "{token:?} {is_local} {tells:?}");
            assert_eq!(View::new(taps).is_open(), kind == "tapped");
        }
    }

    #[test]
    fn a_tap_shows_at_most_what_was_asked_for() {
        let (taps, board) = (Arc::new(Taps::default()), Board::default());
        let mut view = View::new(taps.clone());
        let mut live = live(&access(None, true), &taps);
        say(&mut live, r#"{"type":"tap","ns":"/","room":"route:*","event":"","per_s_max":9}"#, 0);
        // An empty pattern is an empty name.
        assert_eq!(
            told(&mut live)[1],
            json!({"type": "tapped", "ns": "/", "room": "route:*", "event": "", "per_s_max": 9})
        );
        say(&mut live, r#"{"type":"tap","room":"route:*","per_s_max":9}"#, 0);
        told(&mut live);
        let event = Event::new(NamespaceId(0), "\"seat\\u00e9\"", "{\"a\":1},2", 2);
        let (mut shown, mut skipped) = (0, 0);
        for step in 0..=100 {
            for offset in 0..10 {
                view.see("/", "route:7", Offset(offset), &event);
                view.see("/", "other", Offset(offset), &event);
            }
            live.advance(&board, Millis(step * 100));
            for message in told(&mut live) {
                match message["type"].as_str().unwrap() {
                    "event" => shown += 1,
                    "skipped" => skipped += message["count"].as_u64().unwrap(),
                    other => panic!("{other}"),
                }
                if shown == 1 && message["type"] == "event" {
                    let expected = json!({"type": "event", "ns": "/", "room": "route:7", "offset": 0, "event": "seaté",
                        "args": "{\"a\":1},2", "args_bytes": 9, "binary": 0});
                    assert_eq!(message, expected);
                }
            }
        }
        // In ten seconds, and a second's worth at once.
        assert_eq!((shown, shown + skipped), (98, 1010));
        say(&mut live, r#"{"type":"untap"}"#, 10_000);
        assert_eq!(told(&mut live), [json!({"type": "untapped"})]);
        assert!(!view.is_open());
        say(&mut live, r#"{"type":"tap","per_s_max":1000000}"#, 10_000);
        assert_eq!(told(&mut live)[0]["per_s_max"], EVENTS_PER_S_MAX);
        drop(live);
        assert!(!view.is_open(), "who leaves taps no more");
    }

    #[test]
    fn what_is_not_understood_is_answered() {
        let taps = Arc::new(Taps::default());
        let mut live = live(&access(None, true), &taps);
        told(&mut live);
        for text in ["", "{", "7", "{}", r#"{"type":"x"}"#, r#"{"type":7}"#] {
            say(&mut live, text, 1);
            assert_eq!(told(&mut live)[0]["type"], "error", "{text}");
        }
        live.received(&[0x82, 0x80, 0, 0, 0, 0], Millis(1));
        assert_eq!((live.is_over(), live.take()), (Some("binary"), ws::close_frame(1003, "binary")));
    }

    #[test]
    fn who_is_silent_is_asked_and_then_left() {
        let (taps, mut board) = (Arc::new(Taps::default()), Board::default());
        let mut live = live(&access(None, true), &taps);
        live.take();
        live.advance(&board, Millis(9_999));
        assert!(live.take().is_empty());
        live.advance(&board, Millis(10_000));
        live.advance(&board, Millis(10_001));
        assert_eq!(live.take(), [0x89, 0]);
        live.received(&[0x8a, 0x80, 0, 0, 0, 0], Millis(12_000));
        board.take("", 1, "ready");
        live.advance(&board, Millis(41_999));
        assert_eq!((live.is_over(), live.take()[..2].to_vec()), (None, vec![0x89, 0]));
        live.advance(&board, Millis(42_000));
        assert_eq!((live.is_over(), live.take()), (Some("live_silent"), ws::close_frame(1001, "live_silent")));
    }

    #[test]
    fn a_fragment_a_ping_and_a_close() {
        let taps = Arc::new(Taps::default());
        let mut live = live(&access(None, true), &taps);
        live.take();
        let (text, mut frames) = (r#"{"type":"untap"}"#.as_bytes(), Vec::new());
        ws::encode_client_frame(&mut frames, false, ws::Kind::Text, [9; 4], &text[..3]);
        ws::encode_client_frame(&mut frames, true, ws::Kind::Ping, [9; 4], b"hi");
        ws::encode_client_frame(&mut frames, true, ws::Kind::Continuation, [9; 4], &text[3..]);
        ws::encode_client_frame(&mut frames, true, ws::Kind::Close, [9; 4], &[]);
        for byte in frames {
            live.received(&[byte], Millis(1));
        }
        let out = live.take();
        let kinds: Vec<ws::Kind> = ws::unmasked_messages(&out).map(|(kind, _)| kind).collect();
        assert_eq!(kinds, [ws::Kind::Pong, ws::Kind::Text, ws::Kind::Close]);
        assert_eq!(live.is_over(), Some(""));
    }

    #[test]
    fn so_many_and_no_more() {
        let watchers = Watchers::default();
        let mut all: Vec<Watcher> = (0..WATCHERS_MAX).map(|_| watchers.enter().unwrap()).collect();
        assert!(watchers.enter().is_none());
        all.pop();
        assert!(watchers.enter().is_some());
        drop(all);
        assert_eq!(watchers.count(), 0);
    }
}
