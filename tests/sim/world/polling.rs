//! Clients that speak Engine.IO over HTTP long-polling and upgrade to WebSocket, most of them; and what goes wrong with
//! them. Knows requests, responses and packets; the network and the cores' drivers are in `net`.

use super::lives::End;
use super::net::{Down, Up, split};
use super::{
    Client, Kind, Membership, Millis, NAMESPACES, NOWHERE, Peer, Shard, VecDeque, World, acknowledged_event, place,
    prefix,
};
use roomcast::base::ids::SocketId;
use roomcast::proto::engineio::Refusal;
use roomcast::proto::json;
use roomcast::shard::{DISCONNECTED, GOING_AWAY, UPGRADE_TIMEOUT};

/// A client that polls begins to upgrade, one time in this many that it does something.
const UPGRADE_ONE_IN: usize = 10;
/// A client does something that ends its session, one time in this many.
const FAULT_ONE_IN: usize = 80;
/// A client that has a WebSocket sends a request that is refused, one time in this many.
const STRAY_ONE_IN: usize = 40;
/// A server closes some session, one time in this many steps of clients.
const SHUT_ONE_IN: usize = 300;
/// The connection of a POST that is being handled breaks, one time in this many.
const BREAK_ONE_IN: usize = 300;
/// One client in this many takes its time between two polls: it does something one time in this many.
const LAZY_ONE_IN: usize = 6;
const LAZY_DOES_ONE_IN: usize = 24;
/// One client in this many connects to no namespace.
const MUTE_ONE_IN: usize = 12;
/// A request goes over a new connection, though an idle one is there, one time in this many.
const CONNECT_ONE_IN: usize = 3;
/// The body of a POST comes later than its head, one time in this many.
const SLOW_BODY_ONE_IN: usize = 3;
/// While time goes by at the end, somebody opens a WebSocket for a session, or polls one that lingers, one time in this
/// many that something is due.
const HAUNTED_ONE_IN: usize = 3;
const PACKETS_PER_POST_MAX: usize = 5;

/// A client that began with polling.
#[derive(Debug, Default)]
pub(super) struct Poller {
    peer: usize,
    sid: Option<SocketId>,
    /// Says nothing but what keeps its session alive.
    mute: bool,
    /// Takes its time between two polls.
    lazy: bool,
    /// Connections without a request.
    idle: Vec<usize>,
    poll: Option<usize>,
    post: Option<usize>,
    /// The rest of the POST.
    body: Option<Vec<String>>,
    /// Answers that are to come, by POST.
    due: VecDeque<usize>,
    socket: Option<Socket>,
    /// It does not poll any more, to upgrade.
    paused: bool,
    upgraded: bool,
    /// More than one WebSocket was tried at the same time.
    crowded: bool,
    /// Requests whose responses nobody waits for.
    strays: Vec<usize>,
    /// The client is gone. What its connections still do concerns the servers alone.
    gone: bool,
}

#[derive(Debug)]
struct Socket {
    pipe: usize,
    inbox: Vec<u8>,
    stage: Stage,
    plan: Plan,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The handshake is under way.
    Asked,
    Open,
    Probed,
    Answered,
}

/// How an upgrade goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    /// As it should: when poll and POST are over.
    Upgrade,
    /// While a POST may be under way.
    Early,
    /// While a poll may wait as well.
    Hasty,
    /// The client closes the WebSocket, or says something else, once it is there.
    Forgo(Stage),
    /// Nothing more is said from there on.
    Silent(Stage),
}

/// What a client can do next.
#[derive(Clone, Copy, Debug)]
enum Act {
    Read(usize),
    Poll,
    Post,
    Body,
    Probe,
    Upgrade,
    Forgo,
    Say,
}

