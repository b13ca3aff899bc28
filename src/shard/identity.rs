//! Tokens of sockets: verified when a client connects, replaced when it brings a new one, and the end of the socket
//! when they end. Does not know how a token is made, nor what time it is outside.

use super::clients::ClientEvent;
use super::{Shard, TOKEN_EXPIRED, UNAUTHENTICATED, name_of};
use crate::base::clock::Millis;
use crate::base::counters;
use crate::base::event::Event;
use crate::base::ids::{NamespaceId, NamespaceRef, SlotRef};
use crate::proto::{json, raw, socketio};
use crate::session::identity::{Claims, Identity, TokenError};
use crate::session::rules::Refusal;
use crate::session::{Credentials, Kind};
use std::sync::Arc;

/// The deadlines of tokens follow the wall clock when it is set, but not when it is only trimmed.
const STEP_MS: u64 = 1000;

impl Shard {
    /// From here on clients are identified by this. Sockets that are connected keep their claims.
    pub fn set_identity(&mut self, identity: Option<Arc<Identity>>) {
        self.identity = identity;
    }

    /// How clients are identified; `None` if tokens have no meaning.
    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_deref()
    }

    /// Tells the Unix time of [`Millis`] 0, in milliseconds. It changes when somebody sets the system's clock.
    pub fn set_wall_clock(&mut self, unix_origin_ms: u64) {
        let former = std::mem::replace(&mut self.unix_origin_ms, unix_origin_ms);
        if former.abs_diff(unix_origin_ms) < STEP_MS {
            return;
        }
        let live = self.sessions.iter().filter(|(_, session)| session.credentials().is_some() && !session.closing);
        for at in live.map(|(at, _)| at).collect::<Vec<SlotRef>>() {
            self.watch_tokens(at);
        }
    }

    fn unix_ms(&self) -> u64 {
        self.unix_origin_ms + self.now.0
    }

    /// The claims of a client that connects to a namespace with the payload `auth`.
    pub(super) fn identify(
        &mut self,
        at: SlotRef,
        namespace: NamespaceId,
        auth: Option<&str>,
    ) -> Result<Option<Box<Claims>>, TokenError> {
        let Some(identity) = self.identity.clone() else { return Ok(None) };
        // Taken out for the call, as the token borrows from it.
        let session = &mut self.sessions[at.slot];
        let bearer = session.credentials_mut().and_then(|credentials| credentials.bearer.take());
        let claims = match identity.token_of(auth, bearer.as_ref()) {
            Ok(Some(token)) => {
                identity.verify(&token, self.unix_ms(), &mut self.json).map(|claims| Some(Box::new(claims)))
            }
            Ok(None) if identity.is_required(namespace) => Err(TokenError::Missing),
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        };
        let session = &mut self.sessions[at.slot];
        // A raw client connects once.
        if session.kind == Kind::SocketIo
            && let Some(credentials) = session.credentials_mut()
        {
            credentials.bearer = bearer;
        }
        claims
    }

    /// A payload `auth` as others than [`Shard::identify`] may see it.
    pub(super) fn without_tokens(&self, auth: &str) -> Box<str> {
        self.identity.as_ref().map_or_else(|| auth.into(), |identity| identity.without_tokens_in(auth))
    }

    /// Tells a client why it does not get into the namespace.
    pub(super) fn refuse_token(&mut self, at: SlotRef, namespace: NamespaceRef<'_>, error: TokenError) {
        self.counters.count(counters::AUTH_REFUSALS, error.label());
        let (reason, code) = (error.to_string(), code_json(error));
        self.scratch.clear();
        match self.sessions[at.slot].kind {
            Kind::SocketIo => {
                let name = name_of(&self.namespaces, namespace);
                socketio::connect_error(&mut self.scratch, name, &reason, Some(&code));
                self.push_scratch(at.slot);
            }
            Kind::Raw { shape, .. } => {
                // Libraries like to hide a close frame's text, and it has no room for a code.
                let data = format!("{},\"data\":{code}}}", message_json(&reason));
                raw::event(&mut self.scratch, shape, &Event::new(namespace, "\"error\"", &data, 1));
                self.push_scratch(at.slot);
                self.close_saying(at, UNAUTHENTICATED, Some(reason.into()));
            }
            Kind::EngineIoEcho | Kind::WebSocketEcho => unreachable!("an echo connects to no namespace"),
        }
    }

    /// Has the session looked at when the first of its sockets' tokens ends.
    pub(super) fn watch_tokens(&mut self, at: SlotRef) {
        let session = &self.sessions[at.slot];
        let ends = session.sockets.iter().filter_map(|(_, socket)| self.token_ends_ms(*socket)).min();
        let ends_at = ends.map_or(Millis::NEVER, |ends_ms| Millis(ends_ms.saturating_sub(self.unix_origin_ms)));
        let session = &mut self.sessions[at.slot];
        if session.token_ends_at() == ends_at {
            return;
        }
        let none = || Credentials { bearer: None, ends_at: Millis::NEVER };
        session.extras.get_or_insert_default().credentials.get_or_insert_with(none).ends_at = ends_at;
        self.arm(at);
    }

    fn token_ends_ms(&self, socket: SlotRef) -> Option<u64> {
        self.sockets[socket.slot].notes.as_ref()?.claims.as_ref()?.ends_ms
    }

    /// Ends the sockets whose tokens have ended. False if the session ends with them.
    pub(super) fn tokens_due(&mut self, at: SlotRef) -> bool {
        let unix_ms = self.unix_ms();
        let sockets = self.sessions[at.slot].sockets.iter().map(|(_, socket)| *socket);
        let ended = |socket: &SlotRef| self.token_ends_ms(*socket).is_some_and(|ends_ms| ends_ms <= unix_ms);
        let ended: Vec<SlotRef> = sockets.filter(ended).collect();
        let any = !ended.is_empty();
        self.counters.tokens_expired += ended.len() as u64;
        for socket in ended {
            if self.sessions[at.slot].kind != Kind::SocketIo {
                self.close(at, TOKEN_EXPIRED);
                return false;
            }
            if self.sockets[socket.slot].connected {
                self.say_goodbye(at, socket);
            } else {
                let (reason, code) = (TokenError::Expired.to_string(), code_json(TokenError::Expired));
                self.scratch.clear();
                let name = name_of(&self.namespaces, self.sockets[socket.slot].namespace_ref());
                socketio::connect_error(&mut self.scratch, name, &reason, Some(&code));
                self.push_scratch(at.slot);
            }
            self.forget_socket(at, socket);
        }
        let session = &mut self.sessions[at.slot];
        if any && session.sockets.is_empty() {
            // It is as it was before its first CONNECT, and does not stay for ever without another.
            session.connect_by = self.now.after(self.options.heartbeat.connect_timeout_ms);
        }
        self.watch_tokens(at);
        true
    }

    /// A client brings a new token: what it says holds from here on. Rules don't see it; rooms stay as they are.
    pub(super) fn refresh_token(&mut self, at: SlotRef, socket: SlotRef, event: ClientEvent<'_>) {
        let answer = match self.verify_next(socket, event.args.first().copied()) {
            Ok(claims) => {
                let answer =
                    format!(r#"{{"ok":true,"expires_at":{}}}"#, json::get(&claims.json, "exp").unwrap_or("null"));
                self.sockets[socket.slot].notes.get_or_insert_default().claims = Some(claims.into());
                self.counters.tokens_refreshed += 1;
                self.watch_tokens(at);
                answer
            }
            Err(error) => {
                self.counters.count(counters::AUTH_REFUSALS, error.label());
                if event.ack_id.is_none() {
                    let data_json = Some(code_json(error).into());
                    let refusal = Refusal { data_json, ..Refusal::new(error.to_string()) };
                    return self.refuse(at, socket, Some(event), &refusal);
                }
                format!(r#"{{"error":{},"code":"{}"}}}}"#, message_json(&error.to_string()), error.label())
            }
        };
        if let Some(ack_id) = event.ack_id {
            self.scratch.clear();
            let name = name_of(&self.namespaces, self.sockets[socket.slot].namespace_ref());
            socketio::ack(&mut self.scratch, name, ack_id, &answer, socketio::NO_ATTACHMENTS);
            self.push_scratch(at.slot);
        }
    }

    fn verify_next(&mut self, socket: SlotRef, data: Option<&str>) -> Result<Claims, TokenError> {
        let Some(identity) = self.identity.clone() else { unreachable!("it names the event") };
        let data = data.ok_or(TokenError::Missing)?;
        let token = match json::kind(data) {
            json::Kind::Object => json::get(data, "token").ok_or(TokenError::Missing)?,
            _ => data,
        };
        let token = json::unescape(token).ok_or(TokenError::Malformed)?;
        let claims = identity.verify(&token, self.unix_ms(), &mut self.json)?;
        let notes = self.sockets[socket.slot].notes.as_ref();
        let present = notes.and_then(|notes| notes.claims.as_ref());
        if present.is_some_and(|present| !present.admit(&claims)) {
            return Err(TokenError::Subject);
        }
        Ok(claims)
    }
}

/// The beginning of an error's object: a client's program reads the message, and what follows.
fn message_json(message: &str) -> String {
    let mut object = String::from("{\"message\":");
    json::escape_into(&mut object, message);
    object
}

fn code_json(error: TokenError) -> String {
    format!(r#"{{"code":"{}"}}"#, error.label())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::class::Classes;
    use crate::base::ids::Topology;
    use crate::mesh;
    use crate::proto::http::{self, HeadStep};
    use crate::proto::raw::Shape;
    use crate::session::HeartbeatOptions;
    use crate::session::identity::testing::{SECRET, hs256};
    use crate::session::identity::{Key, Options, Source};
    use crate::session::rules::{NamespaceRules, RulesSource};
    use crate::shard::{self, Action, CONNECT_TIMEOUT, Flow, Handshake, Namespace};
    use std::net::{IpAddr, Ipv4Addr};

    /// The Unix time of the tests' beginning, in seconds.
    const START_S: u64 = 1_700_000_000;
    const CONNECT_TIMEOUT_MS: u64 = 60_000;
    /// Who has a token is told its claims; `who` tells them again.
    const RULES: &str = r#"
        connect = [{ when = "claims != null", reply = { event = "you", data = "{claims}" } }]
        on = [
            { event = "who", reply = { event = "you", data = "{claims}" } },
            { event = "seen", reply = { event = "seen", args = ["{auth}", "{query}"] } },
        ]
    "#;

    fn identity(secret: &[u8]) -> Option<Arc<Identity>> {
        let sources = ["auth.token", "query.token"].map(|source| Source::parse(source).unwrap()).to_vec();
        let required = vec![true, false];
        let refresh_event = Some("refresh".to_owned());
        let options = Options { sources, required, refresh_event, ..Options::default() };
        Some(Arc::new(Identity::new(options, vec![Key::from_secret(None, secret).unwrap()])))
    }

    /// One core. `/` wants a token and `/open` does not.
    struct Bench {
        shard: Shard,
        transports: u32,
        now: Millis,
    }

    impl Bench {
        fn new() -> Bench {
            let port = mesh::connect(1, mesh::Options { slots: 1 << 8 }).remove(0);
            let namespaces = ["/", "/open"].map(|name| {
                let source: RulesSource = toml::from_str(&format!("name = {name:?}\n{RULES}")).unwrap();
                let rules = NamespaceRules::compile(&source).unwrap();
                Namespace { name: name.into(), rules, classes: Classes::default() }
            });
            let heartbeat = HeartbeatOptions {
                ping_interval_ms: 1 << 40,
                ping_timeout_ms: 1 << 40,
                connect_timeout_ms: CONNECT_TIMEOUT_MS,
                upgrade_timeout_ms: 1 << 40,
            };
            let options = shard::Options { heartbeat, ..shard::Options::default() };
            let mut shard = Shard::new(port, Topology::new(1, 1), namespaces.into(), options, [0; 32], Millis(0), 1);
            shard.set_wall_clock(START_S * 1000);
            shard.set_identity(identity(SECRET));
            Bench { shard, transports: 0, now: Millis(0) }
        }

        /// A client that comes with this query.
        fn open(&mut self, kind: Kind, query: &str) -> SlotRef {
            let request = format!("GET /?{query} HTTP/1.1\r\nHost: a\r\n\r\n");
            let mut buffer = [httparse::EMPTY_HEADER; http::HEADERS_MAX];
            let Ok(HeadStep::Complete { head, .. }) = http::parse_head(request.as_bytes(), &mut buffer, 1 << 20) else {
                panic!("{request}")
            };
            let bearer = self.shard.identity().unwrap().of_request(&head, true);
            let query = self.shard.identity().unwrap().without_tokens(head.query).into_owned();
            let (ip, bearer) = (IpAddr::V4(Ipv4Addr::LOCALHOST), bearer.as_ref());
            let handshake = Handshake { kind, query: &query, bearer, ip, polls: false, message_bytes_max: 1 << 20 };
            self.transports += 1;
            let at = self.shard.open(SlotRef { slot: self.transports, generation: 0 }, handshake, self.now);
            self.settle();
            if kind == Kind::SocketIo {
                self.shard.outboxes.clear(at.slot);
            }
            at
        }

        fn socket_io(&mut self, query: &str) -> SlotRef {
            self.open(Kind::SocketIo, query)
        }

        fn raw(&mut self, query: &str) -> SlotRef {
            self.open(Kind::Raw { namespace: NamespaceId(0), shape: Shape::Nested }, query)
        }

        fn settle(&mut self) {
            self.shard.receive(usize::MAX, self.now);
            self.shard.check();
        }

        /// What a client is answered. Ids are left out.
        fn ask(&mut self, at: SlotRef, text: &str) -> Vec<String> {
            let _: Flow = self.shard.text(at, text, self.now);
            self.settle();
            self.read(at)
        }

        fn read(&mut self, at: SlotRef) -> Vec<String> {
            let waiting = self.shard.outboxes.waiting(at.slot);
            let texts = waiting.map(|(_, bytes)| match bytes[1] {
                126 => String::from_utf8(bytes[4..].to_vec()).unwrap(),
                _ => String::from_utf8(bytes[2..].to_vec()).unwrap(),
            });
            let said = texts.map(|text| match text.find("{\"sid\":\"") {
                Some(at) => text[..at].to_owned(),
                None => text,
            });
            let said = said.collect();
            self.shard.outboxes.clear(at.slot);
            said
        }

        fn closings(&mut self) -> Vec<(u16, String)> {
            let actions = std::iter::from_fn(|| self.shard.poll_action());
            let closing = |action| match action {
                Action::Close { closing, text, .. } => {
                    Some((closing.code, text.map_or_else(|| closing.label.to_owned(), |text| text.into())))
                }
                _ => None,
            };
            actions.filter_map(closing).collect()
        }

        fn advance_to(&mut self, ms: u64) {
            self.now = Millis(ms);
            self.shard.advance(self.now);
            self.settle();
        }

        /// Tokens refused, by label.
        fn refusals(&mut self) -> Vec<(&'static str, u64)> {
            let counts = std::mem::take(&mut self.shard.counters.by_reason);
            let ours = counts.into_iter().filter(|(metric, ..)| *metric == counters::AUTH_REFUSALS);
            ours.map(|(_, label, count)| (label, count)).collect()
        }
    }

    /// A token that ends so long after the beginning.
    fn ending(seconds: u64, sub: &str) -> String {
        hs256(&ending_json(seconds, sub))
    }

    fn ending_json(seconds: u64, sub: &str) -> String {
        format!(r#"{{"sub":"{sub}","exp":{}}}"#, START_S + seconds)
    }

    #[test]
    fn who_needs_a_token_connects_with_one() {
        let mut bench = Bench::new();
        let good = hs256(r#"{ "sub":"a" }"#);
        let forged = format!("{good}x");
        let you = r#"["you",{ "sub":"a" }]"#;
        let error = |message: &str, code: &str| format!(r#"{{"message":"{message}","data":{{"code":"{code}"}}}}"#);
        let missing = error("a token is required", "token_missing");
        let invalid = error("the token's signature is not valid", "token_invalid");
        for (query, auth, answers, label) in [
            (String::new(), String::new(), vec![format!("44{missing}")], Some("token_missing")),
            (String::new(), r#"{"token":""}"#.into(), vec![format!("44{missing}")], Some("token_missing")),
            (String::new(), format!(r#"{{"token":"{forged}"}}"#), vec![format!("44{invalid}")], Some("token_invalid")),
            (String::new(), format!(r#"{{"token":"{good}"}}"#), vec!["40".into(), format!("42{you}")], None),
            (format!("token={good}"), String::new(), vec!["40".into(), format!("42{you}")], None),
            // One source decides.
            (format!("token={good}"), r#"{"token":"x"}"#.into(), vec![], Some("token_invalid")),
            (format!("token={forged}"), format!(r#"{{"token":"{good}"}}"#), vec!["40".into()], None),
        ] {
            let client = bench.socket_io(&query);
            let said = bench.ask(client, &format!("40{auth}"));
            assert!(said.starts_with(&answers), "{query} {auth}: {said:?}");
            assert_eq!(bench.refusals(), Vec::from_iter(label.map(|label| (label, 1))), "{query} {auth}");
            assert!(bench.closings().is_empty());
        }
        // A raw client has no second chance.
        for (query, answers, closings) in [
            (format!("token={good}"), vec![format!(r#"{{"type":"you","data":{{ "sub":"a" }}}}"#)], vec![]),
            (
                String::new(),
                vec![format!(r#"{{"type":"error","data":{missing}}}"#)],
                vec![(4401, "a token is required".to_owned())],
            ),
            (
                format!("token={forged}"),
                vec![format!(r#"{{"type":"error","data":{invalid}}}"#)],
                vec![(4401, "the token's signature is not valid".to_owned())],
            ),
        ] {
            let client = bench.raw(&query);
            assert_eq!(bench.read(client), answers, "{query}");
            assert_eq!(bench.closings(), closings, "{query}");
        }
    }

    #[test]
    fn a_bad_token_is_refused_where_none_is_wanted() {
        let mut bench = Bench::new();
        let client = bench.socket_io("");
        assert_eq!(bench.ask(client, "40/open,"), ["40/open,"]);
        let client = bench.socket_io("");
        let refusal =
            r#"44/open,{"message":"the token is not a signed JSON Web Token","data":{"code":"token_invalid"}}"#;
        assert_eq!(bench.ask(client, r#"40/open,{"token":"x"}"#), [refusal]);
        // It was refused and may try again; a client that nobody ever lets in is closed.
        let token = hs256("{}");
        assert_eq!(bench.ask(client, &format!(r#"40/open,{{"token":"{token}"}}"#)).len(), 2);
        let other = bench.socket_io("");
        assert_eq!(bench.ask(other, r#"40{"token":"x"}"#).len(), 1);
        bench.closings();
        bench.advance_to(CONNECT_TIMEOUT_MS);
        assert_eq!(bench.closings(), [(CONNECT_TIMEOUT.code, CONNECT_TIMEOUT.label.to_owned())]);
    }

    #[test]
    fn each_namespace_verifies_anew() {
        let mut bench = Bench::new();
        let client = bench.socket_io(&format!("token={}", ending(10, "a")));
        assert_eq!(bench.ask(client, "40/open,").len(), 2);
        bench.advance_to(9_999);
        assert_eq!(bench.ask(client, "40").len(), 2);
        bench.advance_to(10_000);
        assert_eq!(bench.read(client), ["41/open,", "41"]);
        assert!(bench.ask(client, "40")[0].contains("token_expired"));
    }

    #[test]
    fn rules_see_claims_and_no_tokens() {
        let mut bench = Bench::new();
        let token = hs256(r#"{"n":1.0}"#);
        let client = bench.socket_io(&format!("a=1&token={token}"));
        assert_eq!(bench.ask(client, &format!(r#"40{{"token":"{token}","b":2}}"#)).len(), 2);
        assert_eq!(bench.ask(client, r#"42["who"]"#), [r#"42["you",{"n":1.0}]"#]);
        assert_eq!(bench.ask(client, r#"42["seen"]"#), [r#"42["seen",{"token":null,"b":2},{"a":"1"}]"#]);
        assert_eq!(bench.ask(client, "40/open,").len(), 2);
        // Without keys a token is a text like any other.
        bench.shard.set_identity(None);
        bench.ask(client, "41");
        assert_eq!(bench.ask(client, r#"40{"token":"x"}"#), ["40"]);
        assert_eq!(bench.ask(client, r#"42["seen"]"#), [r#"42["seen",{"token":"x"},{"a":"1"}]"#]);
    }

    #[test]
    fn a_socket_ends_with_its_token() {
        let mut bench = Bench::new();
        let client = bench.socket_io("");
        bench.ask(client, &format!(r#"40{{"token":"{}"}}"#, ending(10, "a")));
        bench.ask(client, "40/open,");
        let raw = bench.raw(&format!("token={}", ending(10, "b")));
        bench.read(raw);
        bench.closings();
        bench.advance_to(9_999);
        assert_eq!((bench.read(client), bench.closings()), (vec![], vec![]), "not early");
        bench.advance_to(10_000);
        assert_eq!(bench.read(client), ["41"]);
        assert_eq!(bench.closings(), [(4401, "token expired".to_owned())]);
        assert_eq!(bench.shard.counters.tokens_expired, 2);
        // The other namespace stays, for ever.
        assert_eq!(bench.ask(client, r#"42/open,["who"]"#), [r#"42/open,["you",null]"#]);
        bench.advance_to(10 * CONNECT_TIMEOUT_MS);
        assert!(bench.closings().is_empty());
        // The same token does not open it again.
        assert!(bench.ask(client, &format!(r#"40{{"token":"{}"}}"#, ending(10, "a")))[0].contains("token_expired"));
    }

    #[test]
    fn a_token_may_end_before_the_client_is_connected() {
        let mut bench = Bench::new();
        let client = bench.socket_io("");
        let connect = format!(r#"40{{"token":"{}"}}"#, ending(10, "a"));
        assert_eq!(bench.shard.text(client, &connect, bench.now), Flow::Wait, "the owner has not answered");
        bench.shard.advance(Millis(10_000));
        let refusal = r#"44{"message":"the token has expired","data":{"code":"token_expired"}}"#;
        assert_eq!(bench.read(client), [refusal]);
        assert!(!bench.shard.is_busy(client));
        bench.settle();
        assert!(bench.read(client).is_empty());
        assert!(bench.shard.sockets.is_empty());
    }

    #[test]
    fn who_has_lost_the_last_socket_does_not_stay_for_ever() {
        let mut bench = Bench::new();
        let [goes, returns] = [(); 2].map(|()| bench.socket_io(""));
        for client in [goes, returns] {
            bench.ask(client, &format!(r#"40{{"token":"{}"}}"#, ending(10, "a")));
        }
        bench.advance_to(10_000);
        assert_eq!(bench.ask(returns, &format!(r#"40{{"token":"{}"}}"#, ending(10_000, "a"))).len(), 3);
        bench.closings();
        bench.advance_to(10_000 + CONNECT_TIMEOUT_MS - 1);
        assert!(bench.closings().is_empty());
        bench.advance_to(10_000 + CONNECT_TIMEOUT_MS);
        assert_eq!(bench.closings(), [(CONNECT_TIMEOUT.code, CONNECT_TIMEOUT.label.to_owned())]);
        assert!(bench.shard.sessions.get(goes).unwrap().closing);
    }

    #[test]
    fn the_wall_clock_may_be_set() {
        let mut bench = Bench::new();
        let clients = [10, 20].map(|seconds| {
            let client = bench.socket_io("");
            bench.ask(client, &format!(r#"40{{"token":"{}"}}"#, ending(seconds, "a")));
            client
        });
        // Back by 5 s: everything ends 5 s later on our clock.
        bench.shard.set_wall_clock((START_S - 5) * 1000);
        bench.advance_to(14_999);
        assert_eq!(clients.map(|client| bench.read(client)), [vec![], vec![] as Vec<String>]);
        bench.advance_to(15_000);
        assert_eq!(clients.map(|client| bench.read(client)), [vec!["41".to_owned()], vec![]]);
        // Forward: at once.
        bench.shard.set_wall_clock((START_S + 5) * 1000);
        bench.advance_to(15_001);
        assert_eq!(bench.read(clients[1]), ["41"]);
        // A little back, too little to look at every session: still not early.
        let client = bench.socket_io("");
        bench.ask(client, &format!(r#"40{{"token":"{}"}}"#, ending(30, "a")));
        bench.shard.set_wall_clock((START_S + 5) * 1000 - 900);
        bench.advance_to(25_000);
        assert!(bench.read(client).is_empty());
        bench.advance_to(25_900);
        assert_eq!(bench.read(client), ["41"]);
    }

    #[test]
    fn a_token_may_be_refreshed() {
        let mut bench = Bench::new();
        let client = bench.socket_io("");
        bench.ask(client, &format!(r#"40{{"token":"{}"}}"#, ending(10, "a")));
        let next = ending(20, "a");
        let ok = |seconds: u64| format!(r#"[{{"ok":true,"expires_at":{}}}]"#, START_S + seconds);
        assert_eq!(bench.ask(client, &format!(r#"427["refresh","{next}"]"#)), [format!("437{}", ok(20))]);
        bench.advance_to(10_000);
        assert_eq!(bench.ask(client, r#"42["who"]"#), [format!(r#"42["you",{}]"#, ending_json(20, "a"))]);
        // Without a wish for an answer there is none.
        let next = ending(30, "a");
        assert!(bench.ask(client, &format!(r#"42["refresh",{{"token":"{next}"}}]"#)).is_empty());
        bench.advance_to(29_999);
        assert!(bench.read(client).is_empty());
        bench.advance_to(30_000);
        assert_eq!(bench.read(client), ["41"]);
        assert_eq!((bench.shard.counters.tokens_refreshed, bench.shard.counters.tokens_expired), (2, 1));
        // For the token that never ends, null is told.
        let client = bench.socket_io("");
        bench.ask(client, "40/open,");
        let told = bench.ask(client, &format!(r#"42/open,1["refresh","{}"]"#, hs256("{}")));
        assert_eq!(told, [r#"43/open,1[{"ok":true,"expires_at":null}]"#]);
    }

    #[test]
    fn a_bad_refresh_changes_nothing() {
        let mut bench = Bench::new();
        let client = bench.socket_io("");
        let present = ending_json(10, "a");
        bench.ask(client, &format!(r#"40{{"token":"{}"}}"#, hs256(&present)));
        for (data, message, label) in [
            (
                format!(r#","{}""#, ending(20, "b")),
                "the token is for another subject than the one before",
                "token_subject",
            ),
            (format!(r#","{}""#, hs256("{}")), "the token is for another subject than the one before", "token_subject"),
            (format!(r#","{}x""#, ending(20, "a")), "the token's signature is not valid", "token_invalid"),
            (format!(r#","{}""#, ending(0, "a")), "the token has expired", "token_expired"),
            (r#",{"tokens":1}"#.into(), "a token is required", "token_missing"),
            (String::new(), "a token is required", "token_missing"),
            (r#",{"token":7}"#.into(), "the token is not a signed JSON Web Token", "token_invalid"),
            (r",null".into(), "the token is not a signed JSON Web Token", "token_invalid"),
        ] {
            let error = format!(r#"{{"error":{{"message":"{message}","code":"{label}"}}}}"#);
            assert_eq!(bench.ask(client, &format!(r#"423["refresh"{data}]"#)), [format!("433[{error}]")], "{data}");
            let event = format!(r#"{{"message":"{message}","event":"refresh","data":{{"code":"{label}"}}}}"#);
            assert_eq!(bench.ask(client, &format!(r#"42["refresh"{data}]"#)), [format!(r#"42["error",{event}]"#)]);
            assert_eq!(bench.refusals(), [(label, 2)]);
            assert_eq!(bench.ask(client, r#"42["who"]"#), [format!(r#"42["you",{present}]"#)]);
        }
        bench.advance_to(10_000);
        assert_eq!(bench.read(client), ["41"]);
    }

    #[test]
    fn raw_clients_refresh_as_well() {
        let mut bench = Bench::new();
        let client = bench.raw(&format!("token={}", ending(10, "a")));
        bench.read(client);
        bench.closings();
        let message = |token: &str| format!(r#"{{"type":"refresh","data":{{"token":"{token}"}}}}"#);
        assert!(bench.ask(client, &message(&ending(20, "b")))[0].contains("token_subject"));
        assert!(bench.ask(client, &message(&ending(20, "a"))).is_empty());
        bench.advance_to(19_999);
        assert!(bench.closings().is_empty());
        bench.advance_to(20_000);
        assert_eq!(bench.closings(), [(4401, "token expired".to_owned())]);
    }

    #[test]
    fn new_keys_are_for_new_sockets() {
        let mut bench = Bench::new();
        let client = bench.socket_io("");
        let old = ending(10, "a");
        bench.ask(client, &format!(r#"40{{"token":"{old}"}}"#));
        bench.shard.set_identity(identity(b"another secret"));
        assert_eq!(bench.ask(client, r#"42["who"]"#).len(), 1);
        assert!(bench.ask(client, &format!(r#"40/open,{{"token":"{old}"}}"#))[0].contains("signature"));
        bench.advance_to(10_000);
        assert_eq!(bench.read(client), ["41"]);
    }

    #[test]
    fn a_client_without_a_token_costs_nothing_more() {
        let mut bench = Bench::new();
        let client = bench.socket_io("a=1");
        bench.ask(client, "40/open,");
        let session = bench.shard.sessions.get(client).unwrap();
        assert!(session.credentials().is_none());
        let (_, socket) = session.sockets[0];
        assert!(bench.shard.sockets[socket.slot].notes.is_none());
    }
}