impl World {
    /// A client opens a session by polling.
    pub(super) fn open_polled(&mut self) {
        let pipe = self.net.connect();
        self.net.pipes[pipe].up.push_back(Up::Open);
        let peer = self.peers.len();
        let namespace = *self.random.pick(&NAMESPACES);
        let mut client = Client { number: peer, late: true, socket_io: true, ..Client::default() };
        client.memberships.insert(place(namespace, ""), vec![Membership::asked(self.step)]);
        self.model.clients.push(client);
        let of_peer = Peer::new(0, NOWHERE, NOWHERE, Kind::SocketIo, namespace);
        self.peers.push(Peer { poller: Some(self.pollers.len()), ..of_peer });
        let mute = self.random.chance(MUTE_ONE_IN);
        let lazy = self.random.chance(LAZY_ONE_IN);
        self.pollers.push(Poller { peer, mute, lazy, poll: Some(pipe), ..Poller::default() });
    }

    /// Shards have been told of acknowledgements.
    pub(super) fn note_acks(&mut self) {
        for (sid, text) in std::mem::take(&mut self.net.acks) {
            let poller = self.pollers.iter().find(|poller| poller.sid == Some(sid)).expect("somebody has said it");
            if let Some(event) = acknowledged_event(&text) {
                self.model.clients[poller.peer].acked.entry(event).or_insert(self.step);
            }
        }
    }

    /// Cores have sent what waited, or a part of it.
    pub(super) fn note_reads(&mut self) {
        for (sid, bytes, is_empty) in std::mem::take(&mut self.net.reads) {
            // One that has not read its own id yet is in no room.
            if let Some(peer) = self.pollers.iter().find(|poller| poller.sid == Some(sid)).map(|poller| poller.peer) {
                self.note_read(peer, bytes, is_empty);
            }
        }
    }

    /// Something that a polled client, or a core for one, does.
    pub(super) fn poll_on(&mut self) {
        match self.random.below(8) {
            0..=2 => return self.net.step(&mut self.shards),
            3 => {
                self.observe();
                return self.net.flush_some(&mut self.shards);
            }
            _ => {}
        }
        if self.random.chance(SHUT_ONE_IN) {
            self.shut_some_session();
        }
        if self.random.chance(BREAK_ONE_IN) {
            self.net.break_post(&mut self.shards);
        }
        if self.pollers.is_empty() {
            return;
        }
        let number = self.random.below(self.pollers.len());
        if self.pollers[number].gone {
            return self.haunt(number);
        }
        let poller = &self.pollers[number];
        let begun = poller.sid.is_some();
        if begun && self.random.chance(FAULT_ONE_IN) {
            return self.break_rules(number);
        }
        let poller = &self.pollers[number];
        if begun && poller.socket.is_none() && self.random.chance(UPGRADE_ONE_IN) {
            return self.begin_upgrade(number);
        }
        if self.pollers[number].socket.is_some() && self.random.chance(STRAY_ONE_IN) {
            return self.stray(number);
        }
        let Poller { lazy, poll, upgraded, .. } = self.pollers[number];
        if !lazy || poll.is_some() || upgraded || self.random.chance(LAZY_DOES_ONE_IN) {
            self.act(number);
        }
    }

    /// What clients and cores do when they are left alone. False if there is nothing to be done.
    pub(super) fn poll_to_rest(&mut self) -> bool {
        let mut worked = self.net.work(&mut self.shards);
        self.observe();
        for core in 0..self.shards.len() {
            worked |= self.net.flush(&mut self.shards, core);
        }
        for number in 0..self.pollers.len() {
            while self.act(number) {
                worked = true;
            }
        }
        worked
    }

    /// True while a client waits for what needs no time to come.
    pub(super) fn poll_waits(&self) -> bool {
        let waits = |poller: &Poller| {
            // An upgrade ends a poll; but the WebSocket may have been given up before the server read of the upgrade.
            let carries = poller.socket.as_ref().is_some_and(|socket| !self.net.pipes[socket.pipe].down_ended);
            let ends = poller.upgraded && carries && poller.poll.is_some();
            !poller.gone && (poller.post.is_some() || poller.sid.is_none() || ends)
        };
        self.pollers.iter().any(waits)
    }

    /// Time goes by until the last session is over.
    pub(super) fn outlive_sessions(&mut self) {
        while let Some(due) = self.net.lives.next_due() {
            if self.random.chance(HAUNTED_ONE_IN) {
                self.probe_some_session();
            }
            if self.random.chance(HAUNTED_ONE_IN) {
                self.poll_late();
            }
            self.advance_to(Millis(due.0 - 1).max(self.now));
            self.net.lives.check(&self.shards);
            self.advance_to(due);
            self.come_to_rest();
            self.shards.iter().for_each(Shard::check);
        }
        // WebSockets that are being closed wait for clients that are gone.
        self.advance_to(self.now.after(10_000));
        self.settle();
        self.net.check_over();
    }

    /// The client of this number leaves, one way or another.
    pub(super) fn leave_polled(&mut self, number: usize) {
        let way = self.random.below(4);
        let poller = &mut self.pollers[number];
        if std::mem::replace(&mut poller.gone, true) {
            return;
        }
        let Some(sid) = poller.sid else { return };
        let socket = poller.socket.as_ref().map(|socket| socket.pipe);
        match (way, poller.upgraded.then_some(socket).flatten()) {
            (0, Some(pipe)) => self.net.pipes[pipe].up.push_back(Up::CloseFrame),
            (1, Some(pipe)) => self.net.pipes[pipe].up.push_back(Up::Text("1".to_owned())),
            (2, Some(pipe)) => self.net.pipes[pipe].up_ended = true,
            (0 | 1, None) if poller.post.is_none() => {
                let pipe = self.send_request(number, Up::Post { sid, is_binary: false });
                self.net.pipes[pipe].up.push_back(Up::Body(vec!["1".to_owned()]));
            }
            (2, None) => self.hang_up(number),
            // It is just not heard of any more.
            _ => {}
        }
    }

    /// The client has been told that its session is over.
    fn over(&mut self, number: usize) {
        let Poller { peer, sid, .. } = self.pollers[number];
        self.pollers[number].gone = true;
        if let Some(sid) = sid {
            let end = self.net.lives.by_sid(&sid).end;
            // The socket may have been disconnected while a message for it was under way.
            let disconnects = self.model.operations.iter().any(|operation| operation.kind == "disconnect");
            let blameless = end == End::No || end == End::Yes("parse error") && !disconnects;
            assert!(!blameless, "client {peer} is told that its session is over: {end:?}");
        }
        self.close_peer(peer);
    }

    fn hang_up(&mut self, number: usize) {
        let Poller { idle, poll, post, socket, strays, .. } = &self.pollers[number];
        let socket = socket.as_ref().map(|socket| &socket.pipe);
        for &pipe in idle.iter().chain(poll).chain(post).chain(socket).chain(strays) {
            self.net.pipes[pipe].up_ended = true;
        }
    }

    /// Sends a request, over an idle connection or a new one.
    fn send_request(&mut self, number: usize, request: Up) -> usize {
        let idle = &mut self.pollers[number].idle;
        idle.retain(|&pipe| !self.net.pipes[pipe].down_ended);
        let pipe = match idle.pop() {
            Some(pipe) if !self.random.chance(CONNECT_ONE_IN) => pipe,
            Some(pipe) => {
                idle.push(pipe);
                self.net.connect()
            }
            None => self.net.connect(),
        };
        self.net.pipes[pipe].up.push_back(request);
        pipe
    }

    /// Does one of the things that the client can do now. False if there is none.
    fn act(&mut self, number: usize) -> bool {
        let acts = self.acts(number);
        if acts.is_empty() {
            return false;
        }
        let (act, poller) = (*self.random.pick(&acts), &mut self.pollers[number]);
        match act {
            Act::Read(pipe) => self.read_response(number, pipe),
            Act::Poll => {
                let sid = poller.sid.expect("it is open");
                let pipe = self.send_request(number, Up::Get(sid));
                self.pollers[number].poll = Some(pipe);
            }
            Act::Post => self.post(number),
            Act::Body => {
                let body = poller.body.take().expect("there is one");
                let pipe = poller.post.expect("it has a head");
                self.net.pipes[pipe].up.push_back(Up::Body(body));
            }
            Act::Probe | Act::Upgrade => {
                let socket = poller.socket.as_mut().expect("there is one");
                let (text, stage) = match act {
                    Act::Probe => ("2probe", Stage::Probed),
                    _ => ("5", Stage::Answered),
                };
                socket.stage = stage;
                poller.upgraded = matches!(act, Act::Upgrade);
                self.net.pipes[socket.pipe].up.push_back(Up::Text(text.to_owned()));
            }
            Act::Forgo => {
                let pipe = poller.socket.take().expect("there is one").pipe;
                poller.paused = false;
                let pipe = &mut self.net.pipes[pipe];
                match self.random.below(4) {
                    0 => pipe.up.push_back(Up::CloseFrame),
                    1 => pipe.up.push_back(Up::Text("4early".to_owned())),
                    2 => pipe.up.push_back(Up::Text(String::new())),
                    _ => {}
                }
                pipe.up_ended = true;
            }
            Act::Say => {
                let pipe = poller.socket.as_ref().expect("it has upgraded").pipe;
                let text = self.peers[poller.peer].waiting.pop_front().expect("something waits");
                poller.due.push_back(usize::from(is_answered(&text)));
                self.net.pipes[pipe].up.push_back(Up::Text(text));
            }
        }
        true
    }

    fn acts(&self, number: usize) -> Vec<Act> {
        let poller = &self.pollers[number];
        let mut acts = Vec::new();
        if poller.gone {
            return acts;
        }
        let readable = |pipe: &usize| {
            let pipe = &self.net.pipes[*pipe];
            !pipe.down.is_empty() || pipe.down_ended
        };
        let socket = poller.socket.as_ref();
        // What the last poll brings came before what the WebSocket brings.
        let carries = socket.filter(|_| !poller.upgraded || poller.poll.is_none()).map(|socket| &socket.pipe);
        let pipes = poller.poll.iter().chain(&poller.post).chain(carries);
        acts.extend(pipes.filter(|pipe| readable(pipe)).map(|pipe| Act::Read(*pipe)));
        let Some(sid) = poller.sid else { return acts };
        if !poller.upgraded && !poller.paused && poller.poll.is_none() {
            acts.push(Act::Poll);
        }
        let waits = !self.peers[poller.peer].waiting.is_empty();
        if !poller.upgraded && poller.post.is_none() && waits {
            acts.push(Act::Post);
        }
        if poller.body.is_some() {
            acts.push(Act::Body);
        }
        if poller.upgraded {
            acts.extend(waits.then_some(Act::Say));
        } else if let Some(Socket { stage, plan, .. }) = socket {
            // A POST that the server does not know of yet would be refused after the upgrade.
            let handled = self.net.lives.by_sid(&sid).post.is_some();
            let posts = poller.post.is_some();
            let free = match plan {
                Plan::Early => poller.poll.is_none() && (if posts { handled } else { !waits }),
                Plan::Hasty => handled || !posts,
                _ => poller.poll.is_none() && !posts,
            };
            match (stage, plan) {
                (stage, Plan::Forgo(last)) if stage == last => acts.push(Act::Forgo),
                (stage, Plan::Silent(last)) if stage == last => {}
                (Stage::Open, _) => acts.push(Act::Probe),
                (Stage::Answered, Plan::Upgrade | Plan::Early | Plan::Hasty) if free => acts.push(Act::Upgrade),
                _ => {}
            }
        }
        acts
    }

    fn post(&mut self, number: usize) {
        let poller = &self.pollers[number];
        let waiting = &mut self.peers[poller.peer].waiting;
        let count = waiting.len().min(1 + self.random.below(PACKETS_PER_POST_MAX));
        let packets: Vec<String> = waiting.drain(..count).collect();
        let sid = poller.sid.expect("it is open");
        let pipe = self.send_request(number, Up::Post { sid, is_binary: false });
        let poller = &mut self.pollers[number];
        poller.due.push_back(packets.iter().filter(|packet| is_answered(packet)).count());
        poller.post = Some(pipe);
        if self.random.chance(SLOW_BODY_ONE_IN) {
            poller.body = Some(packets);
        } else {
            self.net.pipes[pipe].up.push_back(Up::Body(packets));
        }
    }

    fn begin_upgrade(&mut self, number: usize) {
        let plan = match self.random.below(12) {
            0 => Plan::Forgo(Stage::Open),
            1 => Plan::Forgo(Stage::Probed),
            2 => Plan::Forgo(Stage::Answered),
            3 => Plan::Silent(Stage::Open),
            4 => Plan::Silent(Stage::Answered),
            5 | 6 => Plan::Early,
            7 => Plan::Hasty,
            _ => Plan::Upgrade,
        };
        let poller = &mut self.pollers[number];
        let Some(sid) = poller.sid else { return };
        let pipe = self.net.connect();
        self.net.pipes[pipe].up.push_back(Up::Handshake(sid));
        poller.socket = Some(Socket { pipe, inbox: Vec::new(), stage: Stage::Asked, plan });
    }

    /// A request that is refused, and does no harm: a second WebSocket, or polling after the upgrade.
    fn stray(&mut self, number: usize) {
        let poller = &mut self.pollers[number];
        let Some(sid) = poller.sid else { return };
        let request = if poller.upgraded && poller.post.is_none() && poller.poll.is_none() && self.random.chance(2) {
            Up::Get(sid)
        } else {
            poller.crowded = true;
            Up::Handshake(sid)
        };
        let pipe = self.net.connect();
        self.net.pipes[pipe].up.push_back(request);
        self.pollers[number].strays.push(pipe);
    }

    /// The client reads the next thing that came on a connection.
    fn read_response(&mut self, number: usize, pipe: usize) {
        let poller = &mut self.pollers[number];
        let carries = poller.socket.as_ref().is_some_and(|socket| socket.pipe == pipe);
        let Some(response) = self.net.pipes[pipe].down.pop_front() else {
            return if carries { self.socket_closed(number, "no close frame") } else { self.over(number) };
        };
        match response {
            Down::Polled(body) => {
                assert_eq!(poller.poll.take(), Some(pipe));
                poller.idle.push(pipe);
                self.understand_payload(number, &body);
            }
            Down::Posted => {
                assert_eq!(poller.post.take(), Some(pipe));
                assert!(poller.body.is_none(), "a POST is answered that is not all there");
                poller.idle.push(pipe);
            }
            // The client upgraded before its poll was there.
            Down::Refused(Refusal::BadRequest) if poller.upgraded && poller.poll == Some(pipe) => poller.poll = None,
            Down::Refused(refusal) => {
                let expected = [Refusal::UnknownSid, Refusal::BadRequest];
                assert!(expected.contains(&refusal), "{refusal:?}");
                self.over(number);
            }
            Down::Switched => {
                let socket = poller.socket.as_mut().expect("it was asked for");
                assert_eq!(socket.stage, Stage::Asked);
                socket.stage = Stage::Open;
            }
            Down::Frames(bytes) => {
                let socket = poller.socket.as_mut().expect("it is there");
                socket.inbox.extend(bytes);
                while let Some(socket) = &mut self.pollers[number].socket
                    && let Some((opcode, text)) = split_frame(&mut socket.inbox)
                {
                    match opcode {
                        0x81 => self.understand_frame(number, &text),
                        0x88 => self.socket_closed(number, &text),
                        other => panic!("frame {other:#x}"),
                    }
                    if self.pollers[number].gone {
                        return;
                    }
                }
            }
        }
    }

    fn understand_payload(&mut self, number: usize, body: &str) {
        let ends = split(body).any(|packet| packet == "1" || packet.starts_with("41"));
        let answers = split(body).filter(|packet| is_answer(packet)).count();
        let due = &mut self.pollers[number].due;
        let mut whole = 0;
        while !ends && whole < answers {
            whole += due.pop_front().expect("an answer was asked for");
        }
        assert!(ends || whole == answers, "a part of a POST's answers came alone: {body:?}");
        for packet in split(body) {
            if self.pollers[number].gone {
                return;
            }
            self.understand_packet(number, packet);
        }
    }

    fn understand_frame(&mut self, number: usize, text: &str) {
        let poller = &mut self.pollers[number];
        let socket = poller.socket.as_mut().expect("it has come on it");
        if !poller.upgraded {
            assert_eq!((text, socket.stage), ("3probe", Stage::Probed), "before the upgrade");
            socket.stage = Stage::Answered;
            // From here on a client that wants to upgrade waits for its poll and does not poll again.
            poller.paused = !matches!(socket.plan, Plan::Forgo(_) | Plan::Silent(_));
            return;
        }
        if is_answer(text) {
            while poller.due.front() == Some(&0) {
                poller.due.pop_front();
            }
            *poller.due.front_mut().expect("an answer was asked for") -= 1;
        }
        self.understand_packet(number, text);
    }

    fn understand_packet(&mut self, number: usize, packet: &str) {
        // What comes together comes one after the other all the same.
        self.step += 1;
        let peer = self.pollers[number].peer;
        match packet.as_bytes()[0] {
            b'0' => {
                let sid = json::unescape(json::get(&packet[1..], "sid").unwrap()).unwrap();
                let before = self.pollers[number].sid.replace(SocketId::parse(&sid).unwrap());
                assert_eq!(before, None, "a session opens once");
                if !self.pollers[number].mute {
                    self.say(peer, format!("40{}", prefix(self.peers[peer].namespace)));
                }
            }
            b'1' => self.over(number),
            b'6' => {}
            _ => self.understand(peer, packet),
        }
    }

    /// The server has closed the WebSocket.
    fn socket_closed(&mut self, number: usize, reason: &str) {
        let poller = &mut self.pollers[number];
        if poller.upgraded && reason == UPGRADE_TIMEOUT.label {
            // The client had upgraded, but the server had not read it. Polling goes on without it.
            poller.gone = true;
            let peer = poller.peer;
            return self.close_peer(peer);
        }
        if poller.upgraded {
            return self.over(number);
        }
        // What has been closed before, or failed, is not in its way.
        if reason.is_empty() && !poller.crowded {
            let life = self.net.lives.by_sid(&poller.sid.expect("it is open"));
            assert_ne!(life.end, End::No, "a WebSocket is refused for no reason: {life:?}");
        }
        poller.socket = None;
        poller.paused = false;
    }

    /// Something that ends the session, at once or when the server finds that nobody is there.
    fn break_rules(&mut self, number: usize) {
        let way = self.random.below(8);
        let poller = &self.pollers[number];
        let (peer, sid) = (poller.peer, poller.sid.expect("it is open"));
        let abort = |world: &mut World, pipe: usize| world.net.pipes[pipe].up_ended = true;
        match (way, poller.poll, poller.post) {
            // Two polls, or two POSTs, at the same time.
            (0, Some(_), _) if !poller.upgraded => self.request(number, Up::Get(sid), None),
            (1, _, Some(_)) if !poller.upgraded => {
                self.request(number, Up::Post { sid, is_binary: false }, Some(vec!["3".to_owned()]));
            }
            (2, Some(pipe), _) => abort(self, pipe),
            // If its body is not there: a part of the POST.
            (3, _, Some(pipe)) => abort(self, pipe),
            (4, _, None) if !poller.upgraded => {
                let packets = ["40", "x", "42[\"join\",{\"room\":\"a\"}]"].map(str::to_owned);
                self.request(number, Up::Post { sid, is_binary: false }, Some(packets.into()));
            }
            (5, _, None) if !poller.upgraded => self.request(number, Up::Post { sid, is_binary: true }, None),
            (6, ..) => {}
            _ => return self.close_peer(peer),
        }
        self.pollers[number].gone = true;
        self.close_peer(peer);
    }

    /// A request whose response nobody waits for.
    fn request(&mut self, number: usize, request: Up, body: Option<Vec<String>>) {
        let pipe = self.net.connect();
        self.net.pipes[pipe].up.push_back(request);
        self.net.pipes[pipe].up.extend(body.map(Up::Body));
        self.pollers[number].strays.push(pipe);
    }

    /// Somebody goes on with the session of a client that is gone: whatever comes, the server does what it must.
    fn haunt(&mut self, number: usize) {
        let Some(sid) = self.pollers[number].sid else { return self.hang_up(number) };
        let texts = |list: &[&str]| Some(list.iter().map(|&text| text.to_owned()).collect::<Vec<String>>());
        let own = prefix(self.peers[self.pollers[number].peer].namespace);
        let join = &*format!("42{own}[\"join\",{{\"room\":\"b\"}}]");
        let post = |is_binary| Up::Post { sid, is_binary };
        match self.random.below(40) {
            0..=2 => self.request(number, Up::Get(sid), None),
            3 => self.request(number, post(false), None),
            4..=6 => self.request(number, post(false), texts(&["3"])),
            7 | 8 => self.request(number, post(false), texts(&[join, "3", join])),
            9 => self.request(number, post(false), texts(&[join, "1", join])),
            10 => self.request(number, post(true), None),
            11..=13 => {
                let pipe = self.net.connect();
                let handshake = Up::Handshake(sid);
                let said = ["2probe", "5", "3", join, "1"].map(|text| Up::Text(text.to_owned()));
                let count = self.random.below(said.len() + 1);
                self.net.pipes[pipe].up.extend([handshake].into_iter().chain(said.into_iter().take(count)));
                self.pollers[number].strays.push(pipe);
            }
            14 => {
                let strays = &self.pollers[number].strays;
                if !strays.is_empty() {
                    let pipe = *self.random.pick(strays);
                    self.net.pipes[pipe].up_ended = true;
                }
            }
            15 => self.hang_up(number),
            _ => {}
        }
    }

    /// Somebody opens a WebSocket for a session, and goes no further than to try it.
    fn probe_some_session(&mut self) {
        let living: Vec<SocketId> = self.net.lives.living().map(|life| life.sid).collect();
        if !living.is_empty() {
            let pipe = self.net.connect();
            let said = [Up::Handshake(*self.random.pick(&living)), Up::Text("2probe".to_owned())];
            let count = 1 + self.random.below(said.len());
            self.net.pipes[pipe].up.extend(said.into_iter().take(count));
            self.come_to_rest();
        }
    }

    /// Somebody polls a session that lingers, and time goes by before the answer is sent.
    fn poll_late(&mut self) {
        let sid = self.net.lives.lingering().next().map(|life| life.sid);
        if let Some(sid) = sid {
            let pipe = self.net.connect();
            self.net.pipes[pipe].up.push_back(Up::Get(sid));
            while self.net.work(&mut self.shards) {}
        }
    }

    /// A server closes a session for reasons of its own.
    fn shut_some_session(&mut self) {
        let living: Vec<_> = self.net.lives.living().map(|life| (life.core, life.at)).collect();
        if !living.is_empty() {
            let (core, at) = *self.random.pick(&living);
            let closing = if self.random.chance(2) { DISCONNECTED } else { GOING_AWAY };
            self.shards[core].shut(at, closing);
            self.net.lives.shut(core, at);
        }
    }
}

/// True for what a client says and the server answers.
fn is_answered(packet: &str) -> bool {
    packet.starts_with("40") || packet.starts_with("42")
}

/// True for the server's answers to that.
fn is_answer(packet: &str) -> bool {
    let list = |packet: &str| packet.find('[').map_or(String::new(), |start| packet[start..].to_owned());
    let answers = ["[\"joined\"", "[\"left\"", "[\"watched\"", "[\"values\"", "[\"said\""];
    packet.starts_with("40") || packet.starts_with("42") && answers.iter().any(|name| list(packet).starts_with(name))
}

/// The first whole server frame in `bytes`, taken out: its first byte and its text.
fn split_frame(bytes: &mut Vec<u8>) -> Option<(u8, String)> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    let (length, header) = match second {
        126 => (usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?])), 4),
        short => (usize::from(short), 2),
    };
    if bytes.len() < header + length {
        return None;
    }
    // A close frame has its code in front of its reason.
    let code = if first == 0x88 { 2 } else { 0 };
    let text: Vec<u8> = bytes.drain(..header + length).skip(header + code).collect();
    Some((first, String::from_utf8(text).unwrap()))
}
